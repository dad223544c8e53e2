// The drawing of the graph, as the product makes it, with the state of each node as a colour and in words.

import { el, get, seconds, shownPath, svg } from "./dom.js";
import { above } from "./run_model.js";

const TAGS = new Set(["svg", "g", "rect", "path", "circle", "text", "title"]);
const ATTRIBUTES = new Set([
  "viewBox", "width", "height", "role", "aria-label", "font-family", "font-size", "font-weight", "x", "y", "dy", "rx",
  "cx", "cy", "r", "d", "transform", "class", "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray",
  "text-anchor", "data-node", "data-source", "data-target", "data-both",
]);
const ORDER = ["running", "failed", "asking", "done", "waiting", "cut off", "skipped"];

export class PictureView {
  constructor(place, { onSelect }) {
    this.place = place;
    this.onSelect = onSelect;
    this.reset("");
  }

  reset(source) {
    this.source = source;
    this.opened = new Set();
    this.closed = new Set();
    this.nodes = {};
    this.paths = new Set();
    this.addresses = {};
    this.boxes = new Map();
    this.byPath = new Map();
    this.seen = new Set();
    this.isLoaded = this.isStale = false;
    this.loadedAt = 0;
    this.selected = "";
    this.place.replaceChildren(el("p", { class: "quiet" }, "The picture comes with the first event."));
  }

  async load() {
    if (!this.source) return;
    const source = this.source;
    const query = new URLSearchParams();
    for (const id of this.opened) query.append("open", id);
    for (const id of this.closed) query.append("closed", id);
    // What is noticed from here on may not be in what comes.
    this.isStale = false;
    const found = await get(`${source}/picture?${query}`);
    if (source !== this.source || !found.svg) return;
    const focused = document.activeElement?.dataset?.node;
    this.isLoaded = true;
    this.loadedAt = performance.now();
    this.nodes = found.nodes;
    this.paths = new Set(Object.values(found.nodes).map((node) => node.path));
    this.byPath = new Map(Object.values(found.nodes).map((node) => [node.path, node]));
    this.addresses = found.addresses;
    const parsed = new DOMParser().parseFromString(found.svg, "image/svg+xml").documentElement;
    const drawn = copied(parsed);
    // What is inside of an image is not read out; these are buttons.
    drawn.setAttribute("role", "group");
    // A large picture is scrolled rather than made too small to be read.
    drawn.style.minWidth = `${Math.round(Number(parsed.getAttribute("width")) * 0.66)}px`;
    drawn.style.minHeight = `${Math.round(Number(parsed.getAttribute("height")) * 0.66)}px`;
    this.boxes = new Map();
    for (const box of drawn.querySelectorAll("[data-node]")) this.prepare(box);
    this.place.replaceChildren(el("div", { class: "scroll" }, drawn), this.legend());
    if (focused !== undefined) this.boxes.get(focused)?.focus();
  }

  prepare(box) {
    const id = box.dataset.node;
    const node = this.nodes[id];
    if (!node) return;
    this.boxes.set(id, box);
    box.tabIndex = 0;
    box.setAttribute("role", "button");
    if (node.isOpen) box.classList.add("group");
    box.addEventListener("click", (event) => {
      event.stopPropagation();
      this.select(id);
    });
    box.addEventListener("keydown", (event) => {
      if (event.target !== box) return;
      if (event.key === "Enter" || event.key === " ") this.select(id);
      else if ((event.key === "+" || event.key === "-") && node.inside) this.toggle(id);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    if (node.inside && (id || !node.isOpen)) box.append(this.toggleButton(box, id, node));
  }

  toggleButton(box, id, node) {
    const words = `${node.isOpen ? "Close" : "Open"} ${node.label}`;
    const made = svg("g", { class: "toggle", role: "button", tabindex: "0", "aria-label": words, transform: "translate(2 2)" });
    made.append(svg("circle", { r: 8 }), svg("path", { d: node.isOpen ? "M-4 0H4" : "M-4 0H4M0-4V4" }));
    const title = svg("title");
    title.textContent = words;
    made.append(title);
    made.addEventListener("click", (event) => {
      event.stopPropagation();
      this.toggle(id);
    });
    made.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      this.toggle(id);
    });
    return made;
  }

  async toggle(id) {
    const isOpen = this.nodes[id]?.isOpen;
    this.opened.delete(id);
    this.closed.delete(id);
    (isOpen ? this.closed : this.opened).add(id);
    await this.load();
    this.onPaint?.();
    this.boxes.get(id)?.focus();
  }

  select(id) {
    this.boxes.get(this.selected)?.classList.remove("selected");
    this.selected = id;
    this.boxes.get(id)?.classList.add("selected");
    this.onSelect(this.nodes[id]?.path ?? "");
  }

  legend() {
    const states = ["running", "done", "asking", "failed", "cut off"];
    return el("p", { class: "legend", "aria-hidden": "true" }, ...states.map((state) => el("span", { class: "key", data: { state } }, state)));
  }

  // A node that the picture has no place for, though it shows the inside of the graph around: what stands on a host is a
  // closed box until the host was reached.
  notice(path) {
    if (!path || !this.isLoaded || this.seen.has(path)) return;
    this.seen.add(path);
    if (this.byPath.has(path)) return;
    for (let one = above(path); ; one = above(one)) {
      const around = this.byPath.get(one);
      if (around || !one) {
        this.isStale ||= !around || around.isOpen || !around.inside;
        return;
      }
    }
  }

  get wantsLoad() {
    return this.isStale && performance.now() - this.loadedAt > 500;
  }

  // States and words of the nodes that have changed, or of all of them.
  paint(model, isOver, now, paths) {
    for (const path of paths ?? model.nodes.keys()) if (!model.nodes.get(path)?.hidden) this.notice(path);
    for (const [id, box] of this.boxes) {
      const node = this.nodes[id];
      const own = model.nodes.get(node.path);
      const isCounted = node.kind === "members" || (node.inside && !node.isOpen);
      if (paths && !paths.has(node.path) && !isCounted && own?.state !== "running") continue;
      const waits = isOver ? "skipped" : "waiting";
      let state = own?.state ?? waits;
      let words = own ? stateWords(own, now) : waits;
      if (isCounted) {
        const counts = node.kind === "members" ? model.inside(above(node.path), this.paths) : model.inside(node.path);
        const told = counters(counts);
        if (told) words = told;
        if (!own || !node.path) state = ORDER.find((one) => counts[one]) ?? state;
      }
      if (box.dataset.state !== state) box.dataset.state = state;
      const note = box.note ?? (box.note = [...box.children].findLast((child) => child.matches("text.amx-quiet")) ?? null);
      if (note && note.textContent !== words) note.textContent = words;
      const label = `${shownPath(node.path) || node.label}, ${words}${node.address ? `, on ${node.address}` : ""}`;
      if (box.getAttribute("aria-label") !== label) box.setAttribute("aria-label", label);
    }
  }
}

function copied(from) {
  // Of the drawing only what a drawing needs: no script, no style, no reference.
  const made = svg(from.localName);
  for (const { name, value } of from.attributes) if (ATTRIBUTES.has(name)) made.setAttribute(name, value);
  for (const child of from.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(child.data);
    else if (TAGS.has(child.localName)) made.append(copied(child));
  }
  return made;
}

export function stateWords(node, now) {
  let words = node.state;
  if (node.count > 1) words += ` ${node.count} ×`;
  const time = seconds(node.seconds + runningSeconds(node, now));
  return time ? `${words} ${time}` : words;
}

export const runningSeconds = (node, now) =>
  node.running === 1 && node.first ? Math.max(now - Math.max(node.activations.at(-1)?.begun ?? node.first), 0) : 0;

export const counters = (counts) =>
  ORDER.filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`).join(", ");
