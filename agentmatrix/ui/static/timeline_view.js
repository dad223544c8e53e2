// One bar an activation, a row a node, nested; more than 2,000 bars are grouped. The x axis is the view box: as time goes
// on nothing is moved but that.

import { el, seconds, shownPath, svg } from "./dom.js";
import { counters } from "./picture_view.js";

const MOST_BARS = 2000;
const MOST_ROWS = 400;
const ROW = 20;

export class TimelineView {
  constructor(place, { onSelect }) {
    this.place = place;
    this.onSelect = onSelect;
    this.reset();
  }

  reset() {
    this.shape = "";
    this.bars = [];
    this.place.replaceChildren();
  }

  paint(model, now) {
    const activations = model.activations.filter((one) => one.path && !one.hidden);
    if (!activations.length) return;
    const start = model.first;
    const end = Math.max(model.atWork ? now : model.last, start + 0.001);
    const shape = `${activations.length}`;
    if (shape !== this.shape) {
      this.shape = shape;
      this.build(activations, start, end);
    }
    for (const bar of this.bars) this.place_bar(bar, start, end);
    this.chart?.setAttribute("viewBox", `0 0 ${(end - start).toFixed(4)} ${this.height}`);
    this.axis(end - start);
  }

  build(activations, start, end) {
    const rows = rowsOf(activations);
    const isGrouped = activations.length > MOST_BARS || rows.length > MOST_ROWS;
    const shown = isGrouped ? groupedRows(activations, start, end) : rows;
    this.height = shown.length * ROW;
    this.chart = svg("svg", { preserveAspectRatio: "none", class: "chart", height: this.height, "aria-hidden": "true" });
    this.bars = [];
    const labels = el("ol", { class: "labels" });
    shown.forEach((row, index) => {
      const depth = row.path.split("/").length - 1;
      const name = row.label ?? row.path.slice(row.path.lastIndexOf("/") + 1);
      const label = el("button", { type: "button", class: "label", title: shownPath(row.path), onclick: () => this.onSelect(row.path) }, name);
      label.style.paddingLeft = `${6 + depth * 12}px`;
      const states = {};
      for (const bar of row.bars) {
        const drawn = svg("rect", { y: index * ROW + 4, height: ROW - 8, rx: 0, class: "bar" });
        const title = svg("title");
        drawn.append(title);
        drawn.addEventListener("click", () => this.onSelect(row.path));
        this.chart.append(drawn);
        this.bars.push({ drawn, title, bar, row });
        for (const one of bar.several ?? [bar]) states[one.state] = (states[one.state] ?? 0) + 1;
      }
      label.setAttribute("aria-label", `${shownPath(row.path)}: ${counters(states)}`);
      labels.append(el("li", {}, label));
    });
    const note = isGrouped ? el("p", { class: "quiet" }, `${activations.length.toLocaleString("en")} activations, grouped.`) : "";
    this.ticks = el("div", { class: "ticks", "aria-hidden": "true" });
    this.place.replaceChildren(note, el("div", { class: "timeline" }, labels, el("div", { class: "chart-box" }, this.ticks, this.chart)));
  }

  place_bar({ drawn, title, bar, row }, start, end) {
    const ended = bar.ended || end;
    const state = bar.state;
    // What has ended stays where it is.
    if (drawn.dataset.state === state && state !== "running") return;
    drawn.dataset.state = state;
    drawn.setAttribute("x", (bar.begun - start).toFixed(4));
    drawn.setAttribute("width", Math.max(ended - bar.begun, (end - start) / 400).toFixed(4));
    const many = bar.several ? `${bar.several.length} × ` : "";
    title.textContent = `${many}${shownPath(row.path)}: ${state} ${seconds(bar.seconds || ended - bar.begun)}`;
  }

  axis(length) {
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600].find((one) => length / one <= 6) ?? length / 5;
    const ticks = [];
    for (let at = step; at < length * 0.97; at += step) {
      const tick = el("span", {}, at < 60 ? `${+at.toFixed(2)} s` : seconds(at));
      tick.style.left = `${(100 * at) / length}%`;
      ticks.push(tick);
    }
    this.ticks.replaceChildren(...ticks);
  }
}

function rowsOf(activations) {
  const byPath = new Map();
  for (const one of activations) {
    // A node stands below the one around it, which may have begun later to be told of.
    if (!byPath.has(one.path)) byPath.set(one.path, { path: one.path, bars: [] });
    byPath.get(one.path).bars.push(one);
  }
  const rows = [];
  const inside = new Map();
  for (const path of byPath.keys()) {
    const parent = path.slice(0, Math.max(path.lastIndexOf("/"), 0));
    const key = parent === "" || byPath.has(parent) ? parent : "";
    inside.set(key, [...(inside.get(key) ?? []), path]);
  }
  const walk = (path) => {
    for (const one of inside.get(path) ?? []) {
      rows.push(byPath.get(one));
      walk(one);
    }
  };
  walk("");
  return rows;
}

// Siblings share one row, and activations that touch one bar.
function groupedRows(activations, start, end) {
  const groups = new Map();
  for (const one of activations) {
    const parent = one.path.slice(0, Math.max(one.path.lastIndexOf("/"), 0));
    if (!groups.has(parent)) groups.set(parent, []);
    groups.get(parent).push(one);
  }
  const most = Math.max(Math.floor(MOST_BARS / groups.size), 1);
  const slot = (end - start) / Math.min(most, 200);
  return [...groups].slice(0, MOST_ROWS).map(([parent, several]) => {
    const slots = new Map();
    for (const one of several) {
      const key = Math.floor((one.begun - start) / slot);
      if (!slots.has(key)) slots.set(key, []);
      slots.get(key).push(one);
    }
    const bars = [...slots.values()].map((all) => ({
      several: all,
      begun: Math.min(...all.map((one) => one.begun)),
      ended: Math.max(...all.map((one) => one.ended || end)),
      seconds: 0,
      state: ["failed", "asking", "running", "cut off", "done"].find((state) => all.some((one) => one.state === state)) ?? "done",
    }));
    const names = new Set(several.map((one) => one.path)).size;
    return { path: parent || several[0].path, label: `${parent ? `${parent.slice(parent.lastIndexOf("/") + 1)} / ` : ""}${names} nodes`, bars };
  });
}
