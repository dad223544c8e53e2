"""An async context manager that is entered and left by one task of an event loop, for threads that have no loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

__all__ = ["ContextTask"]

T = TypeVar("T")


class ContextTask(Generic[T]):
    """Enters an async context manager on a loop, and leaves it there later.

    By one task: cancel scopes and context variables bind what is entered to the task that does so.

    Args:
        loop: runs in another thread.
        manager: makes the context manager; called on the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, manager: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._loop, self._manager = loop, manager
        self._entered: Future[T] = Future()
        self._left: Future[None] = Future()
        self._leave = asyncio.Event()
        self._exception: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    def enter(self) -> T:
        """What the manager yields. Blocks; not on the loop.

        Raises:
            CancelledError: `leave` was called meanwhile, on another thread.
        """
        self._loop.call_soon_threadsafe(self._start)
        return self._entered.result()

    def leave(self, exception: BaseException | None = None, timeout: float | None = None) -> bool:
        """Leaves the manager, or cancels its entering. Blocks; not on the loop.

        Args:
            exception: to leave it by; None for a plain end.
            timeout: seconds to wait for it.

        Returns:
            Whether the manager has swallowed the exception.

        Raises:
            TimeoutError: it has not ended in time.
            Exception: what the manager raises.
        """
        self._exception = exception
        self._loop.call_soon_threadsafe(self._stop)
        try:
            self._left.result(timeout)
        except BaseException as error:
            if error is exception:
                return False
            raise
        return exception is not None

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run())

    def _stop(self) -> None:
        self._leave.set()
        if self._task is None:
            self._left.set_result(None)
        elif not self._entered.done():
            self._task.cancel()

    async def _run(self) -> None:
        try:
            async with self._manager() as value:
                self._entered.set_result(value)
                await self._leave.wait()
                if self._exception is not None:
                    raise self._exception
        except BaseException as error:
            if not self._entered.done():
                self._entered.set_exception(error)
                self._left.set_result(None)
            else:
                self._left.set_exception(error)
        else:
            self._left.set_result(None)
