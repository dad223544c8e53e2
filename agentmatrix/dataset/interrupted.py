"""Ctrl-C and SIGTERM: the first lets the rows under way end, the second ends them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, Protocol, TypeVar

from agentmatrix.event_loop import runner_without_executor_shutdown

__all__ = ["on_interrupt", "run_draining"]

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Drainable(Protocol):
    """What is told to end."""

    def drain(self) -> None:
        """Begin nothing any more."""

    def cancel(self) -> None:
        """End what is under way."""


class _Interrupts:
    """The signals that a run has received, and whom they are for."""

    def __init__(self) -> None:
        self.count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._run: Drainable | None = None

    def receive(self) -> bool:
        """One more signal. Returns whether there is a run to be told of it."""
        self.count += 1
        if self._run is None or self._loop is None:
            return False
        self._loop.call_soon_threadsafe(self._run.drain if self.count == 1 else self._run.cancel)
        return True

    @contextmanager
    def told_to(self, run: Drainable) -> Iterator[None]:
        self._run, self._loop = run, asyncio.get_running_loop()
        if self.count:
            run.drain()
        try:
            yield
        finally:
            self._run = self._loop = None


_interrupts: ContextVar[_Interrupts | None] = ContextVar("interrupts", default=None)


@contextmanager
def on_interrupt(run: Drainable) -> Iterator[None]:
    """Tell a run of signals, where `run_draining` listens to them."""
    interrupts = _interrupts.get()
    if interrupts is None:
        yield
        return
    with interrupts.told_to(run):
        yield


def run_draining(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end, with a loop of its own, and listen to signals meanwhile.

    Raises:
        KeyboardInterrupt: there was a signal before it listened.
    """
    run = _run_in_thread if _loop_runs_here() else _run
    if threading.current_thread() is not threading.main_thread():
        return run(work)
    interrupts = _Interrupts()

    async def listening() -> T:
        _interrupts.set(interrupts)
        return await work()

    def on_signal(*_: object) -> None:
        if not interrupts.receive() and run is _run:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        return run(listening)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with runner_without_executor_shutdown() as loop:
        return loop.run(work())


def _run_in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Where a loop runs in this thread already, as in a notebook."""
    results: list[T] = []
    errors: list[BaseException] = []
    context = copy_context()

    def run() -> None:
        try:
            results.append(_run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=context.run, args=(run,), name="agentmatrix-refine")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
