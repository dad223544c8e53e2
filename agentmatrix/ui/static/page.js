// The page: lists of graphs and runs, and the run that is looked at. What changes comes by server-sent events; the views
// are painted once a frame, and take what has come in portions that leave the frame short.

import { inputForm, signalForm } from "./composer.js";
import { $, button, el, notice, plural, post, seconds } from "./dom.js";
import { HistoryView } from "./history_view.js";
import { NodeDetail, NodeTable } from "./node_view.js";
import { NowView } from "./now_view.js";
import { PictureView } from "./picture_view.js";
import { QuestionsView } from "./questions_view.js";
import { RunModel } from "./run_model.js";
import { TimelineView } from "./timeline_view.js";
import { TranscriptView } from "./transcript_view.js";

const FRAME = 10;
const TABS = { timeline: "Timeline", nodes: "Nodes", node: "One node", history: "History" };

const page = {
  graphs: [], runs: [], listed: "", graph: "", run: "", model: new RunModel(), queue: [], source: null, skew: 0, tab: "timeline",
  all: true, timelineAt: 0, actionsFor: "", composerFor: "",
};
const select = (path) => {
  if (!page.run) return;
  views.node.show(path, page.model, views.picture.addresses);
  showTab("node");
};
const views = {
  picture: new PictureView($("picture"), { onSelect: select }),
  transcript: new TranscriptView($("transcript")),
  questions: new QuestionsView($("questions")),
  now: new NowView($("now"), { onSelect: select }),
  timeline: new TimelineView($("timeline"), { onSelect: select }),
  table: new NodeTable($("nodes"), { onSelect: select }),
  node: new NodeDetail($("node")),
  history: new HistoryView($("history")),
};
views.picture.onPaint = () => repaintAll();

// What is looked at is in the address, so that a reload shows it again.

function fromAddress() {
  const query = new URLSearchParams(location.hash.slice(1));
  return { run: query.get("run") ?? "", graph: query.get("graph") ?? "" };
}

function look({ run = "", graph = "" }) {
  const hash = run ? `#run=${encodeURIComponent(run)}` : graph ? `#graph=${encodeURIComponent(graph)}` : "";
  if (location.hash !== hash) history.pushState(null, "", hash || location.pathname);
  open({ run, graph });
}

function open({ run, graph }) {
  page.run = run;
  page.graph = graph;
  page.model = new RunModel();
  page.queue = [];
  page.actionsFor = page.composerFor = "";
  notice("");
  views.transcript.reset(run);
  views.questions.reset(run);
  views.timeline.reset();
  views.table.reset();
  views.node.reset(run);
  views.history.reset(run);
  views.now.told = "";
  views.picture.reset(run ? `/api/runs/${run}` : graph ? `/api/graphs/${encodeURIComponent(graph)}` : "");
  $("tabs").hidden = !run;
  showTab("timeline");
  page.version = 0;
  connect();
  repaintAll();
}

// What the server tells.

function connect() {
  page.source?.close();
  const source = (page.source = new EventSource(`/api/events?run=${encodeURIComponent(page.run)}`));
  source.addEventListener("open", () => connection(""));
  source.addEventListener("error", () => connection(source.readyState === EventSource.CLOSED ? "The connection is closed: reload the page." : "reconnecting"));
  source.addEventListener("list", (event) => {
    const told = JSON.parse(event.data);
    page.runs = told.runs;
    page.graphs = told.graphs;
    paintList();
    const version = page.run ? 0 : page.graphs.find((one) => one.name === page.graph)?.version;
    if (version && version !== page.version) views.picture.load().then(repaintAll);
    page.version = version;
    repaint();
  });
  source.addEventListener("items", (event) => {
    page.queue.push(...JSON.parse(event.data));
    repaint();
  });
  source.addEventListener("again", () => {
    page.model = new RunModel();
    page.queue = [];
    views.transcript.reset(page.run);
    views.timeline.reset();
    views.table.reset();
    repaintAll();
  });
  source.addEventListener("gone", () => {
    if (page.run) notice("This run is kept no more.");
  });
  source.addEventListener("caught-up", (event) => {
    page.skew = JSON.parse(event.data).now - Date.now() / 1000;
    repaint();
  });
}

function connection(text) {
  const place = $("connection");
  place.textContent = text;
  place.classList.toggle("bad", Boolean(text));
}

// Painting.

let isPlanned = false;

function repaint() {
  if (isPlanned) return;
  isPlanned = true;
  requestAnimationFrame(() => {
    isPlanned = false;
    paint();
  });
}

function repaintAll() {
  page.all = true;
  repaint();
}

function paint() {
  const model = page.model;
  const began = performance.now();
  let taken = 0;
  while (taken < page.queue.length && performance.now() - began < FRAME) model.take(page.queue[taken++]);
  page.queue.splice(0, taken);
  const isBehind = page.queue.length > 0;
  const now = Date.now() / 1000 + page.skew;
  // What begins or ends all of it changes what is said of nodes that were not started.
  const paths = page.all || model.dirty.has("") ? null : model.dirty;
  page.all = false;
  model.dirty = new Set();
  const listed = page.runs.find((run) => run.id === page.run);
  const graph = page.graphs.find((one) => one.name === (page.run ? listed?.graph : page.graph));
  paintHead(model, listed, graph, now);
  if (page.run) {
    if ((views.picture.isLoaded ? views.picture.wantsLoad : model.hasStarted) && !views.picture.isLoading) loadPicture();
    views.picture.paint(model, !model.atWork && !model.questions.size, now, paths);
    if (!isBehind) {
      views.transcript.paint(model);
      views.questions.paint(model, Boolean(graph) && !listed?.source);
      views.now.paint(model, views.picture.addresses, now);
    }
    if (!paths || paths.size) views.table.paint(model, paths);
    paintTimeline(model, now, isBehind);
  }
  if (isBehind) repaint();
}

function paintTimeline(model, now, isBehind) {
  const pause = model.activations.length > 500 ? 600 : 60;
  if (page.tab !== "timeline" || isBehind || performance.now() - page.timelineAt < pause) {
    page.timelineWaits = true;
    return;
  }
  page.timelineWaits = false;
  page.timelineAt = performance.now();
  views.timeline.paint(model, now);
}

async function loadPicture() {
  views.picture.isLoading = true;
  try {
    await views.picture.load();
  } finally {
    views.picture.isLoading = false;
  }
  repaintAll();
}

function paintHead(model, listed, graph, now) {
  const name = page.run ? model.name || listed?.title || "a run" : graph?.title || page.graph || "AgentMatrix";
  setText($("name"), name);
  document.title = `${page.run ? `${model.state}: ` : ""}${name} - AgentMatrix`;
  const state = page.run ? model.state : "";
  $("state").hidden = !state;
  setText($("state"), state === "asking" ? "waits for an answer" : state);
  $("state").dataset.state = state;
  const nodes = [...model.nodes.values()];
  const calls = nodes.reduce((sum, node) => sum + node.calls, 0);
  const tokens = nodes.reduce((sum, node) => sum + node.tokens, 0);
  const length = model.first ? (model.atWork ? now : model.last) - model.first : 0;
  const facts = page.run
    ? [seconds(length), calls && `${plural(calls, "call")} of models`, tokens && plural(tokens, "token"), listed?.thread && `thread ${listed.thread}`, listed?.source && `in ${listed.source}`]
    : [graph?.target];
  setText($("facts"), facts.filter(Boolean).join(", "));
  const failure = page.run ? (model.state === "failed" || model.error) && model.error : graph?.error;
  setText($("failure"), failure || "");
  $("failure").hidden = !failure;
  paintActions(model, listed, graph);
  paintComposer(model, listed, graph);
}

function paintActions(model, listed, graph) {
  const canAct = page.run && graph && !listed?.source;
  const isBroken = ["failed", "cut off"].includes(model.state);
  const wanted = canAct ? [model.atWork ? "stop" : isBroken ? "go on" : "", "new"].filter(Boolean) : page.graph && graph ? ["reload"] : [];
  const shape = `${page.run} ${page.graph} ${wanted}`;
  if (shape === page.actionsFor) return;
  page.actionsFor = shape;
  const made = {
    stop: () => button("Stop", () => post(`/api/runs/${page.run}/stop`)),
    "go on": () => button("Go on from the last checkpoint", () => post(`/api/runs/${page.run}/go-on`), { class: "primary" }),
    new: () => button("New run", () => look({ graph: listed.graph })),
    reload: () => button("Load again", () => post(`/api/graphs/${encodeURIComponent(page.graph)}/reload`)),
  };
  $("actions").replaceChildren(...wanted.map((one) => made[one]()));
}

function paintComposer(model, listed, graph) {
  let shape = "";
  if (page.run && graph && !listed?.source) shape = model.atWork ? (listed?.isLive ? "signals" : "") : model.questions.size ? "" : "say";
  else if (!page.run && graph && (!graph.error || graph.schema)) shape = "start";
  const key = `${page.run} ${page.graph} ${shape}`;
  if (key === page.composerFor) return;
  page.composerFor = key;
  const place = $("composer");
  $("transcript-title").textContent = page.run ? "Transcript" : "Run it";
  if (shape === "signals") place.replaceChildren(signalForm(page.run, graph.signals));
  else if (shape === "say") place.replaceChildren(inputForm(graph, { label: "Say more on this thread", send: (given) => post(`/api/runs/${page.run}/say`, given) }));
  else if (shape === "start") {
    place.replaceChildren(inputForm(graph, {
      label: "Run",
      send: async (given) => look({ run: (await post("/api/runs", { graph: graph.name, ...given })).run }),
    }));
  } else place.replaceChildren();
}

function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function paintList() {
  const shape = JSON.stringify([page.graphs.map((one) => [one.title, one.error]), page.runs, page.run, page.graph]);
  if (shape === page.listed) return;
  page.listed = shape;
  const focused = document.activeElement?.dataset?.key;
  $("graphs").replaceChildren(...page.graphs.map((graph) => entry(`graph ${graph.name}`, () => look({ graph: graph.name }), page.graph === graph.name && !page.run,
    el("span", { class: "name" }, graph.title), graph.error ? el("span", { class: "pill", data: { state: "failed" } }, "cannot be loaded") : null)));
  $("runs").replaceChildren(...page.runs.map((run) => entry(`run ${run.id}`, () => look({ run: run.id }), page.run === run.id,
    el("span", { class: "name" }, run.title || "a run"),
    el("span", { class: "pill", data: { state: run.state } }, run.state === "asking" ? plural(run.questions, "question") : run.state),
    el("span", { class: "sub quiet" }, [new Date(run.started * 1000).toLocaleTimeString(), run.source, run.input].filter(Boolean).join("  ")))));
  $("no-runs").hidden = page.runs.length > 0;
  if (focused) [...document.querySelectorAll("#side button")].find((one) => one.dataset.key === focused)?.focus();
  if (!page.run && !page.graph && page.graphs.length) {
    const first = page.runs[0];
    look(first ? { run: first.id } : { graph: page.graphs[0].name });
  }
}

function entry(key, act, isCurrent, ...children) {
  const made = el("button", { type: "button", data: { key }, onclick: act }, ...children);
  if (isCurrent) made.setAttribute("aria-current", "true");
  return el("li", {}, made);
}

// Tabs, with the keys that tabs have.

function showTab(name) {
  page.tab = name;
  for (const [key] of Object.entries(TABS)) {
    $(key).hidden = key !== name;
    const tab = $(`tab-${key}`);
    tab.setAttribute("aria-selected", String(key === name));
    tab.tabIndex = key === name ? 0 : -1;
  }
  if (name === "history") views.history.load();
  page.timelineAt = 0;
  repaint();
}

for (const [key, words] of Object.entries(TABS)) {
  $("tablist").append(el("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": key, onclick: () => showTab(key) }, words));
}
$("tablist").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const keys = Object.keys(TABS);
  const next = keys[(keys.indexOf(page.tab) + step + keys.length) % keys.length];
  showTab(next);
  $(`tab-${next}`).focus();
});

// Times pass while nothing happens.
setInterval(() => {
  if (!document.hidden && (page.model.atWork || page.timelineWaits || views.picture.isStale)) repaint();
}, 200);
addEventListener("popstate", () => open(fromAddress()));
addEventListener("hashchange", () => {
  const { run, graph } = fromAddress();
  if (run !== page.run || graph !== page.graph) open({ run, graph });
});
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
open(fromAddress());
globalThis.agentmatrix = page;
