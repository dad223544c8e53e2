// Where a run is given its input: text, or JSON with the keys of the graph's state. And signals, for live runs.

import { attempt, button, el, post } from "./dom.js";

export function inputForm(graph, { label, send }) {
  let isJson = !graph.takesMessages;
  const text = el("textarea", { name: "input", rows: "3", "aria-label": "Input" });
  const go = el("button", { type: "submit", class: "primary" }, label);
  const toggle = el("button", { type: "button", class: "link" });
  const live = el("input", { type: "checkbox", name: "live" });
  live.checked = graph.signals.some((one) => !one.endsWith("messages"));
  const stay = graph.signals.length ? el("label", {}, live, ` stay open for signals (${graph.signals.join(", ")})`) : null;
  const form = el("form", { class: "composer" }, text, el("div", { class: "row" }, go, graph.schema || isJson ? toggle : null, stay));
  const show = () => {
    text.classList.toggle("code", isJson);
    text.placeholder = isJson ? "JSON with the keys of the state" : "Say something";
    text.rows = isJson ? 6 : 3;
    toggle.textContent = isJson ? "text instead" : "JSON instead";
    toggle.hidden = isJson && !graph.takesMessages;
    if (isJson && !text.value.trim()) text.value = JSON.stringify(example(graph.schema), null, 2);
    if (!isJson && text.value.trim().startsWith("{")) text.value = "";
  };
  toggle.addEventListener("click", () => {
    isJson = !isJson;
    show();
    text.focus();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(go, async () => {
      await send({ ...(isJson ? { json: text.value } : { text: text.value }), live: live.checked });
      if (!isJson) text.value = "";
    });
  });
  show();
  return form;
}

function example(schema) {
  const found = {};
  for (const [key, one] of Object.entries(schema?.properties ?? {})) {
    if (key === "messages") found[key] = [{ role: "user", content: "" }];
    else found[key] = { integer: 0, number: 0, boolean: false, array: [], object: {} }[one.type] ?? "";
  }
  return found;
}

export function signalForm(run, addresses) {
  const address = el("select", { "aria-label": "Signal" }, ...addresses.map((one) => el("option", { value: one }, one)));
  const text = el("input", { type: "text", "aria-label": "Value of the signal", placeholder: "value: text or JSON" });
  const send = el("button", { type: "submit", class: "primary" }, "Signal");
  const form = el("form", { class: "signals row" }, address, text, send,
    button("Close the input", () => post(`/api/runs/${run}/close-input`)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(send, async () => {
      let value = text.value;
      try {
        value = JSON.parse(text.value);
      } catch {
        // It is text.
      }
      await post(`/api/runs/${run}/signal`, { address: address.value, value });
      text.value = "";
    });
  });
  return form;
}
