// The checkpoints of the run's thread, from the graph's own checkpointer: go back, and go on from there.

import { attempt, button, el, get, post } from "./dom.js";

export class HistoryView {
  constructor(place) {
    this.place = place;
    this.reset("");
  }

  reset(run) {
    this.run = run;
    this.place.replaceChildren();
  }

  async load() {
    const run = this.run;
    if (!run) return;
    let found;
    try {
      found = await get(`/api/runs/${run}/history`);
    } catch (error) {
      this.place.replaceChildren(el("p", { class: "quiet" }, error.message));
      return;
    }
    if (run !== this.run) return;
    const entries = found.history;
    this.place.replaceChildren(
      el("p", { class: "quiet" }, entries.length
        ? "Checkpoints, newest first. A Dag puts one where it begins, pauses and ends; with barriers one a superstep."
        : "The graph's checkpointer has nothing of this thread."),
      el("ol", { class: "history" }, ...entries.map((entry) => this.entry(entry))));
  }

  entry(entry) {
    const when = entry.at ? new Date(entry.at).toLocaleTimeString() : "";
    const next = entry.next.length ? `next: ${entry.next.join(", ")}` : "the end";
    const editor = el("div", { class: "editor", hidden: true });
    const edit = el("button", { type: "button", "aria-expanded": "false" }, "State …");
    edit.addEventListener("click", () => {
      editor.hidden = !editor.hidden;
      edit.setAttribute("aria-expanded", String(!editor.hidden));
      if (!editor.childElementCount) this.edit(editor, entry);
    });
    const go = button("Go on from here", () => post(`/api/runs/${this.run}/fork`, { checkpoint: entry.checkpoint }));
    return el("li", { data: { checkpoint: entry.checkpoint } },
      el("div", { class: "row" },
        el("span", {}, `step ${entry.step ?? "?"}`), el("span", { class: "quiet" }, `${entry.source}, ${when}`),
        el("span", {}, next), entry.questions ? el("span", { class: "pill", data: { state: "asking" } }, "asks") : null,
        edit, go),
      editor);
  }

  edit(place, entry) {
    const before = JSON.stringify(entry.values);
    const text = el("textarea", { rows: "10", class: "code", spellcheck: false, "aria-label": "State as JSON" });
    text.value = JSON.stringify(entry.values, null, 2);
    const send = el("button", { type: "button", class: "primary" }, "Go on with this state");
    send.addEventListener("click", () => attempt(send, async () => {
      let edited;
      try {
        edited = JSON.parse(text.value);
      } catch (error) {
        throw new Error(`the state is not JSON: ${error.message}`);
      }
      const old = JSON.parse(before);
      // Only what was changed is written: a reducer would add what is there already.
      const values = Object.fromEntries(Object.entries(edited).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(old[key])));
      await post(`/api/runs/${this.run}/fork`, { checkpoint: entry.checkpoint, values });
    }));
    const note = entry.tooLarge.length ? el("p", { class: "quiet" }, `too large to be shown: ${entry.tooLarge.join(", ")}`) : null;
    place.append(...[text, note, send].filter(Boolean));
  }
}
