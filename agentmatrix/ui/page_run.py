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
from agentmatrix.watch.token_buffer import TokenBuffer
from agentmatrix.watch.watched_graph import WatchedGraph
from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["PageRun"]

_MOST_ITEMS: Final = 200_000
LARGEST: Final = 100_000
"""Bytes of an item that is sent with the others; the whole of a larger one is sent when it is asked for."""
_LARGE_IN_MEMORY: Final = 32_000_000
_VALUES: Final = ("input", "output")


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
        self.is_at_work = self.is_live = self.is_loaded = False
        self.on_item: Callable[[str], None] | None = None
        """Told of each item as JSON, whole."""
        self._given_drawing: Drawing | None = None
        self.items: list[str] = []
        # By index, items whose whole is large, or has the input or output of a node.
        self._large: dict[int, str] = {}
        self.large_size = 0
        self._tokens = TokenBuffer(self._take)
        self._lock = threading.Lock()
        self._on_change = on_change
        # Questions that were answered, until they are asked anew: who answers second is told.
        self._answered: set[str] = set()
        self.held: dict[str, Any] = {}
        """By question, the answers with which the run goes on as soon as it does not work."""

    # What happens.

    def take_event(self, event: RunEvent) -> None:
        """An event of the run; the sink of a recorder."""
        if event.kind == "token":
            self._tokens.add(event)
            self._on_change(self)
            return
        if event.kind == "begin" and not event.path and self.thread:
            # By it the run is known for one of this graph, when it is found again.
            event = event._replace(data={**event.data, "thread_id": self.thread})
        if self._tokens:
            # What a message has said so far comes before what ends it.
            self._tokens.flush()
        self._take(event)

    def flush(self) -> None:
        """Make an item of the tokens that have come: there are many, and they are told when somebody looks."""
        self._tokens.flush()

    def _take(self, event: RunEvent) -> None:
        if event.kind != "token":
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
        self.take_own(kind, time.time(), data)

    def take_own(self, kind: str, at: float, data: Mapping[str, Any]) -> None:
        """A thing that was done on the page before."""
        if kind == "answered":
            self._answered.add(data["question"])
        self._append({"kind": kind, "at": at, "data": data})

    def close_loaded(self) -> None:
        """All that a file has is taken: what was at work then is so no more."""
        kinds = [item[:20] for item in self.items if item.startswith(('{"kind": "work"', '{"kind": "rest"'))]
        if kinds and kinds[-1].startswith('{"kind": "work"'):
            self.tell("rest", state="cut off")

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
            if len(text) > LARGEST or not item["data"].keys().isdisjoint(_VALUES):
                self._large[index] = text
                self.large_size += len(text)
                text = json.dumps(_small(item, index), ensure_ascii=False, default=repr)
                while self.large_size > _LARGE_IN_MEMORY and len(self._large) > 1:
                    self._drop_large()
            self.items.append(text)
            if self.on_item is not None and item["kind"] != "token":
                self.on_item(self._large.get(index, text))
        self._on_change(self)

    def _drop_large(self) -> None:
        self.large_size -= len(self._large.pop(next(iter(self._large))))

    def forget_large(self) -> None:
        """Keep only what is sent with the others: the run is an old one."""
        with self._lock:
            self._large.clear()
            self.large_size = 0

    # What one reads.

    @property
    def state(self) -> str:
        """`waiting`, `running`, `asking`, `failed`, `cut off` or `done`."""
        if self.is_at_work:
            return "running"
        state = self.watched.state
        # It is at work nowhere: the process that told of it is gone, or its end was not told.
        return "cut off" if state == "running" else state

    @property
    def drawing(self) -> Drawing | None:
        """The structure of its graph."""
        return self._given_drawing or self.watched.drawing(self.name)

    @drawing.setter
    def drawing(self, drawing: Drawing) -> None:
        self._given_drawing = drawing

    @property
    def title(self) -> str:
        """What it is called on the page."""
        return self.name or self.graph

    @property
    def name(self) -> str:
        """The name under which the graph is watched."""
        return next((record.name for record in self.watched.records if record.name), "")

    def whole(self, index: int) -> str | None:
        """An item as it came, as JSON; None where it is kept no more."""
        if not 0 <= index < len(self.items):
            return None
        small = self.items[index]
        return self._large.get(index) or (None if small.startswith(('{"cut_at"', '{"more_at"')) else small)

    def describe(self) -> dict[str, Any]:
        """What the list says of it."""
        return {
            "id": self.id,
            "graph": self.graph,
            "title": self.title,
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
    """An item without what is large in it: inputs and outputs are given when they are asked for."""
    data = {key: _shortened(value) for key, value in item["data"].items() if key not in _VALUES}
    is_cut = any(data[key] is not item["data"][key] for key in data)
    return {**({"cut_at": index} if is_cut else {"more_at": index}), **item, "data": data}


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= 10_000 else value[:10_000]
    text = json.dumps(value, ensure_ascii=False, default=repr)
    if len(text) <= 10_000:
        return value
    if isinstance(value, list):
        return [_shortened(one) for one in value[:100]]
    return {key: _shortened(one) for key, one in list(value.items())[:100]} if isinstance(value, dict) else value
