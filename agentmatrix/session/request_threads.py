"""Threads for the sync methods that a host calls on the objects of an async caller.

Each run has a few of its own: a method may block, and one of another run may be what it waits for. A host that asks for
more than they can do waits; its credit bounds what it may have asked.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["RequestThreads"]

_MOST: Final = 8


class RequestThreads:
    """Calls what is given to it in threads, at most eight, which end when there is nothing to call.

    `_lock` guards the queue and the count of threads.
    """

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._queue: deque[Callable[[], None]] = deque()
        self._threads = 0

    def call(self, work: Callable[[], None]) -> None:
        """Has `work` called in a thread, with the context in which these threads were made. Returns at once."""
        with self._lock:
            self._queue.append(work)
            if self._threads >= _MOST:
                return
            self._threads += 1
        context = self._context.copy()
        threading.Thread(target=context.run, args=(self._run,), name="agentmatrix-caller", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._threads -= 1
                    return
                work = self._queue.popleft()
            work()
