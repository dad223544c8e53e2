"""What the events of a run come to: by node its state, counts, times and calls; the transcript; the open questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from agentmatrix.approvals import ApprovalRequest, approval_request
from agentmatrix.watch.run_event import RunEvent, node_above

__all__ = [
    "AnsweredQuestion",
    "GraphRecord",
    "NodeActivation",
    "NodeRecord",
    "OpenQuestion",
    "State",
    "TranscriptLine",
]

State = Literal["waiting", "running", "done", "failed", "asking", "cut off", "skipped"]

_MOST_KEPT: Final = 200_000
_LONGEST_STREAMED: Final = 100_000
_STATES: dict[str, State] = {"end": "done", "fail": "failed", "ask": "asking", "cancel": "cut off"}


@dataclass(slots=True)
class NodeRecord:
    """What a node has done, in all of its activations.

    Attributes:
        path: the nodes from the outermost graph, `"panel/expert"`; `""` for the run itself.
        state: what it does now, or how it has ended last. One that was not started is `waiting` while the run is open,
            and `skipped` afterwards.
        count: how often it was started; one that goes on after a question or a failure is the same time.
        running, done, failed, cut_off: how many activations are at work, and have ended so.
        seconds: at work, measured where it runs, all activations together.
        first, last: when it began, and when it ended last, in seconds since the epoch; 0 for never.
        calls, tokens: of models, without those of nodes inside.
        input_tokens, output_tokens: the tokens that were read and written.
        tools: how many tools were called.
        silent: how many turns of a member said nothing.
        errors: what was raised, in sentences.
        is_hidden: whether streams do not show it, and there is no more to say of it.
    """

    path: str
    state: State = "waiting"
    count: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cut_off: int = 0
    seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0
    calls: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tools: int = 0
    silent: int = 0
    errors: list[str] = field(default_factory=list)
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """A message of the transcript.

    Attributes:
        path: of the node that has said it; `""` for the input of the run.
        speaker: the name at the message, else that of the node.
        text: what was said.
        calls: the tools that it calls, `{"name": ..., "args": {...}}`.
        at: when, in seconds since the epoch.
        run: the id of the run.
        id: of the message; `""` for one that has none.
    """

    path: str
    speaker: str
    text: str
    calls: tuple[dict[str, Any], ...]
    at: float
    run: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question that waits for its answer.

    Attributes:
        path: of the node that asks, at its deepest.
        id: of the interrupt.
        value: what is asked, as JSON types.
        run: the id of the run that asked it.
        schema: the JSON schema of an answer, where the question has one.
        at: when it was asked.
        host: `"host:port/agent"` where it was asked, `""` for here.
    """

    path: str
    id: str
    value: Any
    run: str
    schema: Any = None
    at: float = 0.0
    host: str = ""

    @property
    def approval(self) -> ApprovalRequest | None:
        """The tool calls that wait for approval, with the decisions that each takes; None for another question."""
        return approval_request(self.value, self.schema)


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question that was answered.

    Attributes:
        question: what was asked.
        by: who has answered, as `answer(..., by=...)` says; `""` where nobody says.
        at: when the node went on.
    """

    question: OpenQuestion
    by: str
    at: float


@dataclass(slots=True)
class NodeActivation:
    """One time that a node was at work.

    Attributes:
        path: of the node.
        namespace: its checkpoint namespace.
        run: the id of the run.
        begun: when.
        ended: when; None while it is at work.
        seconds: measured where it runs.
    """

    path: str
    namespace: str
    run: str
    begun: float
    ended: float | None = None
    seconds: float = 0.0


class GraphRecord:
    """What a graph has done, in all of its runs.

    Args:
        name: of the graph.

    Attributes:
        nodes: by path, those that were started; `""` is the graph itself, one activation a run.
        transcript: what was said, in order.
        streamed: by id, the messages that are being said, as far as they have come.
        questions: by id, those that wait for an answer.
        answered: those that have one, in order.
        activations: in the order in which they have begun.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: dict[str, NodeRecord] = {"": NodeRecord("")}
        self.transcript: list[TranscriptLine] = []
        self.streamed: dict[str, TranscriptLine] = {}
        self.questions: dict[str, OpenQuestion] = {}
        self.answered: list[AnsweredQuestion] = []
        self.activations: list[NodeActivation] = []
        # By namespace of the node, the ids of its messages that are being said.
        self._streamed_by: dict[tuple[str, str], list[str]] = {}
        # By id of a question, who has answered it; by namespace of a node that goes on, what may be answered.
        self._answers: dict[str, str] = {}
        self._resumed: dict[str, list[AnsweredQuestion]] = {}
        self._at_work: dict[tuple[str, str, bool], NodeActivation] = {}
        self._asked_in: dict[str, list[str]] = {}
        self._with_nodes: set[str] = set()
        self._unfinished: set[str] = set()
        self._said: set[tuple[str, str]] = set()

    @property
    def state(self) -> State:
        """What the graph does."""
        state = self.nodes[""].state
        return "asking" if state == "done" and self.questions else state

    @property
    def is_open(self) -> bool:
        """Whether a run of it has not ended."""
        return self.state in ("waiting", "running")

    def take(self, event: RunEvent) -> None:
        """Let an event count."""
        if event.path not in self.nodes:
            self.nodes[event.path] = NodeRecord(event.path)
        if event.kind == "begin":
            self._begin(event)
        elif event.kind in _STATES:
            self._end(event)
        elif event.kind == "say":
            self._say(event)
        elif event.kind == "token":
            self._stream(event)
        elif event.kind == "answer":
            self._answers |= dict.fromkeys(event.data.get("ids", ()), event.data.get("by", ""))
        else:
            self._count(event)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, GraphRecord) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _begin(self, event: RunEvent) -> None:
        node = self.nodes[event.path]
        for id in self._asked_in.pop(event.namespace, ()) if event.path else ():
            if (question := self.questions.get(id)) is not None and id in self._answers:
                self._close_question(AnsweredQuestion(question, self._answers.pop(id), event.at))
            elif question is not None:
                # It may run again only because another question was answered: that is known when it has ended.
                self._resumed.setdefault(event.namespace, []).append(AnsweredQuestion(question, "", event.at))
        node.count += event.namespace not in self._unfinished
        self._unfinished.discard(event.namespace)
        node.is_hidden = bool(event.data.get("hidden")) and not (node.calls or node.errors)
        node.running += 1
        node.state, node.first = "running", node.first or event.at
        activation = NodeActivation(event.path, event.namespace, event.run, event.at)
        self.activations.append(activation)
        _trim(self.activations)
        self._at_work[_key(event)] = activation
        self._with_nodes.add(node_above(event.namespace))

    def _end(self, event: RunEvent) -> None:
        activation = self._at_work.pop(_key(event), None)
        if activation is None:
            return
        has_nodes = not event.path or event.namespace in self._with_nodes
        inside = [key for key, other in self._at_work.items() if _is_inside(other, activation)] if has_nodes else ()
        for key in inside:
            # What a host has begun that is gone ends with the node around it.
            lost = self._at_work.pop(key)
            self._close(lost, "cut off", event.at, event.at - lost.begun)
        self._close(activation, _STATES[event.kind], event.at, float(event.data.get("seconds", 0.0)))
        node = self.nodes[event.path]
        node.silent += bool(event.data.get("silent"))
        if event.kind == "fail" and "error" in event.data:
            node.errors.append(event.data["error"])
            node.is_hidden = False
        if event.kind in ("fail", "ask") and event.path:
            self._unfinished.add(event.namespace)
        again = [(asked["id"], asked["value"]) for asked in event.data.get("questions", ())]
        for one in self._resumed.pop(event.namespace, ()) if event.path else ():
            if (one.question.id, one.question.value) in again:
                self._asked_in.setdefault(event.namespace, []).append(one.question.id)
            else:
                self._close_question(one)
        for asked in event.data.get("questions", ()):
            # A question passes through every graph around its node, which comes first.
            if asked["id"] not in self.questions:
                schema, host = asked.get("schema"), event.data.get("host", "")
                question = OpenQuestion(event.path, asked["id"], asked["value"], event.run, schema, event.at, host)
                self.questions[asked["id"]] = question
                self._asked_in.setdefault(event.namespace, []).append(asked["id"])
        self._forget_streamed(event)

    def _close_question(self, answered: AnsweredQuestion) -> None:
        self.questions.pop(answered.question.id, None)
        self.answered.append(answered)
        _trim(self.answered)

    def _forget_streamed(self, event: RunEvent) -> None:
        """What a node was saying, it has said or given up."""
        if not event.path:
            ended = [key for key in self._streamed_by if key[0] == event.run]
        else:
            ended = [(event.run, event.namespace)]
        for key in ended:
            for id in self._streamed_by.pop(key, ()):
                self.streamed.pop(id, None)

    def _close(self, activation: NodeActivation, state: State, at: float, seconds: float) -> None:
        node = self.nodes[activation.path]
        activation.ended, activation.seconds = at, seconds
        # Its begin may have been told late, as by a host; its seconds are measured where it runs.
        node.first = min(node.first, at - seconds)
        node.running -= 1
        node.seconds += seconds
        node.last = at
        node.done += state == "done"
        node.failed += state == "failed"
        node.cut_off += state == "cut off"
        node.state = "running" if node.running else state

    def _say(self, event: RunEvent) -> None:
        data = event.data
        if id := data.get("id"):
            if (event.run, id) in self._said:
                return
            self._said.add((event.run, id))
        line = TranscriptLine(
            event.path, data["speaker"], data["text"], tuple(data.get("calls", ())), event.at, event.run, id or ""
        )
        self.streamed.pop(line.id, None)
        self.transcript.append(line)
        _trim(self.transcript)

    def _stream(self, event: RunEvent) -> None:
        data, id = event.data, event.data["id"]
        before = self.streamed.get(id)
        if before is None:
            self._streamed_by.setdefault((event.run, event.namespace), []).append(id)
        text = ((before.text if before else "") + data["text"])[:_LONGEST_STREAMED]
        self.streamed[id] = TranscriptLine(event.path, data["speaker"], text, (), event.at, event.run, id)

    def _count(self, event: RunEvent) -> None:
        node = self.nodes[event.path]
        node.is_hidden = False
        if event.kind == "tool":
            node.tools += 1
            return
        if not event.run:
            self._forget_streamed(event)  # It was called outside of a graph: no node ends.
        tokens: dict[str, int] = event.data.get("tokens", {})
        node.calls += 1
        node.tokens += tokens.get("total", 0)
        node.input_tokens += tokens.get("input", 0)
        node.output_tokens += tokens.get("output", 0)


def _trim(kept: list[Any]) -> None:
    """Drops the older half of a list that has become long: a block may stay open for days."""
    if len(kept) > _MOST_KEPT:
        del kept[: _MOST_KEPT // 2]


def _key(event: RunEvent) -> tuple[str, str, bool]:
    """A graph that runs inside of a node has the namespace of that."""
    return event.run, event.namespace, event.path == ""


def _is_inside(other: NodeActivation, activation: NodeActivation) -> bool:
    if other.run != activation.run:
        return False
    return not activation.path or other.namespace.startswith(f"{activation.namespace}|")
