// What the items of a run come to: by node its state, counts, times and calls; what was said; the open questions.
// The same rules as agentmatrix/watch/node_record.py; tests/ui/test_page_model.py holds the two together.

const ENDS = { end: "done", fail: "failed", ask: "asking", cancel: "cut off" };

const fresh = (path, state = "waiting") => ({
  path, state, count: 0, running: 0, done: 0, failed: 0, cutOff: 0, seconds: 0, first: 0, last: 0, calls: 0, tokens: 0,
  tools: 0, silent: 0, errors: [], hidden: false, activations: [],
});

export function nodeAbove(namespace) {
  const parts = namespace.split("|").slice(0, -1);
  while (parts.length && /^\d+$/.test(parts.at(-1))) parts.pop();
  return parts.join("|");
}

export const above = (path) => path.slice(0, Math.max(path.lastIndexOf("/"), 0));

export class RunModel {
  constructor() {
    this.nodes = new Map([["", fresh("")]]);
    this.activations = [];
    this.transcript = [];
    this.streamed = new Map();
    this.questions = new Map();
    this.answers = new Map();
    this.atWork = false;
    this.ended = "";
    this.items = 0;
    this.name = "";
    this.error = "";
    this.first = 0;
    this.last = 0;
    this.hasStarted = false;
    // Since the last paint.
    this.dirty = new Set();
    this.open = new Map();
    this.askedIn = new Map();
    this.withNodes = new Set();
    this.unfinished = new Set();
    this.said = new Set();
  }

  get state() {
    if (this.atWork) return "running";
    const root = this.nodes.get("").state;
    if (root === "done" && this.questions.size) return "asking";
    return root === "running" ? this.ended || root : root;
  }

  take(item, index = this.items) {
    this.items = index + 1;
    if (item.path === undefined) {
      this.takeOwn(item, index);
      return;
    }
    this.first ||= item.at;
    this.last = Math.max(this.last, item.at);
    this.node(item.path);
    if (item.kind === "begin") this.begin(item, index);
    else if (item.kind in ENDS) this.end(item, index);
    else if (item.kind === "say") this.say(item, index);
    else if (item.kind === "token") this.stream(item);
    else if (item.kind === "answer") this.answer(item);
    else this.countCall(item);
    this.dirty.add(item.path);
  }

  takeOwn(item, index) {
    const data = item.data;
    if (item.kind === "work") {
      this.atWork = true;
      this.error = "";
    } else if (item.kind === "rest") {
      this.atWork = false;
      this.ended = data.state;
    } else if (item.kind === "answered") {
      this.questions.delete(data.question);
      this.answers.set(data.question, data.text);
      this.transcript.push({ path: data.path, speaker: "answer", text: data.text, at: item.at, index, own: true });
    } else if (item.kind === "error") {
      this.error = data.text;
    } else if (["input", "signal", "fork", "go on", "stopped", "input closed"].includes(item.kind)) {
      if (item.kind !== "input") {
        const text = { signal: `${data.address}: ${data.text}`, fork: forkText(data) }[item.kind] ?? "";
        this.transcript.push({ path: "", speaker: item.kind, text, at: item.at, index, own: true });
      }
    }
    this.dirty.add("");
  }

  node(path) {
    let found = this.nodes.get(path);
    if (!found) this.nodes.set(path, (found = fresh(path)));
    return found;
  }

  key = (event) => `${event.run}\n${event.namespace}\n${event.path === ""}`;

  begin(event, index) {
    const node = this.node(event.path);
    if (!event.path) this.name ||= event.data.name === "LangGraph" ? "" : event.data.name;
    else {
      for (const id of this.askedIn.get(event.namespace) ?? []) this.questions.delete(id);
      this.askedIn.delete(event.namespace);
    }
    if (!this.unfinished.delete(event.namespace)) node.count += 1;
    node.hidden = Boolean(event.data.hidden) && !(node.calls || node.errors.length);
    node.running += 1;
    node.state = "running";
    node.first ||= event.at;
    const activation = {
      path: event.path, namespace: event.namespace, run: event.run, begun: event.at, ended: 0, seconds: 0,
      state: "running", input: index, output: -1, hidden: Boolean(event.data.hidden),
    };
    this.activations.push(activation);
    node.activations.push(activation);
    this.open.set(this.key(event), activation);
    this.withNodes.add(nodeAbove(event.namespace));
    this.hasStarted = true;
  }

  end(event, index) {
    const activation = this.open.get(this.key(event));
    if (!activation) return;
    this.open.delete(this.key(event));
    if (!event.path || this.withNodes.has(event.namespace)) {
      for (const [key, other] of this.open) {
        const inside = !event.path || other.namespace.startsWith(`${event.namespace}|`);
        if (other.run !== activation.run || !inside) continue;
        // What a host has begun that is gone ends with the node around it.
        this.open.delete(key);
        this.close(other, "cut off", event.at, event.at - other.begun, -1);
      }
    }
    this.close(activation, ENDS[event.kind], event.at, event.data.seconds ?? 0, index);
    const node = this.node(event.path);
    node.silent += event.data.silent ? 1 : 0;
    for (const [id, line] of this.streamed) {
      // What a node was saying, it has said or given up.
      if (line.run === event.run && (!event.path || line.namespace === event.namespace)) this.streamed.delete(id);
    }
    if (event.kind === "fail" && event.data.error !== undefined) {
      node.errors.push(event.data.error);
      node.hidden = false;
    }
    if ((event.kind === "fail" || event.kind === "ask") && event.path) this.unfinished.add(event.namespace);
    for (const asked of event.data.questions ?? []) {
      if (this.questions.has(asked.id) || asked.answered) continue;
      this.questions.set(asked.id, { ...asked, path: event.path, at: event.at });
      this.answers.delete(asked.id);
      this.askedIn.set(event.namespace, [...(this.askedIn.get(event.namespace) ?? []), asked.id]);
    }
  }

  close(activation, state, at, seconds, index) {
    const node = this.node(activation.path);
    Object.assign(activation, { ended: at, seconds, state, output: index });
    node.running -= 1;
    node.seconds += seconds;
    node.last = at;
    node.done += state === "done";
    node.failed += state === "failed";
    node.cutOff += state === "cut off";
    node.state = node.running ? "running" : state;
    this.dirty.add(activation.path);
  }

  say(event, index) {
    const data = event.data;
    if (data.id) {
      const key = `${event.run}\n${data.id}`;
      if (this.said.has(key)) return;
      this.said.add(key);
      this.streamed.delete(data.id);
    }
    this.transcript.push({
      path: event.path, speaker: data.speaker, text: data.text, role: data.role, calls: data.calls, at: event.at, index,
      cutAt: event.cut_at,
    });
  }

  stream(event) {
    const { id, speaker, text } = event.data;
    const line = this.streamed.get(id) ?? { path: event.path, speaker, text: "", run: event.run, namespace: event.namespace };
    line.text += text;
    this.streamed.set(id, line);
  }

  // Where the process that runs it was told: who has it open here sees that.
  answer(event) {
    for (const id of event.data.ids ?? []) this.answers.set(id, event.data.by ? `by ${event.data.by}` : "where it runs");
  }

  countCall(event) {
    const node = this.node(event.path);
    node.hidden = false;
    if (event.kind === "tool") {
      node.tools += 1;
      return;
    }
    node.calls += 1;
    node.tokens += event.data.tokens?.total ?? 0;
  }

  // The innermost nodes that are at work or ask, each with the nodes around it, which wait for it.
  get busy() {
    const open = [...this.nodes.values()].filter((node) => node.path && !node.hidden && isBusy(node.state));
    const around = new Set();
    for (const node of open) for (let path = above(node.path); path; path = above(path)) around.add(path);
    return open.filter((node) => !around.has(node.path));
  }

  // How often each state is among the nodes right inside of one, but for those of these paths.
  inside(path, without = new Set()) {
    const prefix = path ? `${path}/` : "";
    const counts = {};
    for (const node of this.nodes.values()) {
      if (!node.path || node.hidden || without.has(node.path) || !node.path.startsWith(prefix) || node.path.indexOf("/", prefix.length) >= 0) continue;
      counts[node.state] = (counts[node.state] ?? 0) + 1;
    }
    return counts;
  }
}

export const isBusy = (state) => state === "running" || state === "asking";

function forkText(data) {
  return data.edited?.length ? `went back, with other ${data.edited.join(", ")}` : "went back";
}
