"""The runs of a block, as one model: the views read it, and so does code."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Final, Self

from agentmatrix.display.drawing import NAMELESS, NOT_REACHED, Drawing, drawing_of
from agentmatrix.watch.answers import AnswerMixin
from agentmatrix.watch.event_log import KEPT_EVENTS, EventLog
from agentmatrix.watch.node_record import (
    AnsweredQuestion,
    GraphRecord,
    NodeActivation,
    NodeRecord,
    OpenQuestion,
    TranscriptLine,
)
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.structure import drawing_from_json, drawing_to_json, without_outer_box
from agentmatrix.watch.summary import RunSummary, state_of, summary_of
from agentmatrix.watch.token_buffer import TokenBuffer
from agentmatrix.watch.watched_graph import Transfer, WatchedGraph

__all__ = ["WatchedRun"]

_MOST_WAITING: Final = 10_000
"""Events that nobody has looked at."""
_LARGE: Final = 1_000_000


class WatchedRun(AnswerMixin):
    """What has been seen of the runs of a block. It may be read at any time, on any thread, while they go on.

    Args:
        graph: the graph that will run, for a picture before it begins.
        keep: how many events are kept, for `events` and `save`; older ones count, and are dropped.

    Attributes:
        is_open: whether the block has not ended.
        is_shown: whether its picture stands in a notebook.
        result: what the graph has returned, where `graph.watch` or `answer` ran it.
    """

    def __init__(self, graph: Any = None, *, keep: int = KEPT_EVENTS) -> None:
        self._lock = threading.RLock()
        self._new: deque[RunEvent] = deque()
        self._tokens = TokenBuffer(self._new.append)
        self._log = EventLog(keep)
        self._records: dict[str, GraphRecord] = {}
        self._names: dict[str, str] = {}
        self._graphs: dict[str, WatchedGraph] = {}
        self._drawings: dict[str, Drawing] = {}
        self._unfinished: set[str] = set()
        self._answering: dict[str, str] = {}
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
        if event.kind == "token":
            self._tokens.add(event)
            return
        if self._tokens:
            # What a message has said so far comes before what ends it.
            self._tokens.flush()
        self._new.append(event)
        if len(self._new) > _MOST_WAITING and self._lock.acquire(blocking=False):
            try:
                self._count_new()
            finally:
                self._lock.release()

    def open_graph(self, graph: WatchedGraph) -> None:
        """Take the graph of a run that begins."""
        self._graphs[graph.run] = graph

    def _count_new(self) -> None:
        self._tokens.flush()
        while self._new:
            event = self._new.popleft()
            if event.path == "" and event.kind == "begin" and event.run not in self._names:
                event = self._named(event)
            record = self._records.get(self._names.get(event.run, ""))
            if record is None:
                record = self._records.setdefault("", GraphRecord(""))
            record.take(event)
            self._log.add(event)

    def _named(self, event: RunEvent) -> RunEvent:
        """The begin of a run, under a name that no other graph has."""
        own = str(event.data.get("name") or "graph")
        own = NAMELESS if own == "LangGraph" else own
        graph, name, number = self._graph_of(event.run), own, 2
        while name in self._records and not self._is_same(name, graph):
            name, number = f"{own} ({number})", number + 1
        self._names[event.run] = name
        self._records.setdefault(name, GraphRecord(name))
        data = {**event.data, "name": name}
        if (found := self._graphs.get(event.run)) is not None:
            thread = ((found.config or {}).get("configurable") or {}).get("thread_id")
            data |= {"thread_id": str(thread)} if thread is not None else {}
        elif (known := self._known_graph(own)) is not None and "thread_id" in data:
            config = {"configurable": {"thread_id": data["thread_id"]}}
            self._graphs[event.run] = WatchedGraph(event.run, known, config)
        return event._replace(data=data)

    def _known_graph(self, name: str) -> Any:
        """The graph that a run of another process was of, where it is given."""
        graph = self._expected
        own = graph.get_name() if graph is not None else None
        return graph if own in (name, "LangGraph") else None

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
        """The number of the newest event: it changes when anything does."""
        self._tokens.flush()
        return self._log.count + len(self._new)

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
    def streamed(self) -> list[TranscriptLine]:
        """The messages that are being said, as far as they have come; of `watching(tokens=True)`."""
        return [line for record in self.records for line in list(record.streamed.values())]

    @property
    def questions(self) -> list[OpenQuestion]:
        """The questions that wait for an answer."""
        return [question for record in self.records for question in list(record.questions.values())]

    @property
    def answered(self) -> list[AnsweredQuestion]:
        """The questions that were answered, in order."""
        return sorted((one for record in self.records for one in list(record.answered)), key=lambda one: one.at)

    def events(self, after: int = 0) -> Iterator[RunEvent]:
        """What has happened, in order.

        Args:
            after: leave out so many of the first: what `version` was when they were read.
        """
        with self._lock:
            self._count_new()
            return iter(self._log.after(after))

    def values_of(self, activation: NodeActivation) -> tuple[str | None, str | None]:
        """The input and the output of an activation, as JSON text; of `watching(values=True)`.

        Args:
            activation: one of `GraphRecord.activations`.

        Returns:
            None for what was not recorded, has not ended, or was dropped since.
        """
        with self._lock:
            self._count_new()
            return self._log.values_of(activation.run, activation.namespace, activation.path, activation.begun)

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

    # Files, and other processes.

    def as_json(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """The drawings of the graphs, and then the events, each as a JSON object; `from_json` makes a run of them.

        Args:
            after: as of `events`; the drawings are those of graphs that began afterwards.
        """
        events = list(self.events(after))
        began = [str(event.data["name"]) for event in events if event.kind == "begin" and "name" in event.data]
        for name in dict.fromkeys(began):
            if (drawing := self.drawing(name)) is not None:
                yield {"graph": name, "drawing": drawing_to_json(drawing)}
        for event in events:
            yield event.as_json()

    @classmethod
    def from_json(cls, lines: Iterable[Any], graph: Any = None) -> Self:
        """The run of what `as_json` has given.

        Args:
            lines: the JSON objects.
            graph: what has run, to answer questions that its thread has paused with; by default they are only shown.

        Raises:
            ValueError: one of them is none of these.
        """
        run = cls(graph)
        for line in lines:
            run.take_json(line)
        return run

    def take_json(self, line: Any) -> None:
        """Take one of what the `as_json` of another process gives.

        Raises:
            ValueError: it is none of these.
        """
        if isinstance(line, dict) and "drawing" in line:
            if type(line.get("graph")) is not str:
                raise ValueError("it is the drawing of no graph")
            self._drawings[line["graph"]] = drawing_from_json(line["drawing"])
        else:
            self.take(RunEvent.from_json(line))

    def save(self, path: str | PathLike[str]) -> None:
        """Write `as_json` to a file, one object a line."""
        # Half a surrogate pair is written as JSON's escape of it.
        with Path(path).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for line in self.as_json():
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _first_name(self) -> str:
        return next((record.name for record in self.records), "")

    def __repr__(self) -> str:
        names = ", ".join(record.name for record in self.records)
        return f"<WatchedRun of {names}: {self.state}>" if names else "<WatchedRun: nothing has run yet>"

    def _repr_html_(self) -> str | None:
        from agentmatrix.watch.html_view import html_of

        return None if self.is_shown else html_of(self)


def _identity(graph: Any) -> Any:
    """What copies of a graph have in common."""
    return id(getattr(graph, "builder", None) or graph) if graph is not None else None
