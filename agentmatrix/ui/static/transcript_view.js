// What was said, in order, with speakers and paths. Words that are still being said stand at their place.

import { button, el, shownPath } from "./dom.js";

const SHOWN = 300;

export class TranscriptView {
  constructor(place) {
    this.place = place;
    this.reset("");
  }

  reset(run) {
    this.run = run;
    this.painted = 0;
    this.hidden = 0;
    this.lines = new Map();
    this.spoken = new Map();
    this.place.replaceChildren((this.said = el("div")), (this.speaking = el("div")));
  }

  paint(model) {
    const said = model.transcript;
    if (this.painted > said.length) this.reset(this.run);
    const isAtEnd = this.place.scrollHeight - this.place.scrollTop - this.place.clientHeight < 40;
    if (said.length - this.painted > SHOWN) {
      this.said.replaceChildren();
      this.hidden = this.painted = said.length - SHOWN;
      this.said.append(this.earlier(model));
    }
    const added = document.createDocumentFragment();
    for (; this.painted < said.length; this.painted++) added.append(this.line(said[this.painted]));
    this.said.append(added);
    while (this.said.childElementCount > 3 * SHOWN) {
      this.said.querySelector(".line")?.remove();
      this.hidden += 1;
    }
    this.paintSpeaking(model.streamed);
    if (isAtEnd) this.place.scrollTop = this.place.scrollHeight;
  }

  // What is being said, as far as it has come.
  paintSpeaking(streamed) {
    for (const [id, line] of this.spoken) {
      if (streamed.has(id)) continue;
      line.remove();
      this.spoken.delete(id);
    }
    for (const [id, one] of streamed) {
      let line = this.spoken.get(id);
      if (!line) {
        line = this.line({ ...one, text: "" });
        line.classList.add("speaking");
        this.spoken.set(id, line);
        this.speaking.append(line);
      }
      const text = line.querySelector(".text");
      if (text.textContent !== one.text) text.textContent = one.text;
    }
  }

  earlier(model) {
    const made = el("p", { class: "quiet" });
    const show = button("show earlier", () => {
      const from = Math.max(this.hidden - SHOWN, 0);
      const lines = model.transcript.slice(from, this.hidden).map((one) => this.line(one));
      made.after(...lines);
      this.hidden = from;
      made.hidden = !from;
      count.textContent = `${from} before `;
    });
    const count = el("span", {}, `${this.hidden} before `);
    made.append(count, show);
    return made;
  }

  line(said) {
    const kind = said.own ? "own" : said.role === "human" && !said.path ? "user" : "";
    const text = el("span", { class: "text" }, said.text);
    const made = el("div", { class: `line ${kind}` },
      el("b", { title: shownPath(said.path) }, said.speaker), " ",
      said.path && said.path !== said.speaker ? el("small", { class: "path quiet" }, shownPath(said.path)) : null,
      text,
      ...(said.calls ?? []).map((call) => el("div", { class: "call" }, `calls ${call.name}(${JSON.stringify(call.args)})`)));
    if (said.cutAt !== undefined) made.append(wholeLink(this.run, said.cutAt));
    return made;
  }
}

export const wholeLink = (run, index) =>
  el("a", { href: `/api/runs/${run}/items/${index}`, target: "_blank", rel: "noopener" }, "all of it");
