// The nodes as a table, and one of them with what it was given and what it has returned.

import { el, get, plural, seconds, shownPath } from "./dom.js";
import { addressOf } from "./now_view.js";
import { wholeLink } from "./transcript_view.js";

const HEADS = ["node", "state", "times", "seconds", "calls", "tokens", "tools", "silent", "errors"];
const MOST_ROWS = 500;
const MOST_ACTIVATIONS = 30;
const MOST_CHARACTERS = 100_000;

export class NodeTable {
  constructor(place, { onSelect }) {
    this.place = place;
    this.onSelect = onSelect;
    this.reset();
  }

  reset() {
    this.rows = new Map();
    this.body = el("tbody");
    this.more = el("p", { class: "quiet" });
    const head = el("tr", {}, ...HEADS.map((name) => el("th", { scope: "col" }, name)));
    this.place.replaceChildren(el("table", {}, el("thead", {}, head), this.body), this.more);
  }

  paint(model, paths) {
    for (const path of paths ?? model.nodes.keys()) {
      const node = model.nodes.get(path);
      if (!path || !node || node.hidden) continue;
      let row = this.rows.get(path);
      if (!row) {
        if (this.rows.size >= MOST_ROWS) continue;
        row = this.row(path);
      }
      const cells = [node.state, node.count, node.seconds.toFixed(2), node.calls, node.tokens, node.tools, node.silent, node.errors.length];
      cells.forEach((value, index) => {
        const cell = row.cells[index + 1];
        if (cell.textContent !== String(value)) cell.textContent = value;
      });
      row.cells[1].dataset.state = node.state;
    }
    const left = model.nodes.size - 1 - this.rows.size;
    this.more.textContent = this.rows.size >= MOST_ROWS && left > 0 ? `${plural(left, "node")} more` : "";
  }

  row(path) {
    const open = el("button", { type: "button", class: "link", onclick: () => this.onSelect(path) }, shownPath(path));
    const row = el("tr", { data: { path } }, el("th", { scope: "row" }, open), ...HEADS.slice(1).map(() => el("td")));
    this.rows.set(path, row);
    this.body.append(row);
    return row;
  }
}

export class NodeDetail {
  constructor(place) {
    this.place = place;
    this.reset("");
  }

  reset(run) {
    this.run = run;
    this.path = null;
    this.place.replaceChildren(el("p", { class: "quiet" }, "Choose a node in the picture, the timeline or the table."));
  }

  show(path, model, addresses) {
    this.path = path;
    const node = model.nodes.get(path);
    if (!node) {
      this.place.replaceChildren(el("h3", {}, shownPath(path)), el("p", { class: "quiet" }, "It has not been started."));
      return;
    }
    const address = addressOf(path, addresses);
    const facts = [
      node.state, `started ${plural(node.count, "time")}`, seconds(node.seconds), address && `on ${address}`,
      node.calls && `${plural(node.calls, "call")} of models`, node.tokens && plural(node.tokens, "token"),
      node.tools && plural(node.tools, "tool call"),
    ].filter(Boolean);
    const all = node.activations;
    const shown = all.slice(-MOST_ACTIVATIONS).reverse();
    this.place.replaceChildren(
      el("h3", {}, shownPath(path) || "the graph"), el("p", {}, facts.join(", ")),
      ...node.errors.slice(-3).map((error) => el("pre", { class: "failure" }, error)),
      ...shown.map((one, index) => this.activation(one, all.length - index, index === 0)),
      all.length > shown.length ? el("p", { class: "quiet" }, `${all.length - shown.length} earlier ones`) : "");
  }

  activation(one, number, isFirst) {
    const place = el("div", { class: "values" });
    const details = el("details", { open: isFirst }, el("summary", {}, `${number}. ${one.state} ${seconds(one.seconds)}`), place);
    const load = async () => {
      if (place.childElementCount) return;
      place.append(await this.values("given", one.input, "input"), await this.values("returned", one.output, "output"));
    };
    details.addEventListener("toggle", () => details.open && load());
    return details;
  }

  async values(words, index, key) {
    const made = el("div", {}, el("h4", {}, words));
    if (index < 0) {
      made.append(el("p", { class: "quiet" }, "nothing yet"));
      return made;
    }
    let value;
    try {
      value = (await get(`/api/runs/${this.run}/items/${index}`)).data[key];
    } catch (error) {
      made.append(el("p", { class: "quiet" }, error.message));
      return made;
    }
    if (value === undefined) made.append(el("p", { class: "quiet" }, "not told"));
    else {
      const text = indented(value);
      made.append(el("pre", {}, text.slice(0, MOST_CHARACTERS)));
      if (text.length > MOST_CHARACTERS) made.append(wholeLink(this.run, index));
    }
    return made;
  }
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // It was cut.
  }
}
