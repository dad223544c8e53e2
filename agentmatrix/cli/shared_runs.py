"""`agentmatrix serve --share-runs`: an agent of the host that tells of the runs of all callers."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from agentmatrix.event_loop import call_on
from agentmatrix.ui.host_runs import SHARED_RUNS
from agentmatrix.watch.hooks import hook_process
from agentmatrix.watch.run_reporter import RunReporter

if TYPE_CHECKING:
    from agentmatrix import Host

__all__ = ["SharedRuns"]

_MOST_KEPT: Final = 20_000
_MOST_AT_ONCE: Final = 200


class RunsCursor(TypedDict, total=False):
    """What a reader has: the host that has told it, and how many lines."""

    host: str
    after: int


class SharedRuns:
    """Keeps the last lines that tell of the runs of this process, and gives them to callers of its agent."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        # Held for `_lines` and `_count`, which belong together: they are read on another thread.
        self._lock = threading.Lock()
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MOST_KEPT)
        self._count = 0
        self._own: set[str] = set()
        self._readers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._closed = False
        graph = StateGraph(RunsCursor).add_node("follow", self._follow).add_edge(START, "follow")
        self.graph = graph.compile(name=SHARED_RUNS)

    @contextmanager
    def shared(self, host: Host) -> Iterator[None]:
        """Tell of the runs while the host serves."""
        hook_process(RunReporter(self._deliver, "").recorder)
        try:
            yield
        finally:
            hook_process(None)
            self._closed = True
            self._wake()

    def _deliver(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            data = line.get("data") or {}
            if line.get("graph") == SHARED_RUNS or (line.get("kind") == "begin" and data.get("name") == SHARED_RUNS):
                self._own.add(str(line.get("run")))
            elif line.get("run") not in self._own:
                with self._lock:
                    self._lines.append(line)
                    self._count += 1
        self._wake()

    def _wake(self) -> None:
        for event, loop in list(self._readers.items()):
            call_on(loop, event.set)

    async def _follow(self, state: RunsCursor) -> dict[str, Any]:
        write = get_stream_writer()
        seen = state.get("after", 0) if state.get("host") == self._id else 0
        event = asyncio.Event()
        self._readers[event] = asyncio.get_running_loop()
        try:
            while not self._closed:
                event.clear()
                with self._lock:
                    count, lines = self._count, list(self._lines)
                new = lines[-(count - seen) :] if count > seen else []
                for first in range(0, len(new), _MOST_AT_ONCE):
                    several = new[first : first + _MOST_AT_ONCE]
                    write({"host": self._id, "after": count - len(new) + first + len(several), "lines": several})
                seen = count
                await event.wait()
        finally:
            del self._readers[event]
        return {}
