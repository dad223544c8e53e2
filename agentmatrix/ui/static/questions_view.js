// The open questions: who asks, who waits for it, and a form for the answer.

import { attempt, el, notice, post, pretty, shownPath, waiters } from "./dom.js";

const ADVICE = { approve: "Approve", reject: "Reject", edit: "Edit", respond: "Respond" };

export class QuestionsView {
  constructor(place) {
    this.place = place;
    this.reset("");
  }

  reset(run) {
    this.run = run;
    this.forms = new Map();
    this.place.replaceChildren();
  }

  paint(model, canAnswer) {
    const { name } = model;
    for (const [id, form] of this.forms) {
      if (model.questions.has(id)) continue;
      this.forms.delete(id);
      const isOwn = form.dataset.sent === "true";
      form.remove();
      if (!isOwn && model.answers.has(id)) notice(`The question was answered elsewhere: ${model.answers.get(id)}`);
    }
    for (const [id, question] of model.questions) {
      if (this.forms.has(id)) continue;
      const form = this.form(id, question, canAnswer, name);
      this.forms.set(id, form);
      this.place.append(form);
    }
  }

  form(id, question, canAnswer, name) {
    const waiting = waiters(question.path, name);
    const title = el("h2", {},
      el("strong", {}, shownPath(question.path) || "The graph"), " asks",
      waiting ? el("span", { class: "quiet" }, `; ${waiting} for the answer`) : null);
    const form = el("form", { class: "question", data: { question: id } }, title);
    if (question.approval) this.approval(form, id, question, canAnswer);
    else this.plain(form, id, question, canAnswer);
    if (!canAnswer) form.append(el("p", { class: "quiet" }, "This run is of another process: it is answered there."));
    return form;
  }

  plain(form, id, question, canAnswer) {
    form.append(el("pre", { class: "asked" }, pretty(question.value)));
    if (!canAnswer) return;
    const text = el("textarea", { name: "answer", rows: "2", "aria-label": `Answer to ${shownPath(question.path)}`, placeholder: "Your answer" });
    const asJson = el("input", { type: "checkbox", name: "json" });
    const send = el("button", { type: "submit", class: "primary" }, "Answer");
    const schema = question.schema ? el("details", {}, el("summary", {}, "what an answer looks like"), el("pre", {}, pretty(question.schema))) : null;
    const isObject = question.schema && question.schema.type && question.schema.type !== "string";
    asJson.checked = Boolean(isObject);
    form.append(...[schema, el("div", { class: "row" }, text, el("label", {}, asJson, " JSON"), send)].filter(Boolean));
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(form, send, () => {
        let value = text.value;
        if (asJson.checked) {
          try {
            value = JSON.parse(text.value);
          } catch (error) {
            throw new Error(`the answer is not JSON: ${error.message}`);
          }
        }
        return { question: id, value };
      });
    });
  }

  approval(form, id, question, canAnswer) {
    const decisions = question.approval.map(() => "");
    const send = el("button", { type: "submit", class: "primary", disabled: true }, "Send");
    question.approval.forEach((action, index) => {
      const chosen = el("span", { class: "quiet", role: "status" });
      const detail = el("textarea", { rows: "2", hidden: true, "aria-label": "Details" });
      const decide = (kind) => {
        detail.hidden = kind === "approve";
        if (kind === "edit" && !detail.value) detail.value = JSON.stringify(action.args, null, 2);
        if (kind !== "edit" && detail.value.startsWith("{")) detail.value = "";
        detail.placeholder = { reject: "why (the agent reads it)", respond: "what to say instead" }[kind] ?? "";
        const update = () => {
          const said = detail.value.trim();
          decisions[index] = kind === "approve" ? "approve" : kind === "edit" ? `edit ${said}` : said ? `${kind}: ${said}` : kind;
          chosen.textContent = kind;
          send.disabled = decisions.some((one) => !one);
        };
        detail.oninput = update;
        update();
        for (const one of buttons) one.setAttribute("aria-pressed", String(one.dataset.kind === kind));
        if (!detail.hidden) detail.focus();
        if (question.approval.length === 1 && kind === "approve") form.requestSubmit();
      };
      const buttons = action.allowed.map((kind) => {
        const made = el("button", { type: "button", data: { kind }, "aria-pressed": "false" }, ADVICE[kind] ?? kind);
        made.addEventListener("click", () => decide(kind));
        return made;
      });
      form.append(el("div", { class: "action" },
        action.description ? el("p", {}, action.description) : null,
        el("pre", { class: "asked" }, `${action.name}(${JSON.stringify(action.args, null, 2)})`),
        canAnswer ? el("div", { class: "row" }, ...buttons, chosen) : null, detail));
    });
    if (!canAnswer) return;
    form.append(send);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (decisions.some((one) => !one)) return;
      this.send(form, send, () => ({ question: id, decisions }));
    });
  }

  send(form, made, body) {
    attempt(made, async () => {
      form.dataset.sent = "true";
      try {
        await post(`/api/runs/${this.run}/answer`, body());
      } catch (error) {
        form.dataset.sent = "false";
        throw error;
      }
    });
  }
}
