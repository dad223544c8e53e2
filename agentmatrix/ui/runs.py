"""The runs of the page: the last ones in memory, all of them as files where there is a folder for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from agentmatrix.ui.page_run import PageRun

__all__ = ["RunStore"]

MOST_RUNS: Final = 50
_MOST_LARGE: Final = 256_000_000
"""Bytes of large items of all runs together."""


class RunStore:
    """The runs, oldest first. Its methods may be called on any thread.

    Args:
        most: how many runs are kept in memory.
    """

    def __init__(self, most: int = MOST_RUNS) -> None:
        self._most = most
        self._runs: dict[str, PageRun] = {}
        self._lock = threading.Lock()
        self._listeners: list[Callable[[str], None]] = []

    def add(self, run: PageRun) -> PageRun:
        """Take a run; the oldest one that is not at work gives way."""
        with self._lock:
            self._runs[run.id] = run
            for id in [id for id, other in self._runs.items() if not other.is_at_work and id != run.id]:
                if len(self._runs) <= self._most:
                    break
                del self._runs[id]
            size = 0
            for other in reversed(self._runs.values()):
                size += other.large_size
                if size > _MOST_LARGE and other is not run:
                    other.forget_large()
        self.changed(run)
        return run

    def get(self, id: str) -> PageRun | None:
        """The run of an id; None where it is kept no more."""
        return self._runs.get(id)

    def __iter__(self) -> Iterator[PageRun]:
        return iter(list(self._runs.values()))

    def describe(self) -> list[dict[str, Any]]:
        """What the list says of each, newest first."""
        return [run.describe() for run in reversed(list(self._runs.values()))]

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Have a function told of each change by the id of the run, on any thread. Returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def changed(self, run: PageRun) -> None:
        """Tell that a run has changed."""
        self.touch(run.id)

    def touch(self, id: str = "") -> None:
        """Tell that something has changed."""
        for listener in list(self._listeners):
            listener(id)
