"""Drives a run from the thread, or from the event loop, that called a verb."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final

from agentmatrix.cancel_scope import current_scope
from agentmatrix.errors import DeadlineExceeded
from agentmatrix.session.caller import Call, CallSpec
from agentmatrix.session.proxies import is_async_method
from agentmatrix.transport.base import Transport
from agentmatrix.wire.codec import Codec

__all__ = ["AsyncCall", "SyncCall"]

UNWIND_SECONDS: Final = 10.0
"""How long a caller that gives up goes on serving the host, so that the run can unwind cleanly there."""
UNWIND_SECONDS_OF_A_PERSON: Final = 2.0
"""The same where a thread waits that a person may have stopped: Ctrl-C, a notebook's stop button, a stream left early
(which is what a stream sees of a Ctrl-C in the body of its loop)."""


def _nothing() -> None:
    return None


class SyncCall(Call):
    """Drives a run from the thread that called a sync verb. While the consumer of a stream holds a part, another
    thread serves the host, as langgraph's own workers would go on."""

    is_async = False

    def __init__(self, transport: Transport, codec: Codec, spec: CallSpec) -> None:
        super().__init__(transport, codec, spec)
        self._inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._ready: deque[tuple[str, Any]] = deque()
        self._serving = threading.Lock()
        self._parked = False
        self._substitute: threading.Thread | None = None
        self._context = contextvars.copy_context()

    def _take(self, kind: str, item: Any) -> None:
        self._inbox.put((kind, item))
        if self._parked:
            self._send_substitute()

    def result(self) -> Any:
        """Runs to the end; parts, if any come, are dropped. Returns the verb's result or raises as it did."""
        stream = self.parts()
        try:
            while True:
                next(stream)
        except StopIteration as stop:
            return stop.value

    def parts(self) -> Generator[Any, None, Any]:
        """Yields the parts of the run; its return value is the verb's result."""
        scope, stay = current_scope.get(), _nothing
        try:
            self.open()
            if scope is not None:
                stay = scope.on_cancel(lambda: self.cancel("the work that this is part of was given up"))
            while True:
                kind, item = self._next()
                if kind == "part":
                    for value in self._part(item.part):
                        self._park()
                        try:
                            yield value
                        finally:
                            self._unpark()
                    self.credit()
                elif kind == "end":
                    return self._outcome(item.end)
                else:
                    raise item
        except BaseException as error:
            if not isinstance(error, DeadlineExceeded):
                person = isinstance(error, (KeyboardInterrupt, GeneratorExit))
                self._unwind(UNWIND_SECONDS_OF_A_PERSON if person else UNWIND_SECONDS)
            raise
        finally:
            stay()
            self.close()

    def _next(self) -> tuple[str, Any]:
        """The next part, end or loss; events and requests before it are carried out here."""
        while not self._ready:
            try:
                kind, item = self._inbox.get(timeout=self._remaining())
            except queue.Empty:
                raise self._too_late() from None
            self._handle(kind, item)
        return self._ready.popleft()

    def _handle(self, kind: str, item: Any) -> None:
        if kind == "event":
            self._hear(item.event)
        elif kind == "request":
            self._serve(item.request)
        elif kind != "unparked":
            self._ready.append((kind, item))

    def _unwind(self, seconds: float) -> None:
        """Stops the run, and serves the host while it unwinds."""
        with self._lock:
            frame = self.conversation.cancel("the caller left")
            self._send(frame)
        if frame is None:
            return
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            try:
                kind, item = self._inbox.get(timeout=left)
            except queue.Empty:
                return
            if kind in ("end", "lost"):
                return
            if kind == "request":
                self._serve(item.request)

    def _park(self) -> None:
        self._parked = True
        if not self._inbox.empty():
            self._send_substitute()

    def _unpark(self) -> None:
        self._parked = False
        if self._substitute is not None:
            self._inbox.put(("unparked", None))
        with self._serving:
            self._substitute = None

    def _send_substitute(self) -> None:
        with self._lock:
            if self._substitute is None and self._parked:
                self._substitute = threading.Thread(
                    target=self._context.copy().run,
                    args=(self._substitute_serves,),
                    name="agentmatrix-caller",
                    daemon=True,
                )
                self._substitute.start()

    def _substitute_serves(self) -> None:
        with self._serving:
            while self._parked:
                try:
                    kind, item = self._inbox.get(timeout=0.5)
                except queue.Empty:
                    break
                if kind == "unparked":
                    break
                try:
                    self._handle(kind, item)
                except BaseException as error:
                    self._ready.append(("lost", error))
                    break
        with self._lock:
            self._substitute = None
        if self._parked and not self._inbox.empty():
            self._send_substitute()


class AsyncCall(Call):
    """Drives a run on the event loop of the task that called an async verb."""

    is_async = True

    def __init__(self, transport: Transport, codec: Codec, spec: CallSpec) -> None:
        super().__init__(transport, codec, spec)
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[tuple[str, Any]] = deque()
        self._awake: asyncio.Event = asyncio.Event()
        self._notified = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._context = contextvars.copy_context()
        self._result: Any = None

    def _take(self, kind: str, item: Any) -> None:
        if kind == "request" and not is_async_method(item.request.target, item.request.method):
            # A sync method was called from the host's event loop, which may be this one, waiting: never on the loop.
            threading.Thread(
                target=self._context.copy().run,
                args=(self._serve, item.request),
                name="agentmatrix-caller",
                daemon=True,
            ).start()
            return
        with self._lock:
            self._inbox.append((kind, item))
            if self._notified:
                return
            self._notified = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            """The loop is closed: nobody waits any more."""

    def _wake(self) -> None:
        self._awake.set()

    async def result(self) -> Any:
        """Runs to the end; returns the verb's result or raises as it did."""
        parts = self.parts()
        async for _ in parts:
            """A unary verb has no parts."""
        return self._result

    async def parts(self) -> AsyncGenerator[Any, None]:
        """Yields the parts of the run; the verb's result is then in `result`."""
        outbox: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        pump: asyncio.Task[None] | None = None
        try:
            self.open()
            pump = self._spawn(self._pump(outbox))
            while True:
                try:
                    async with asyncio.timeout(self._remaining()):
                        kind, item = await outbox.get()
                except TimeoutError:
                    raise self._too_late() from None
                if kind == "part":
                    for value in self._part(item.part):
                        yield value
                    self.credit()
                elif kind == "end":
                    self._result = self._outcome(item.end)
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

    async def _pump(self, outbox: asyncio.Queue[tuple[str, Any]]) -> None:
        """Carries out what the host sends, in order; parts and the end go to the consumer."""
        try:
            while True:
                kind, item = await self._next()
                if kind == "event":
                    waiting = self._hear(item.event)
                    if inspect.isawaitable(waiting):
                        await waiting
                elif kind == "request":
                    self._spawn(self._aserve(item.request))
                else:
                    outbox.put_nowait((kind, item))
                    if kind != "part":
                        return
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            outbox.put_nowait(("lost", error))

    async def _next(self) -> tuple[str, Any]:
        while True:
            with self._lock:
                if self._inbox:
                    return self._inbox.popleft()
                self._notified = False
                self._awake.clear()
            await self._awake.wait()

    async def _unwind(self, pump: asyncio.Task[None]) -> None:
        """Stops the run, and serves the host while it unwinds."""
        with self._lock:
            frame = self.conversation.cancel("the caller left")
            self._send(frame)
        if frame is not None:
            await asyncio.wait({pump}, timeout=UNWIND_SECONDS)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
