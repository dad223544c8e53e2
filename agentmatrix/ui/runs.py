"""The runs of the page: the last ones in memory, all of them as files where there is a folder for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from agentmatrix.ui.page_run import PageRun
from agentmatrix.ui.run_files import RunFiles

__all__ = ["RunStore"]

MOST_RUNS: Final = 50
_MOST_LARGE: Final = 256_000_000
"""Bytes of large items of all runs together."""


class RunStore:
    """The runs, oldest first. Its methods may be called on any thread.

    Args:
        most: how many runs are kept in memory.
        files: where all of them are kept; None for nowhere.
    """

    def __init__(self, most: int = MOST_RUNS, files: RunFiles | None = None) -> None:
        self._most, self._files = most, files
        self.graph_of: Callable[[str], Any] = lambda name: None
        """Gives the graph of a name, for runs that are found again."""
        self.on_drop: Callable[[str], None] = lambda id: None
        """Told of each run that is kept in memory no more."""
        self._runs: dict[str, PageRun] = {}
        self._lock = threading.Lock()
        self._listeners: list[Callable[[str], None]] = []

    def add(self, run: PageRun) -> PageRun:
        """Take a run; the oldest one that is not at work gives way."""
        if self._files is not None:
            self._files.keep(run)
        with self._lock:
            self._runs[run.id] = run
            for id in [id for id, other in self._runs.items() if not other.is_at_work and id != run.id]:
                if len(self._runs) <= self._most:
                    break
                self._runs.pop(id).on_item = None
                self.on_drop(id)
            size = 0
            for other in reversed(self._runs.values()):
                size += other.large_size
                if size > _MOST_LARGE and other is not run:
                    other.forget_large()
        self.changed(run)
        return run

    def get(self, id: str) -> PageRun | None:
        """The run of an id; None where it is kept no more."""
        run = self._runs.get(id)
        if run is None and self._files is not None:
            run = self._files.load(id, self.graph_of, self.changed)
            if run is not None:
                self.add(run)
        return run

    def __iter__(self) -> Iterator[PageRun]:
        return iter(list(self._runs.values()))

    def describe(self) -> list[dict[str, Any]]:
        """What the list says of each, newest first."""
        told = [run.describe() for run in list(self._runs.values())]
        if self._files is not None:
            told += self._files.describe(set(self._runs))
        return sorted(told, key=lambda one: one["started"], reverse=True)

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
