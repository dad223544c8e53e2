"""Work that somebody may give up: a thread cannot be stopped, but what it waits for elsewhere can."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar

__all__ = ["Scope", "current_scope"]


class Scope:
    """A stretch of work in a thread. Thread-safe.

    Args:
        outer: the scope that this one is part of.
    """

    def __init__(self, outer: Scope | None = None) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []
        if outer is not None:
            outer.on_cancel(self.cancel)

    def on_cancel(self, stop: Callable[[], None]) -> Callable[[], None]:
        """Calls `stop` when the work is given up, at once if it was; returns what takes that back."""
        with self._lock:
            if not self.cancelled:
                self._stops.append(stop)
                return lambda: self._forget(stop)
        stop()
        return lambda: None

    def cancel(self) -> None:
        """Gives the work up. Idempotent."""
        with self._lock:
            self.cancelled = True
            stops, self._stops = self._stops, []
        for stop in stops:
            stop()

    def _forget(self, stop: Callable[[], None]) -> None:
        with self._lock:
            if stop in self._stops:
                self._stops.remove(stop)


current_scope: ContextVar[Scope | None] = ContextVar("current_scope", default=None)
"""The scope of the work that runs here."""
