"""Rows as they are settled, by an iterator: `arefine_as_completed`, and `refine_as_completed` for sync callers.

The names are those of LangChain's `abatch_as_completed` and `batch_as_completed`.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing, suppress
from contextvars import copy_context
from typing import Any, ParamSpec

from agentmatrix.dataset.completed_row import CompletedRow
from agentmatrix.dataset.refinement import arefine
from agentmatrix.dataset.report import Report
from agentmatrix.event_loop import runner_without_executor_shutdown

__all__ = ["arefine_as_completed", "refine_as_completed"]

P = ParamSpec("P")


def _async_iterator(
    function: Callable[P, Coroutine[Any, Any, Report]],
) -> Callable[P, AsyncGenerator[CompletedRow, None]]:
    async def arefine_as_completed(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[CompletedRow, None]:
        """The same as `arefine`; yields each row that this run settles, as soon as it is on disk.

        Rows that earlier runs have settled are not yielded. Nothing runs far ahead of its reader: a row keeps its slot
        until it is taken. Where the iterator is closed the rows under way are ended, and are left.
        """
        rows: asyncio.Queue[CompletedRow] = asyncio.Queue(1)
        given: dict[str, Any] = {"on_row": rows.put}
        run = asyncio.create_task(function(*args, **given, **kwargs))
        try:
            while not (run.done() and rows.empty()):
                row = asyncio.ensure_future(rows.get())
                await asyncio.wait([row, run], return_when=asyncio.FIRST_COMPLETED)
                if row.done():
                    yield row.result()
                else:
                    row.cancel()
            run.result()
        finally:
            run.cancel()
            await asyncio.wait([run])

    arefine_as_completed.__signature__ = _signature(function)  # type: ignore[attr-defined]
    return arefine_as_completed


def _iterator(
    function: Callable[P, AsyncGenerator[CompletedRow, None]],
) -> Callable[P, Generator[CompletedRow, None, None]]:
    def refine_as_completed(*args: P.args, **kwargs: P.kwargs) -> Generator[CompletedRow, None, None]:
        """The same as `arefine_as_completed`, for sync callers. Rows are run in a thread, also between two of them."""
        rows: queue.SimpleQueue[CompletedRow | BaseException | None] = queue.SimpleQueue()
        started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any], asyncio.Semaphore]] = (
            queue.SimpleQueue()
        )

        async def run() -> None:
            taken = asyncio.Semaphore(0)
            task = asyncio.current_task()
            assert task is not None
            started.put((asyncio.get_running_loop(), task, taken))
            async with aclosing(function(*args, **kwargs)) as completed:
                async for row in completed:
                    rows.put(row)
                    await taken.acquire()

        def work() -> None:
            try:
                with runner_without_executor_shutdown() as loop:
                    loop.run(run())
                rows.put(None)
            except BaseException as error:
                rows.put(error)

        thread = threading.Thread(target=copy_context().run, args=(work,), name="agentmatrix-refine")
        thread.start()
        loop, task, taken = started.get()
        try:
            while (row := rows.get()) is not None:
                if isinstance(row, BaseException):
                    raise row
                yield row
                loop.call_soon_threadsafe(taken.release)
        finally:
            with suppress(RuntimeError):  # It is closed where the run has ended.
                loop.call_soon_threadsafe(task.cancel)
            thread.join()

    refine_as_completed.__signature__ = _signature(function)  # type: ignore[attr-defined]
    return refine_as_completed


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """That of the function, without the argument that is ours."""
    signature = inspect.signature(function)
    return signature.replace(
        parameters=[parameter for parameter in signature.parameters.values() if parameter.name != "on_row"],
        return_annotation=inspect.Signature.empty,
    )


arefine_as_completed = _async_iterator(arefine)
refine_as_completed = _iterator(arefine_as_completed)
