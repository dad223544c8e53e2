"""One run as the page knows it: a list of items that only grows, so that a reader goes on where it was.

An item is an event of the run, or a thing that was done on the page. Its index is its id: what a browser has seen is
told by the last index. Items come from any thread.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from agentmatrix.approvals import approval_request
from agentmatrix.display.drawing import Drawing
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.watched_graph import WatchedGraph
from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["PageRun"]

_MOST_ITEMS: Final = 200_000
LARGEST: Final = 100_000
"""Bytes of an item that is sent with the others; the whole of a larger one is sent when it is asked for."""
_LARGE_IN_MEMORY: Final = 64_000_000


class PageRun:
    """A run of a graph on one thread, with all that was done to it.

    Args:
        id: of the run.
        graph: the name that the graph has on the page.
        thread: the id of its thread; "" where that is not known.
        source: where it runs: "" for this process.
        on_change: told of each change, on any thread.
        compiled: the graph, for its picture.
    """

    def __init__(
        self,
        id: str,
        graph: str,
        thread: str,
        source: str = "",
        on_change: Callable[[PageRun], None] = lambda run: None,
        compiled: Any = None,
    ) -> None:
        self.id, self.graph, self.thread, self.source = id, graph, thread, source
        self.watched = WatchedRun(compiled)
        self.started = time.time()
        self.input = ""
        self.is_at_work = self.is_live = False
        self._given_drawing: Drawing | None = None
        self.items: list[str] = []
        self._large: dict[int, str] = {}
        self._lock = threading.Lock()
        self._on_change = on_change
        # Questions that were answered, until they are asked anew: who answers second is told.
        self._answered: set[str] = set()
        self.held: dict[str, Any] = {}
        """By question, the answers with which the run goes on as soon as it does not work."""

    # What happens.

    def take_event(self, event: RunEvent) -> None:
        """An event of the run; the sink of a recorder."""
        self.watched.take(event)
        item = _item(event)
        for asked in item["data"].get("questions", ()):
            with self._lock:
                if asked["id"] in self.held:
                    asked["answered"] = True
                else:
                    self._answered.discard(asked["id"])
        self._append(item)

    def open_graph(self, graph: WatchedGraph) -> None:
        """The graph of a run that begins."""
        self.watched.open_graph(graph)

    def tell(self, kind: str, **data: Any) -> None:
        """A thing that was done on the page."""
        self._append({"kind": kind, "at": time.time(), "data": data})

    def set_at_work(self, at_work: bool) -> None:
        """The run begins to work, or has ended or paused."""
        self.is_at_work = at_work
        self.tell("work" if at_work else "rest", state=self.state)

    def hold_answer(self, question: str, value: Any) -> bool:
        """Take the answer to a question. Returns False where somebody else has answered it."""
        with self._lock:
            if question in self._answered:
                return False
            self._answered.add(question)
            self.held[question] = value
            return True

    def take_answers(self) -> dict[str, Any]:
        """The answers to open questions that the run goes on with now."""
        open_now = {question.id for question in self.watched.questions}
        with self._lock:
            held, self.held = self.held, {}
        return {id: value for id, value in held.items() if id in open_now}

    def _append(self, item: Mapping[str, Any]) -> None:
        text = json.dumps(item, ensure_ascii=False, default=repr)
        with self._lock:
            index = len(self.items)
            if index >= _MOST_ITEMS:
                return
            if len(text) > LARGEST:
                self._large[index] = text
                text = json.dumps(_small(item, index), ensure_ascii=False, default=repr)
                while sum(map(len, self._large.values())) > _LARGE_IN_MEMORY and len(self._large) > 1:
                    del self._large[next(iter(self._large))]
            self.items.append(text)
        self._on_change(self)

    # What one reads.

    @property
    def state(self) -> str:
        """`waiting`, `running`, `asking`, `failed`, `cut off` or `done`."""
        if self.is_at_work:
            return "running"
        state = self.watched.state
        # It is at work nowhere: the process that told of it is gone, or its end was not told.
        return "cut off" if state == "running" and not self.source else state

    @property
    def drawing(self) -> Drawing | None:
        """The structure of its graph."""
        return self._given_drawing or self.watched.drawing(self.name)

    @drawing.setter
    def drawing(self, drawing: Drawing) -> None:
        self._given_drawing = drawing

    @property
    def name(self) -> str:
        """The name under which the graph is watched."""
        return next((record.name for record in self.watched.records if record.name), "")

    def whole(self, index: int) -> str | None:
        """An item as it came, as JSON; None where it is kept no more."""
        if not 0 <= index < len(self.items):
            return None
        small = self.items[index]
        return self._large.get(index) or (None if '"cut_at"' in small[:200] else small)

    def describe(self) -> dict[str, Any]:
        """What the list says of it."""
        return {
            "id": self.id,
            "graph": self.graph,
            "title": self.name or self.graph,
            "thread": self.thread,
            "source": self.source,
            "started": self.started,
            "input": self.input[:200],
            "state": self.state,
            "isLive": self.is_live,
            "questions": len([one for one in self.watched.questions if one.id not in self._answered]),
        }


def _item(event: RunEvent) -> dict[str, Any]:
    item = event.as_json()
    for asked in item["data"].get("questions", ()):
        request = approval_request(asked["value"], asked.get("schema"))
        if request is not None:
            asked["approval"] = [
                {
                    "name": action.name,
                    "args": dict(action.args),
                    "description": action.description,
                    "allowed": action.allowed,
                }
                for action in request.actions
            ]
    return item


def _small(item: Mapping[str, Any], index: int) -> dict[str, Any]:
    """An item without what is large in it."""
    return {"cut_at": index, **item, "data": {key: _shortened(value) for key, value in item["data"].items()}}


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= 10_000 else value[:10_000]
    text = json.dumps(value, ensure_ascii=False, default=repr)
    if len(text) <= 10_000:
        return value
    if isinstance(value, list):
        return [_shortened(one) for one in value[:100]]
    return {key: _shortened(one) for key, one in list(value.items())[:100]} if isinstance(value, dict) else value
