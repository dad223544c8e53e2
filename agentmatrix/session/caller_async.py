"""Drives a run on the event loop of the task that called an async verb.

Threads and locks. The I/O thread puts what the host sends into `_queue`, under `_lock`, and wakes the event loop once
for all that comes before the loop looks again. On the loop, a pump task handles events in order, starts a task for each
request, and passes parts and the end on to the consumer: so the host is served also while the consumer holds a part.
The checkpointer's requests have one task, which calls one after the other; a run ends when it has called them all.
Sync methods of proxied objects are called on a few threads of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

from agentmatrix.errors import DeadlineExceeded
from agentmatrix.session.call_spec import CallSpec
from agentmatrix.session.caller import UNWIND_SECONDS, CallerRun
from agentmatrix.session.proxies import is_async_method
from agentmatrix.session.request_threads import RequestThreads
from agentmatrix.transport.base import ReceivedFrame, Transport
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["AsyncCallerRun"]


class AsyncCallerRun(CallerRun):
    """A run that is driven on the event loop of the task that called an async verb."""

    is_async = True

    def __init__(self, transport: Transport, codec: Codec, spec: CallSpec) -> None:
        super().__init__(transport, codec, spec)
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[str, Any]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        """What the loop waits for while the queue is empty."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads = RequestThreads()
        self._for_saver: deque[ReceivedFrame] = deque()
        self._saver_task: asyncio.Task[None] | None = None

    def _enqueue(self, kind: str, item: Any) -> None:
        request = item.frame.request if kind == "request" else None
        if request is not None and not request.pipelined and not is_async_method(request.target, request.method):
            # A sync method was called in a coroutine on the host, whose event loop stands still until the answer comes.
            # That loop may be this one, where both are in one process: so the method cannot wait for it.
            self._threads.call(partial(self._handle_request, item))
            return
        with self._lock:
            self._queue.append((kind, item))
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            try:
                self._loop.call_soon_threadsafe(_wake, waiter)
            except RuntimeError:
                """The loop is closed, and the consumer is gone with it."""

    async def result(self) -> Any:
        """Runs to the end; returns the verb's result or raises as it did. Parts, if any come, are dropped."""
        try:
            self.open(await self._first_frame())
            if self._deadline is None:
                kind, item = await self._handle(self._drop_part)
            else:
                try:
                    async with asyncio.timeout(self._remaining()):
                        kind, item = await self._handle(self._drop_part)
                except TimeoutError:
                    raise self._deadline_exceeded() from None
            if kind == "lost":
                raise item
            return self._result_of(item)
        except BaseException as error:
            if not isinstance(error, DeadlineExceeded):
                await self._unwind()
            raise
        finally:
            self.close()

    async def parts(self) -> AsyncGenerator[Any, None]:
        """Yields the parts of the run."""
        outbox: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        pump: asyncio.Task[None] | None = None
        try:
            self.open(await self._first_frame())
            pump = self._spawn(self._pump(outbox))
            while True:
                kind, item = outbox.get_nowait() if not outbox.empty() else await self._await_next(outbox)
                if kind == "part":
                    for value in self._decode_part(item):
                        yield value
                    self.credit()
                elif kind == "end":
                    self._result_of(item)
                    return
                else:
                    raise item
        except BaseException as error:
            if pump is not None and not isinstance(error, DeadlineExceeded):
                await self._unwind(pump)
            raise
        finally:
            self.close()
            if pump is not None:
                pump.cancel()

    async def _await_next(self, outbox: asyncio.Queue[tuple[str, Any]]) -> tuple[str, Any]:
        if self._deadline is None:
            return await outbox.get()
        try:
            async with asyncio.timeout(self._remaining()):
                return await outbox.get()
        except TimeoutError:
            raise self._deadline_exceeded() from None

    async def _first_frame(self) -> pb.Start:
        start = self._start_frame()
        if (first := self._first_checkpoint()) is not None:
            saver, asked = first
            with contextlib.suppress(Exception):  # the host asks, and is told what the saver raises
                self._send_along(start, saver, asked, await saver.aget_tuple(asked))
        return start

    async def _pump(self, outbox: asyncio.Queue[tuple[str, Any]]) -> None:
        """Handles what the host sends, in order; parts and the end go to the consumer."""
        outbox.put_nowait(await self._handle(lambda part: outbox.put_nowait(("part", part))))

    async def _handle(self, on_part: Callable[[ReceivedFrame], None]) -> tuple[str, Any]:
        """Handles what the host sends, in order, up to the end or the loss of the run, which it returns."""
        try:
            while True:
                kind, item = await self._next()
                if kind == "event":
                    waiting = self._on_event(item)
                    if inspect.isawaitable(waiting):
                        await waiting
                elif kind == "request" and item.frame.request.target in ("saver", "sends"):
                    self._queue_for_saver(item)
                elif kind == "request":
                    self._spawn(self._ahandle_request(item))
                elif kind == "part":
                    on_part(item)
                else:
                    if self._saver_task is not None:
                        await self._saver_task
                    return kind, item
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return "lost", error

    def _queue_for_saver(self, request: ReceivedFrame) -> None:
        """Has methods of the checkpointer, and sends, called one after the other, in the order of their requests."""
        self._for_saver.append(request)
        if self._saver_task is None or self._saver_task.done():
            self._saver_task = self._spawn(self._serve_saver())

    async def _serve_saver(self) -> None:
        while self._for_saver:
            await self._ahandle_request(self._for_saver.popleft())

    def _drop_part(self, part: ReceivedFrame) -> None:
        self._decode_part(part)
        self.credit()

    async def _next(self) -> tuple[str, Any]:
        while True:
            with self._lock:
                if self._queue:
                    return self._queue.popleft()
                # Under the lock, with the queue seen empty: the next item wakes the loop.
                waiter = self._waiter = self._loop.create_future()
            await waiter

    async def _unwind(self, pump: asyncio.Task[None] | None = None) -> None:
        """Stops the run, and serves the host while it unwinds there."""
        with self._lock:
            frame = self.protocol.cancel("the caller left")
            self._send(frame)
        if frame is not None:
            self._end_where_cut()
            serving = pump or self._spawn(self._handle(lambda part: part.release()))
            await asyncio.wait({serving}, timeout=UNWIND_SECONDS)
            serving.cancel()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
