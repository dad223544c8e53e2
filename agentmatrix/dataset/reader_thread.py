"""A thread that reads the input, so that a slow file or generator blocks no row that is at work."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["ReaderThread", "raisable"]

T = TypeVar("T")


class ReaderThread:
    """Calls functions one after the other in one thread. Nobody waits for the thread: it may hang at a terminal."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """What the function returns, awaited."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="agentmatrix-reader", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            try:
                result: Any = function()
                tell: Any = future.set_result
            except BaseException as error:
                result, tell = raisable(error), future.set_exception
            # The loop may have been closed while the function hung.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: None if future.done() else tell(result))

        self._calls.put(call)
        return await future

    def close(self) -> None:
        """End the thread after the call that it is at."""
        self._calls.put(None)

    def _run(self) -> None:
        while call := self._calls.get():
            call()


def raisable(error: BaseException) -> BaseException:
    """A future takes no StopIteration, and a loop ends at a SystemExit."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    raised = RuntimeError(f"the iterable of rows raised {type(error).__name__}")
    raised.__cause__ = error
    return raised
