"""The runs of a block, as one model: the views read it, and so does code."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Final, Self

from langgraph.types import Command

from agentmatrix.approvals import approval_request
from agentmatrix.display.drawing import NAMELESS, NOT_REACHED, Drawing, drawing_of
from agentmatrix.errors import AnswerError
from agentmatrix.watch.node_record import GraphRecord, NodeRecord, OpenQuestion, TranscriptLine
from agentmatrix.watch.recorder import Transfer, WatchedGraph
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.structure import drawing_from_json, drawing_to_json, without_outer_box
from agentmatrix.watch.summary import RunSummary, state_of, summary_of

__all__ = ["WatchedRun", "load"]

_KEPT_EVENTS: Final = 200_000
_LARGE: Final = 1_000_000


class WatchedRun:
    """What has been seen of the runs of a block. It may be read at any time, on any thread, while they go on.

    Args:
        graph: the graph that will run, for a picture before it begins.
        keep: how many events are kept, for `events` and `save`; older ones count, and are dropped.

    Attributes:
        is_open: whether the block has not ended.
        is_shown: whether its picture stands in a notebook.
        result: what the graph has returned, where `graph.watch` or `answer` ran it.
    """

    def __init__(self, graph: Any = None, *, keep: int = _KEPT_EVENTS) -> None:
        self._lock = threading.RLock()
        self._new: deque[RunEvent] = deque()
        self._events: deque[RunEvent] = deque(maxlen=keep)
        self._count = 0
        self._records: dict[str, GraphRecord] = {}
        self._names: dict[str, str] = {}
        self._graphs: dict[str, WatchedGraph] = {}
        self._drawings: dict[str, Drawing] = {}
        self._unfinished: set[str] = set()
        self._expected = graph
        self.is_open = self.is_shown = False
        self.result: Any = None
        self._transfers: Mapping[int, Callable[[], Transfer | None]] = {}
        self.block: Callable[[], AbstractContextManager[None]] = nullcontext
        """Watches what is run in it, as the block does that this was made by."""

    # What the recorder tells.

    def follow(self, transfers: Mapping[int, Callable[[], Transfer | None]]) -> None:
        """Take what says how much of large values has crossed."""
        self._transfers = transfers

    def take(self, event: RunEvent) -> None:
        """Take an event. It counts when somebody looks."""
        self._new.append(event)

    def open_graph(self, graph: WatchedGraph) -> None:
        """Take the graph of a run that begins."""
        self._graphs[graph.run] = graph

    def _count_new(self) -> None:
        while self._new:
            event = self._new.popleft()
            if event.path == "" and event.kind == "begin" and event.run not in self._names:
                event = self._named(event)
            record = self._records.get(self._names.get(event.run, ""))
            if record is None:
                record = self._records.setdefault("", GraphRecord(""))
            record.take(event)
            self._events.append(event)
            self._count += 1

    def _named(self, event: RunEvent) -> RunEvent:
        """The begin of a run, under a name that no other graph has."""
        own = str(event.data.get("name") or "graph")
        own = NAMELESS if own == "LangGraph" else own
        graph, name, number = self._graph_of(event.run), own, 2
        while name in self._records and not self._is_same(name, graph):
            name, number = f"{own} ({number})", number + 1
        self._names[event.run] = name
        self._records.setdefault(name, GraphRecord(name))
        return event._replace(data={**event.data, "name": name})

    def _graph_of(self, run: str) -> Any:
        found = self._graphs.get(run)
        return found.graph if found else None

    def _is_same(self, name: str, graph: Any) -> bool:
        others = [self._graph_of(run) for run, other in self._names.items() if other == name]
        return all(_identity(other) == _identity(graph) for other in others)

    # What one reads.

    @property
    def records(self) -> list[GraphRecord]:
        """The graphs that have run, each with its nodes, in the order in which they began."""
        with self._lock:
            self._count_new()
            return list(self._records.values())

    @property
    def version(self) -> int:
        """How many events there have been: it changes when anything does."""
        return self._count + len(self._new)

    @property
    def state(self) -> str:
        """Of all of it: `waiting`, `running`, `asking`, `failed`, `cut off` or `done`."""
        return state_of(self.records)

    @property
    def nodes(self) -> Mapping[str, NodeRecord]:
        """By path (`"panel/expert"`), what each node does and has done, also those that were not started.

        Where several graphs ran, those of the first; `records` has all.
        """
        return self.nodes_of(self._first_name())

    def nodes_of(self, name: str) -> dict[str, NodeRecord]:
        """The nodes of one of the graphs, in the order of its drawing."""
        drawing = self.drawing(name)
        with self._lock:
            self._count_new()
            record = self._records.get(name)
            started = dict(record.nodes) if record else {}
            is_open = record is None or record.is_open or bool(record.questions)
        found: dict[str, NodeRecord] = {}
        for node in drawing.walk() if drawing else ():
            if node.kind not in ("start", "end", "junction", "members"):
                path = node.id.replace("|", "/")
                state = "waiting" if is_open else "skipped"
                found[path] = started.get(path) or NodeRecord(path, state)  # type: ignore[arg-type]
        others = {path: node for path, node in started.items() if path and path not in found}
        return found | {path: node for path, node in others.items() if not node.is_hidden}

    @property
    def transfers(self) -> dict[str, Transfer]:
        """By path, the large values that are on their way to or from a host, of a megabyte and more."""
        now = [transfer() for transfer in list(self._transfers.values())]
        return {one.path: one for one in now if one is not None and max(one.size, one.done) >= _LARGE}

    @property
    def transcript(self) -> list[TranscriptLine]:
        """What was said, in order, with speakers and paths."""
        return sorted((line for record in self.records for line in record.transcript), key=lambda line: line.at)

    @property
    def questions(self) -> list[OpenQuestion]:
        """The questions that wait for an answer."""
        return [question for record in self.records for question in record.questions.values()]

    def events(self) -> Iterator[RunEvent]:
        """What has happened, in order."""
        with self._lock:
            self._count_new()
            return iter(list(self._events))

    def summary(self) -> RunSummary:
        """Calls, tokens, seconds, the critical path, silent turns, and the same by agent."""
        with self._lock:
            return summary_of(self.records)

    def drawing(self, name: str) -> Drawing | None:
        """The structure of one of the graphs; None where it is not known."""
        with self._lock:
            graph = next((self._graph_of(run) for run, other in self._names.items() if other == name), None)
            if graph is None:
                graph = self._expected if name in self._records or name == "" else None
            if graph is None:
                return self._drawings.get(name)
            drawn = self._drawings.get(name)
            if drawn is None or name in self._unfinished:
                # What stands on a host that was not reached yet is a closed box until its card is there.
                drawn = self._drawings[name] = without_outer_box(drawing_of(graph))
                is_whole = all(node.note != NOT_REACHED for node in drawn.walk())
                (self._unfinished.discard if is_whole else self._unfinished.add)(name)
            return drawn

    # Answers.

    def answer(self, *answers: Any) -> Any:
        """Answer the open questions, and go on; the run that asked is resumed, and its result returned.

        Args:
            answers: one for each question, in the order of `questions`; or one dict of answers by the questions' ids.
                A request for approval (LangChain's `HumanInTheLoopMiddleware`) takes `"approve"`, `"reject: why"`,
                `'edit {"amount": 5}'`, or a list of these, one for each tool call.

        Raises:
            AnswerError: no question is open, the number is wrong, or an answer does not fit.
        """
        graph, command = self._resumption(answers)
        with nullcontext() if self.is_open else self.block():
            self.result = graph.graph.invoke(command, graph.config)
        return self.result

    async def aanswer(self, *answers: Any) -> Any:
        """The same as `answer`, async."""
        graph, command = self._resumption(answers)
        with nullcontext() if self.is_open else self.block():
            self.result = await graph.graph.ainvoke(command, graph.config)
        return self.result

    def _resumption(self, answers: tuple[Any, ...]) -> tuple[WatchedGraph, Command[Any]]:
        questions = self.questions
        if not questions:
            raise AnswerError("no question is open: the graph has not paused, or was answered already")
        ids = {question.id: question for question in questions}
        if len(answers) == 1 and isinstance(answers[0], Mapping) and answers[0] and answers[0].keys() <= ids.keys():
            given = [(ids[id], value) for id, value in answers[0].items()]
        elif len(answers) != len(questions):
            raise AnswerError(f"{len(questions)} questions are open, and {len(answers)} answers were given")
        else:
            given = list(zip(questions, answers, strict=True))
        runs = {self._names.get(question.run, "") for question, _ in given}
        if len(runs) > 1:
            raise AnswerError(f"the questions are of several graphs ({', '.join(sorted(runs))}): answer by their ids")
        graph = self._graphs.get(given[0][0].run)
        if graph is None or graph.graph is None:
            raise AnswerError("the run that asks was not started in this process: answer it where it runs")
        if not graph.graph.checkpointer or "thread_id" not in (graph.config or {}).get("configurable", {}):
            raise AnswerError("the graph has no checkpointer that keeps the pause: compile it with one, name a thread")
        resume = {question.id: _value_of(question, value) for question, value in given}
        return graph, Command(resume=resume)

    # Files.

    def save(self, path: str | PathLike[str]) -> None:
        """Write all events to a file, one JSON object a line, after the drawings of the graphs."""
        events = list(self.events())
        drawings = {record.name: self.drawing(record.name) for record in self.records}
        lines = [{"graph": name, "drawing": drawing_to_json(drawn)} for name, drawn in drawings.items() if drawn]
        with Path(path).open("w", encoding="utf-8") as file:
            for line in [*lines, *(event.as_json() for event in events)]:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """What `save` has written. Its questions cannot be answered.

        Raises:
            ValueError: the file is none of these; names the line.
        """
        run = cls()
        with Path(path).open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                try:
                    line = json.loads(text)
                    if isinstance(line, dict) and "drawing" in line:
                        run._drawings[str(line["graph"])] = drawing_from_json(line["drawing"])
                    else:
                        run.take(RunEvent.from_json(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"line {number} of {path} is not of a saved run: {error}") from None
        return run

    def _first_name(self) -> str:
        return next((record.name for record in self.records), "")

    def __repr__(self) -> str:
        names = ", ".join(record.name for record in self.records)
        return f"<WatchedRun of {names}: {self.state}>" if names else "<WatchedRun: nothing has run yet>"

    def _repr_html_(self) -> str | None:
        from agentmatrix.watch.html_view import html_of

        return None if self.is_shown else html_of(self)


def load(path: str | PathLike[str]) -> WatchedRun:
    """A run that `WatchedRun.save` has written."""
    return WatchedRun.load(path)


def _identity(graph: Any) -> Any:
    """What copies of a graph have in common."""
    return id(getattr(graph, "builder", None) or graph) if graph is not None else None


def _value_of(question: OpenQuestion, answer: Any) -> Any:
    request = approval_request(question.value, question.schema)
    texts = [answer] if isinstance(answer, str) else answer
    if request is None or not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        return answer
    return request.answer(texts)
