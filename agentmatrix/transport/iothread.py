"""The one private thread of this process on which all connections live.

Objects of an event loop die with it, and users' loops come and go; so connections belong to no user's loop. Callers
reach the thread through futures and may be synchronous, asynchronous or in a notebook.

No user code runs here, and nothing that blocks: all runs of the process would wait for it. Worker threads and users'
event loops run the graphs; they hand frames over and are called back.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["AFTER_FORK", "IOThread", "forked", "io_thread", "new_loop"]

from agentmatrix.transport.loop_handover import LoopHandover

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

AFTER_FORK = (
    "this process was forked from one with open connections, and gRPC does not work in it; "
    "start it with multiprocessing's 'spawn' method"
)

_CLOSING = 2.0


class IOThread:
    """An event loop in a daemon thread, stopped in order when the interpreter exits."""

    def __init__(self) -> None:
        self.loop = new_loop()
        self._handover = LoopHandover(self.loop, watches=True)
        self._at_exit: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="agentmatrix-io", daemon=True)
        self._thread.start()
        atexit.register(self._exit, os.getpid())

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is this thread."""
        return threading.get_ident() == self._thread.ident

    def call(self, function: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Has a function called on this thread, from any thread. Does nothing once the interpreter exits."""
        try:
            if self.is_current:
                self.loop.call_soon(function, *args)
            else:
                self._handover.call(function, *args)
        except (RuntimeError, OSError):
            pass

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs a coroutine on this thread, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a task, from this thread, and keeps it alive."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def at_exit(self, close: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Has something closed before the interpreter exits; returns a function that takes this back."""
        self._at_exit.add(close)
        return lambda: self._at_exit.discard(close)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self._handover.close()
        self.loop.close()

    def _exit(self, pid: int) -> None:
        # A daemon thread that still runs while the interpreter is taken down can crash it inside gRPC's C++ code.
        if os.getpid() != pid or not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(lambda: self.task(self._close()))
        self._thread.join(_CLOSING + 1)

    async def _close(self) -> None:
        closing = [asyncio.ensure_future(close()) for close in list(self._at_exit)]
        if closing:
            await asyncio.wait(closing, timeout=_CLOSING)
        ending = self._tasks - {asyncio.current_task()}
        if ending:
            await asyncio.wait(ending, timeout=_CLOSING / 4)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=_CLOSING)
        self.loop.stop()


def new_loop() -> asyncio.AbstractEventLoop:
    """A new event loop: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


_lock = threading.Lock()
_threads: dict[int, IOThread] = {}
_forked = False


def io_thread() -> IOThread:
    """This process's I/O thread, started at the first call. A forked child gets one of its own."""
    pid = os.getpid()
    with _lock:
        if pid not in _threads:
            _threads.clear()
            _threads[pid] = IOThread()
        return _threads[pid]


def forked() -> bool:
    """Whether this process was forked from one that had an I/O thread and gRPC, which cannot work in it then."""
    return _forked


def _after_fork() -> None:
    global _lock, _forked
    _lock = threading.Lock()
    _forked = _forked or (bool(_threads) and "grpc" in sys.modules)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
