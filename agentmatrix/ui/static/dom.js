// Elements are made by code, and text is text: nothing that an agent says is ever read as HTML.

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

export const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export const shownPath = (path) => path.replaceAll("/", " / ");

// Which graphs wait for a node: those around it, from the inside out.
export function waiters(path, name) {
  const around = [...path.split("/").slice(0, -1).reverse(), ...(name && path ? [name] : [])];
  if (!around.length) return "";
  const several = around.length > 1;
  return several ? `${around.slice(0, -1).join(", ")} and ${around.at(-1)} wait` : `${around[0]} waits`;
}

export function seconds(value) {
  if (value < 0.05) return "";
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(value % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

export const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

export async function post(path, body = {}) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return told(response);
}

export const get = async (path) => told(await fetch(path));

async function told(response) {
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = { error: text };
  }
  if (!response.ok) throw new Error(body.error || `the page answered ${response.status}`);
  return body;
}

export function button(words, act, properties = {}) {
  // While it acts it is disabled; what goes wrong is told beside it.
  const made = el("button", { type: "button", ...properties }, words);
  made.addEventListener("click", () => attempt(made, act));
  return made;
}

export async function attempt(made, act) {
  made.disabled = true;
  notice("");
  try {
    await act();
  } catch (error) {
    notice(error.message);
  } finally {
    made.disabled = false;
  }
}

export function notice(text) {
  const place = $("notice");
  place.textContent = text;
  place.hidden = !text;
}
