"""A run as its caller lives it: starts it, serves what it lends, takes parts, hears the end. Sync and async drivers."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.runnables import RunnableConfig

from agentmatrix import pregel
from agentmatrix.errors import AgentMatrixError, DeadlineExceeded, EncodeError
from agentmatrix.session.config import LentConfig
from agentmatrix.session.conversation import CallerConversation
from agentmatrix.session.lending import METHODS, Lent, is_async_method
from agentmatrix.transport.base import Lane, Transport
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.failures import decode_failure, encode_failure
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["AsyncCall", "CallSpec", "SyncCall"]

UNWIND_SECONDS: Final = 10.0
"""How long a caller that gives up goes on serving the host, so that the run can unwind cleanly there."""


@dataclass
class CallSpec:
    """What to do on the host.

    Attributes:
        agent: the name of the exported graph.
        path: nodes from it to the nested graph that is meant.
        verb: the graph's method.
        args: positional arguments without the config.
        kwargs: keyword arguments without the config and without `control`.
        config: the run's config; None when the verb takes none.
        is_run: whether the verb runs nodes.
        control: a run control that the user gave, lent to the host.
        timeout: seconds for the whole run; None is no limit.
        forward: see `LentConfig`.
        store_prefix: see `LentConfig`.
    """

    agent: str
    verb: str
    version: pb.Version
    run_id: str
    path: tuple[str, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    config: RunnableConfig | None = None
    is_run: bool = False
    control: pregel.RunControl | None = None
    timeout: float | None = None
    forward: frozenset[str] | None = None
    store_prefix: tuple[str, ...] | None = None


class _Call:
    """What both drivers share. The conversation is guarded by a lock: frames come on the I/O thread."""

    def __init__(self, transport: Transport, codec: Codec, spec: CallSpec) -> None:
        self.transport, self.codec, self.spec = transport, codec, spec
        self.conversation = CallerConversation()
        self.lent = Lent()
        self.config: LentConfig | None = None
        self._lock = threading.Lock()
        self._lane: Lane | None = None
        self._unwatch: Any = None
        self._deadline = None if spec.timeout is None else time.monotonic() + spec.timeout

    def open(self) -> None:
        """Sends the run's first frame.

        Raises:
            EncodeError: an argument or the config cannot cross; nothing was sent.
        """
        frame = self.conversation.start(self._start())
        self._lane = self.transport.open(self)
        self._lane.send(frame)
        if self.config is not None and self.config.control is not None:
            self._unwatch = pregel.watch_drain(self.config.control, self._drain)

    def _start(self) -> pb.Start:
        spec = self.spec
        start = pb.Start(
            id=spec.run_id, version=spec.version, agent=spec.agent, path=spec.path, verb=spec.verb,
            timeout=spec.timeout or 0.0,
        )  # fmt: skip
        kwargs = dict(spec.kwargs)
        if spec.config is not None:
            self.config = LentConfig(
                spec.config, codec=self.codec, is_async=isinstance(self, AsyncCall), is_run=spec.is_run,
                lent=self.lent, forward=spec.forward, store_prefix=spec.store_prefix,
            )  # fmt: skip
            packed = self.config.pack()
            if spec.control is not None:
                self.config.control = spec.control
                packed["control"] = {"drained": spec.control.drain_reason}
            start.config = self.codec.encode(packed, "config")
        start.arguments = self.codec.encode((spec.args, kwargs), "arguments")
        start.lends.extend(target for target in METHODS if target in self.lent)
        return start

    def _send(self, frame: pb.Frame | None) -> None:
        if frame is not None and self._lane is not None:
            self._lane.send(frame)

    def cancel(self, reason: str) -> None:
        """Asks the host to stop the run; it ends with the End frame all the same."""
        with self._lock:
            self._send(self.conversation.cancel(reason))

    def credit(self) -> None:
        """Lets the host go on after the parts that were taken."""
        with self._lock:
            self._send(self.conversation.credit())

    def _drain(self, reason: str) -> None:
        with self._lock:
            self._send(self.conversation.notice("drain", self.codec.encode((reason,), "reason")))

    def close(self) -> None:
        """Forgets the run. Idempotent."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        with self._lock:
            self.conversation.lost()
        if self._lane is not None:
            self._lane.close()

    # What the transport calls, on its I/O thread.

    def receive(self, frame: pb.Frame) -> None:
        try:
            with self._lock:
                kind = self.conversation.receive(frame)
        except AgentMatrixError as error:
            self._take("lost", error)
            return
        if kind not in ("late", "accepted"):
            self._take(kind, frame)

    def lost(self, error: AgentMatrixError) -> None:
        with self._lock:
            was_open = self.conversation.lost()
        if was_open:
            self._take("lost", error)

    def _take(self, kind: str, item: Any) -> None:
        raise NotImplementedError

    # What the drivers do with what was received.

    def _hear(self, event: pb.Event) -> Any:
        args = self.codec.decode(event.arguments, f"event {event.kind}")
        return None if self.config is None else self.config.hear(event.kind, args)

    def _reply(self, number: int, value: Any, failure: BaseException | None) -> None:
        reply = pb.Reply(id=number)
        if failure is None:
            try:
                reply.value = self.codec.encode(value, "reply")
            except EncodeError as error:
                failure = error
        if failure is not None:
            reply.failure = encode_failure(failure, self.codec)
        with self._lock:
            self._send(self.conversation.reply(reply))

    def _serve(self, request: pb.Request) -> None:
        value, failure = None, None
        try:
            args, kwargs = self.codec.decode(request.arguments, f"{request.target}.{request.method}")
            value = self.lent.serve(request.target, request.method, args, kwargs)
        except BaseException as error:
            failure = error
        self._reply(request.id, value, failure)

    async def _aserve(self, request: pb.Request) -> None:
        value, failure = None, None
        try:
            args, kwargs = self.codec.decode(request.arguments, f"{request.target}.{request.method}")
            value = await self.lent.aserve(request.target, request.method, args, kwargs)
        except BaseException as error:
            failure = error
        self._reply(request.id, value, failure)

    def _outcome(self, end: pb.End) -> Any:
        if end.WhichOneof("outcome") == "failure":
            raise decode_failure(end.failure, self.codec)
        return self.codec.decode(end.result, "result")

    def _part(self, part: pb.Part) -> Any:
        return self.codec.decode(part.value, "part")

    def _remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _too_late(self) -> DeadlineExceeded:
        self.cancel("deadline")
        return DeadlineExceeded(
            f"{self.spec.agent!r} at {self.transport.address} did not finish {self.spec.verb} within "
            f"{self.spec.timeout:g} s; it has been cancelled there. RemoteAgent(timeout=...) sets the limit"
        )


class SyncCall(_Call):
    """Drives a run from the thread that called a sync verb. While the consumer of a stream holds a part, another
    thread serves the host, as langgraph's own workers would go on."""

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

    def parts(self) -> Iterator[Any]:
        """Yields the parts of the run; its return value is the verb's result."""
        try:
            self.open()
            while True:
                kind, item = self._next()
                if kind == "part":
                    value = self._part(item.part)
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
                self._unwind("the caller left")
            raise
        finally:
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
        else:
            self._ready.append((kind, item))

    def _unwind(self, reason: str) -> None:
        """Stops the run, and serves the host while it unwinds."""
        with self._lock:
            frame = self.conversation.cancel(reason)
            self._send(frame)
        if frame is None:
            return
        limit = time.monotonic() + UNWIND_SECONDS
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
                try:
                    self._handle(kind, item)
                except BaseException as error:
                    self._ready.append(("lost", error))
                    break
        with self._lock:
            self._substitute = None
        if self._parked and not self._inbox.empty():
            self._send_substitute()


class AsyncCall(_Call):
    """Drives a run on the event loop of the task that called an async verb."""

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

    async def parts(self) -> AsyncIterator[Any]:
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
                    yield self._part(item.part)
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
