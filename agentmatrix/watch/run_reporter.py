"""Tells of the runs of this process as JSON objects, from a thread of its own: the runs do not wait for it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from agentmatrix.display.drawing import NAMELESS, NOT_REACHED, Drawing, drawing_of
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.structure import drawing_to_json, without_outer_box
from agentmatrix.watch.token_buffer import TokenBuffer
from agentmatrix.watch.token_recorder import new_recorder
from agentmatrix.watch.watched_graph import WatchedGraph

__all__ = ["RunReporter"]

Deliver = Callable[[list[dict[str, Any]]], None]

_SECONDS: Final = 0.04
"""Between two deliveries: what comes meanwhile goes together."""
_HEARTBEAT_SECONDS: Final = 10.0
"""Between two deliveries while runs are open: who gets none knows that the process is gone."""
_MOST_WAITING: Final = 50_000
_MOST_CHARACTERS: Final = 32_000_000
_MOST_AT_ONCE: Final = 2_000_000
_ENDS: Final = ("end", "fail", "ask", "cancel")


class RunReporter:
    """Has a recorder, and delivers what it records: before the begin of a run the drawing of its graph.

    Args:
        deliver: takes JSON objects, in order, on the thread of the reporter. It must not raise.
        page: the address of the page that is told.
    """

    def __init__(self, deliver: Deliver, page: str) -> None:
        self._deliver = deliver
        self.recorder = new_recorder(self.take, self.open_graph, tokens=True, values=True)
        self.recorder.page = page
        self._tokens = TokenBuffer(self._add)
        self._waiting: deque[RunEvent] = deque()
        self._characters = 0
        self._graphs: dict[str, WatchedGraph] = {}
        self._drawn: dict[str, tuple[int, bool]] = {}
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._lock = threading.Lock()
        self._process = 0

    def take(self, event: RunEvent) -> None:
        """Tell an event, soon."""
        if event.kind == "token":
            self._tokens.add(event)
            self._start()
            return
        if self._tokens:
            self._tokens.flush()
        self._add(event)
        self._start()

    def open_graph(self, graph: WatchedGraph) -> None:
        """The graph of a run that begins."""
        self._graphs[graph.run] = graph

    def _add(self, event: RunEvent) -> None:
        self._waiting.append(event)
        self._characters += event.size
        while self._characters > _MOST_CHARACTERS or len(self._waiting) > _MOST_WAITING:
            self._characters -= self._waiting.popleft().size

    def _start(self) -> None:
        self._idle.clear()
        self._wake.set()
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    # A forked process has no thread.
                    self._process = os.getpid()
                    threading.Thread(target=self._work, name="agentmatrix-report", daemon=True).start()

    @property
    def has_told(self) -> bool:
        """Whether there was anything to tell in this process."""
        return self._process == os.getpid()

    def flush(self, seconds: float) -> None:
        """Wait until all is delivered, for so many seconds at most."""
        if self.has_told:
            self._idle.wait(seconds)

    def _work(self) -> None:
        while True:
            is_awake = self._wake.wait(_HEARTBEAT_SECONDS if self._graphs else None)
            time.sleep(_SECONDS)
            self._wake.clear()
            lines: list[dict[str, Any]] = []
            size = 0
            self._tokens.flush()
            while self._waiting:
                event = self._waiting.popleft()
                self._characters -= event.size
                size += event.size
                lines += self._lines(event)
                if size > _MOST_AT_ONCE:
                    self._deliver(lines)
                    lines, size = [], 0
            if lines or not is_awake:
                self._deliver(lines)
            if not self._waiting and not self._tokens:
                self._idle.set()

    def _lines(self, event: RunEvent) -> list[dict[str, Any]]:
        """The event, and the drawing of its graph where that was not told yet."""
        if event.path:
            return [event.as_json()]
        found = self._graphs.get(event.run)
        if event.kind == "begin":
            own = str(event.data.get("name") or "graph")
            event = event._replace(data={**event.data, "name": NAMELESS if own == "LangGraph" else own})
            thread = ((found and found.config) or {}).get("configurable", {}).get("thread_id")
            if thread is not None:
                event.data["thread_id"] = str(thread)
            return [*self._drawing(event.data["name"], found), event.as_json()]
        if event.kind in _ENDS and self._graphs.pop(event.run, None) is not None and found is not None:
            # What stands on a host was reached meanwhile.
            name = str(found.graph.get_name()) if found.graph is not None else ""
            return [*self._drawing(name, found), event.as_json()]
        return [event.as_json()]

    def _drawing(self, name: str, found: WatchedGraph | None) -> list[dict[str, Any]]:
        if found is None or found.graph is None or not name:
            return []
        name = NAMELESS if name == "LangGraph" else name
        identity = id(getattr(found.graph, "builder", None) or found.graph)
        if self._drawn.get(name) == (identity, True):
            return []
        try:
            drawing: Drawing = without_outer_box(drawing_of(found.graph))
        except Exception:
            return []  # A graph that cannot be drawn runs all the same.
        self._drawn[name] = (identity, all(node.note != NOT_REACHED for node in drawing.walk()))
        return [{"graph": name, "drawing": drawing_to_json(drawing)}]
