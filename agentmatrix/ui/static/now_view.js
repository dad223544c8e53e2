// Who waits for whom, in sentences: what is at work now, and the graphs around it that wait for it.

import { el, plural, seconds, shownPath, waiters } from "./dom.js";
import { runningSeconds } from "./picture_view.js";

const MOST = 5;

export class NowView {
  constructor(place, { onSelect }) {
    this.place = place;
    this.onSelect = onSelect;
    this.told = "";
  }

  paint(model, addresses, now) {
    const busy = model.busy.filter((node) => node.state === "running");
    const asks = model.questions.size;
    this.place.hidden = !model.atWork || !busy.length;
    if (this.place.hidden) return;
    const shown = busy.slice(0, MOST);
    const shape = JSON.stringify([shown.map((node) => node.path), busy.length, asks, Object.keys(addresses).length]);
    if (shape !== this.told) {
      this.told = shape;
      this.times = new Map();
      const lines = shown.map((node) => this.line(node, addresses, model.name));
      const more = busy.length > MOST ? [el("li", { class: "quiet" }, `and ${plural(busy.length - MOST, "node")} more`)] : [];
      this.place.replaceChildren(el("ul", {}, ...lines, ...more));
    }
    for (const node of shown) {
      const place = this.times.get(node.path);
      if (place) place.textContent = seconds(runningSeconds(node, now));
    }
  }

  line(node, addresses, name) {
    const waiting = waiters(node.path, name);
    const time = el("span", { class: "time" });
    this.times.set(node.path, time);
    const address = addressOf(node.path, addresses);
    return el("li", {},
      el("button", { type: "button", class: "link", onclick: () => this.onSelect(node.path) }, shownPath(node.path)),
      " is at work ", time, address ? ` on ${address}` : "",
      waiting ? el("span", { class: "quiet" }, `; ${waiting} for it`) : null);
  }
}

export function addressOf(path, addresses) {
  for (let one = path; one; one = one.slice(0, Math.max(one.lastIndexOf("/"), 0))) if (addresses[one]) return addresses[one];
  return "";
}
