"""The stream of a graph whose reader may be slow: its nodes wait, instead of filling LangGraph's queue.

LangGraph's own queue has no bound. Here a node's thread that writes a part waits while the reader is paused and enough
parts wait for it. The thread that reads never waits: it writes parts as well. Where the graph ends while a node still
writes, nobody reads any more, and LangGraph waits for the node; so the queue lets it go after a second.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any, Final

from langgraph._internal._queue import SyncQueue  # type: ignore[attr-defined]

from agentmatrix.pregel.execution import with_globals

__all__ = ["StreamGate", "bounded_stream"]

_MOST_WAITING: Final = 64
_LOOK_EVERY, _LOOKS = 0.05, 20


class StreamGate:
    """Says whether the reader of a stream is paused. Thread-safe."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.is_paused = self.is_open = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The reader does not read during this `with`."""
        self.is_paused = True
        try:
            yield
        finally:
            with self.changed:
                self.is_paused = False
                self.changed.notify_all()

    def open(self) -> None:
        """Nobody reads any more: nodes write as they like."""
        with self.changed:
            self.is_open = True
            self.changed.notify_all()


class GatedQueue(SyncQueue):  # type: ignore[misc]
    """LangGraph's queue of parts, with a gate for those who write."""

    def __init__(self, gate: StreamGate) -> None:
        super().__init__()
        self._gate, self._reader = gate, threading.get_ident()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item)
        if self.qsize() > _MOST_WAITING and threading.get_ident() != self._reader:
            self._wait()

    def _wait(self) -> None:
        gate, looks = self._gate, 0
        with gate.changed:
            while self.qsize() > _MOST_WAITING and not gate.is_open:
                if gate.is_paused:
                    gate.changed.wait()
                elif not gate.changed.wait(_LOOK_EVERY) and (looks := looks + 1) > _LOOKS:
                    gate.is_open = True

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        if self.qsize() == _MOST_WAITING // 2:
            with self._gate.changed:
                self._gate.changed.notify_all()
        return item


def bounded_stream(graph: Any, gate: StreamGate) -> Callable[..., Iterator[Any]]:
    """The graph's `stream`, whose nodes wait at the gate; as it is for a graph that streams in a way of its own."""
    stream = type(graph).stream
    if not isinstance(stream, FunctionType) or "SyncQueue" not in stream.__globals__:
        own: Callable[..., Iterator[Any]] = graph.stream
        return own
    return partial(with_globals(stream, SyncQueue=partial(GatedQueue, gate)), graph)
