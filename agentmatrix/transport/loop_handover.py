"""Hands functions over to an event loop that runs in another thread.

`call_soon_threadsafe` of uvloop wakes the other thread while this one holds the interpreter: the other one begins by
waiting for it. Here the interpreter is let go for the call that wakes, and the loop is woken once for all that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["LoopHandover"]


class LoopHandover:
    """Has functions called on a loop, in an empty context.

    Thread-safe without a lock: `_run` clears the mark before it looks, so a function that comes then wakes it again.

    Args:
        loop: the loop.
        watches: wake it by a file of its own that it watches, where the system has such; for loops that belong to this
            package, since it is watched as long as the loop lives.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, watches: bool) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False
        self._file: int | None = None
        if watches and hasattr(os, "eventfd"):
            loop.call_soon_threadsafe(self._watch, context=contextvars.Context())

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Has a function called. Returns at once.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._waiting.append((function, args))
        if self._woken:
            return
        self._woken = True
        if self._file is not None:
            os.eventfd_write(self._file, 1)
        else:
            self._loop.call_soon_threadsafe(self._run, context=contextvars.Context())

    def close(self) -> None:
        """Gives the file up: the loop ends. On the loop, or after it."""
        file, self._file = self._file, None
        if file is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(file)
            os.close(file)

    def _watch(self) -> None:
        file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop.add_reader(file, self._read, file)
        self._file = file

    def _read(self, file: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(file)
        self._run()

    def _run(self) -> None:
        self._woken = False
        while self._waiting:
            function, args = self._waiting.popleft()
            try:
                function(*args)
            except Exception as error:
                context = {"message": f"{function!r} failed", "exception": error}
                self._loop.call_exception_handler(context)
