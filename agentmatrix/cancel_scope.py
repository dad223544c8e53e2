"""Cancellation of work in threads.

A thread cannot be stopped, but calls on which it waits (a remote agent, a live run's input) can. Each task of a sync
run works in a `CancelScope`; the code that starts such a call registers what stops it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar

__all__ = ["CancelScope", "current_scope", "is_cancelled_here"]


class CancelScope:
    """Work in a thread that can be cancelled. Thread-safe: callbacks run on the thread that cancels, without a lock.

    Args:
        outer: the scope that this one is part of; cancelling it cancels this one.
    """

    def __init__(self, outer: CancelScope | None = None) -> None:
        self.cancelled = False
        # Held for `cancelled` and `_callbacks` only: a callback may register or remove another one.
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        if outer is not None:
            outer.on_cancel(self.cancel)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` when the scope is cancelled, at once if it already is.

        Returns:
            A function that removes the callback.
        """
        with self._lock:
            if not self.cancelled:
                self._callbacks.append(callback)
                return lambda: self._remove(callback)
        callback()
        return lambda: None

    def cancel(self) -> None:
        """Cancels the work. Idempotent."""
        with self._lock:
            self.cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _remove(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


current_scope: ContextVar[CancelScope | None] = ContextVar("current_scope", default=None)
"""The scope of the work in this context; None outside of any."""


def is_cancelled_here() -> Callable[[], bool] | None:
    """A function that says whether the work in this context has been cancelled; None outside of any scope."""
    scope = current_scope.get()
    return None if scope is None else lambda: scope.cancelled
