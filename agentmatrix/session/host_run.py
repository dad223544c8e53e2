"""A run as its host lives it: takes Start, runs the verb of the graph, asks the caller, ends by a frame.

Sync verbs run in worker threads, async verbs on an event loop for users' code; neither on the I/O thread, which only
moves frames. Whatever user code raises, SystemExit included, ends its run and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final

from langgraph.errors import GraphDrained

from agentmatrix.errors import (
    AgentMatrixError,
    DeadlineExceeded,
    HostError,
    HostLost,
    SignalError,
    VersionMismatch,
)
from agentmatrix.live.inbox import INBOX, path_of
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.run_control import RunControlProxy, set_drained
from agentmatrix.session import tracing
from agentmatrix.session.caller import GO_ON
from agentmatrix.session.config import BorrowedConfig
from agentmatrix.session.exports import Exported, Serving, crossing
from agentmatrix.session.protocol import HostConversation
from agentmatrix.session.proxies import METHODS
from agentmatrix.session.signal_forwarding import Arrivals
from agentmatrix.stream_modes import Steps
from agentmatrix.transport.base import FrameStream
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import decode_failure, encode_failure
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["STOPPING", "ServedRun"]

_UNARY: Final = frozenset(
    {"invoke", "get_state", "bulk_update_state", "clear_cache", "get_graph", "saver", "explain"}
    | {"ainvoke", "aget_state", "abulk_update_state", "aclear_cache", "aget_graph", "asaver", "aexplain"}
)
_STREAMS: Final = frozenset({"stream", "astream", "get_state_history", "aget_state_history"})
_RUNS: Final = frozenset({"invoke", "ainvoke", "stream", "astream"})
STOPPING: Final = "the host is stopping"


class ServedRun:
    """One run on the host: a `FrameReceiver` of its frames and the `Lender` that the graph's stand-ins ask."""

    def __init__(self, frames: FrameStream, serving: Serving) -> None:
        self.frames, self.serving = frames, serving
        self.conversation = HostConversation()
        self.codec = Codec()
        self.config: BorrowedConfig | None = None
        self.control = RunControlProxy(lambda reason: self.tell("drain", reason))
        self.signals = Arrivals(serving.workers, self._answer_signal)
        self.cancelled = threading.Event()
        self._why_stopped = ""
        self._lock = threading.Lock()
        self._posted: deque[tuple[str, str, Future[pb.Reply]]] = deque()
        self._waiting: dict[int, Future[pb.Reply]] = {}
        self._credit = threading.Semaphore(0)
        self._acredit: asyncio.Semaphore | None = None
        self._starting: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop = serving.loop
        self._timer: threading.Timer | None = None
        self._graph: Any = None
        self._verb = ""

    # What the transport calls, on its I/O thread.

    def receive(self, frame: pb.Frame) -> None:
        try:
            with self._lock:
                kind = self.conversation.receive(frame)
        except AgentMatrixError as error:
            self._end(failure=error)
            self.stop(str(error))
            return
        if kind == "start":
            self._begin(frame.start)
        elif kind == "reply":
            with contextlib.suppress(InvalidStateError):  # whoever asked has given up
                self._waiting.pop(frame.reply.id).set_result(frame.reply)
        elif kind == "credit":
            self._go_on()
        elif kind == "cancel":
            self.stop(frame.cancel.reason)
        elif kind == "signal":
            self.signals.receive(frame.signal)
        elif kind == "notice" and frame.notice.kind == "drain":
            self._drain(frame.notice.arguments)
        elif kind == "notice" and frame.notice.kind == "close":
            self.signals.close()

    def lost(self, error: AgentMatrixError) -> None:
        with self._lock:
            self.conversation.lost()
        self.stop(str(error))
        self._refuse_waiting(error)

    def _begin(self, start: pb.Start) -> None:
        try:
            exported = self.serving.find(start)
            if start.verb not in _UNARY and start.verb not in _STREAMS:
                raise VersionMismatch(f"the host does not know the verb {start.verb!r}")
        except AgentMatrixError as error:
            self._end(failure=error)
            return
        self.codec = exported.codec
        self.serving.runs.add(self)
        with self._lock:
            self._send(self.conversation.accept())
        if start.timeout:
            self._timer = threading.Timer(start.timeout, self.stop, ("deadline",))
            self._timer.daemon = True
            self._timer.start()
        if start.verb.startswith("a"):
            self._loop = exported.loop(self.serving.loop)
            self._loop.call_soon_threadsafe(self._spawn, start, exported, context=contextvars.Context())
        else:
            self.serving.workers.submit(contextvars.Context().run, self._run, start, exported)

    def _spawn(self, start: pb.Start, exported: Exported) -> None:
        self._acredit = asyncio.Semaphore(0)
        self._starting = asyncio.get_running_loop().create_task(self._arun(start, exported))

    def _go_on(self) -> None:
        if self._acredit is not None:
            self._loop.call_soon_threadsafe(self._acredit.release)
        else:
            self._credit.release()

    def _drain(self, arguments: bytes) -> None:
        (reason,) = self.codec.decode(arguments, "reason")
        for control in (self.control, self.config.control if self.config else None):
            if control is not None:
                set_drained(control, reason)

    def stop(self, reason: str) -> None:
        """Stops the run: an async one at its next await, a sync one before its next superstep. Thread-safe."""
        if self.cancelled.is_set():
            return
        self._why_stopped = reason
        self.cancelled.set()
        for control in (self.control, self.config.control if self.config else None):
            if control is not None:
                set_drained(control, reason)
        self.signals.inbox.close()
        self._credit.release()
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _answer_signal(self, number: int, refused: str) -> None:
        with self._lock:
            self._send(self.conversation.taken(number, refused))

    def _refuse_waiting(self, error: BaseException) -> None:
        while self._waiting:
            _, future = self._waiting.popitem()
            if not future.done():
                future.set_exception(error)

    # What the graph's stand-ins call.

    def tell(self, kind: str, *args: Any) -> None:
        arguments = self._encode_event(kind, args)
        with self._lock:
            self._send(self.conversation.event(kind, arguments))

    def _encode_event(self, kind: str, args: tuple[Any, ...]) -> bytes:
        try:
            return self.codec.encode(args, f"event {kind}")
        except AgentMatrixError:
            if kind != "callback":
                raise
        group, event, positional, named = args
        shown = tuple(self._shown(value) for value in positional)
        return self.codec.encode((group, event, shown, {k: self._shown(v) for k, v in named.items()}), "callback")

    def _shown(self, value: Any) -> Any:
        """What a callback sees of a value that cannot cross: its text."""
        if self.codec.can_encode(value):
            return value
        if isinstance(value, BaseException):
            return decode_failure(encode_failure(value, self.codec), self.codec)
        if isinstance(value, dict):
            return {key: self._shown(item) for key, item in value.items() if isinstance(key, str)}
        if isinstance(value, list):
            return [self._shown(item) for item in value]
        return repr(value)

    def _request(self, target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[pb.Reply]:
        arguments = self.codec.encode((args, kwargs), f"{target}.{method}")
        future: Future[pb.Reply] = Future()
        with self._lock:
            frame = self.conversation.request(target, method, arguments)
            if frame is None:
                raise HostError("the run has ended; its caller's objects cannot be asked any more")
            self._waiting[frame.request.id] = future
            self._send(frame)
        return future

    def _answer(self, target: str, method: str, reply: pb.Reply) -> Any:
        if reply.WhichOneof("outcome") == "failure":
            raise decode_failure(reply.failure, self.codec)
        return self.codec.decode(reply.value, f"reply of {target}.{method}")

    def ask(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._answer(target, method, self._request(target, method, args, kwargs).result())

    async def aask(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        reply = await asyncio.wrap_future(self._request(target, method, args, kwargs))
        return self._answer(target, method, reply)

    def post(self, target: str, method: str, *args: Any, **kwargs: Any) -> None:
        self._posted.append((target, method, self._request(target, method, args, kwargs)))

    def _settle(self) -> None:
        """Waits for what was posted to be acknowledged; raises what it raised."""
        while self._posted:
            target, method, future = self._posted.popleft()
            self._answer(target, method, future.result())

    async def _asettle(self) -> None:
        while self._posted:
            target, method, future = self._posted.popleft()
            self._answer(target, method, await asyncio.wrap_future(future))

    # The run itself.

    def _run(self, start: pb.Start, exported: Exported) -> None:
        try:
            with tracing.continued(start.trace):
                result = self._result(start, exported)
            self._refuse_cut_off()
            self._settle()
            self._end(result=result)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                self._settle()
            self._end(failure=error)
        finally:
            self._finish()

    async def _arun(self, start: pb.Start, exported: Exported) -> None:
        # From here on: a task that is cancelled before its first step would never say that the run has ended.
        self._task = asyncio.current_task()
        try:
            with tracing.continued(start.trace):
                result = await self._aresult(start, exported)
            self._refuse_cut_off()
            await self._asettle()
            self._end(result=result)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                await self._asettle()
            self._end(failure=error)
        finally:
            self._finish()

    def _refuse_cut_off(self) -> None:
        """Stopping closes the input of a live run, which may end it as if all signals had come."""
        if self.cancelled.is_set() and self.signals.live:
            raise HostError("the run was cancelled")

    def _result(self, start: pb.Start, exported: Exported) -> Any:
        call, args, kwargs = self._prepare(start, exported)
        if start.verb in _STREAMS:
            return self._stream(call, args, kwargs)
        return self._own_saver(exported.graph, *args) if start.verb == "saver" else call(*args, **kwargs)

    async def _aresult(self, start: pb.Start, exported: Exported) -> Any:
        call, args, kwargs = self._prepare(start, exported)
        if start.verb in _STREAMS:
            return await self._astream(call, args, kwargs)
        if start.verb == "asaver":
            return await self._aown_saver(exported.graph, *args)
        return await call(*args, **kwargs)

    def _prepare(self, start: pb.Start, exported: Exported) -> tuple[Any, list[Any], dict[str, Any]]:
        graph: Any = exported.graph
        for name in start.path:
            graph = dict(graph.get_subgraphs())[name]
        self._graph, self._verb = graph, start.verb
        args, kwargs = self.codec.decode(start.arguments, "arguments")
        if start.config:
            packed = self.codec.decode(start.config, "config")
            self.config = BorrowedConfig(packed, self, is_async=start.verb.startswith("a"), is_run=start.verb in _RUNS)
            kwargs["config"] = self.config.config
            self._open_signals(graph if packed.get("live") else None, self.config.config.get("configurable", {}))
            if start.verb in _RUNS and ("control" in packed or config_keys.RUNTIME not in packed["lent"]):
                kwargs["control"] = self.control
                if (reason := packed.get("control", {}).get("drained")) is not None:
                    set_drained(self.control, reason)
        if self.cancelled.is_set():
            raise HostError("the run was cancelled before it began")
        is_verb = start.verb not in ("saver", "asaver")
        return getattr(graph, start.verb) if is_verb else None, list(args), kwargs

    def _open_signals(self, graph: Any, configurable: dict[str, Any]) -> None:
        if graph is not None:
            configurable[INBOX] = self.signals.inbox
        self.signals.open(graph, path_of(configurable.get(config_keys.CHECKPOINT_NS) or ""), self.codec)

    def _stream(self, call: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        sender = _Sender(self, self._steps(kwargs))
        iterator = iter(call(*args, **sender.kwargs(kwargs)))
        try:
            for part in iterator:
                if sender.send(part):
                    self._credit.acquire()
                if self.cancelled.is_set():
                    raise HostError("the run was cancelled")
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    async def _astream(self, call: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        assert self._acredit is not None
        sender = _Sender(self, self._steps(kwargs))
        iterator = aiter(call(*args, **sender.kwargs(kwargs)))
        try:
            async for part in iterator:
                if sender.send(part):
                    await self._acredit.acquire()
        finally:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()

    def _steps(self, kwargs: dict[str, Any]) -> Steps | None:
        """How to follow the supersteps of a stream; None for a history of states."""
        if self._verb not in _RUNS:
            return None
        nested = config_keys.TASK_ID in (kwargs.get("config") or {}).get("configurable", {})
        return Steps(kwargs, "values" if nested else self._graph.stream_mode)

    def send_part(self, part: Any, *, more: bool) -> None:
        """Sends a part, or the mark of a step's end; `more` when the host goes on without a credit."""
        value = b"" if part is None else self.codec.encode((part,), "part")
        with self._lock:
            self._send(self.conversation.part(value, more=more))

    def _own_saver(self, graph: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = _saver_method(graph, method)(*args, **kwargs)
        return list(value) if method == "list" else value

    async def _aown_saver(self, graph: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = _saver_method(graph, method)(*args, **kwargs)
        return [item async for item in value] if method == "alist" else await value

    def _send(self, frame: pb.Frame | None) -> None:
        if frame is not None:
            self.frames.send(frame)

    def _end(self, *, result: Any = None, failure: BaseException | None = None) -> None:
        """Sends the last frame, after everything that the caller must still hear."""
        encoded: bytes | None = None
        if self.config is not None:
            self.config.finish()
        if failure is None:
            try:
                encoded = self.codec.encode(crossing(result), "result")
            except BaseException as error:
                failure = error
        broken = None if failure is None else encode_failure(self._as_stopped(failure), self.codec)
        with self._lock:
            self._send(self.conversation.end(result=encoded, failure=broken))

    def _as_stopped(self, failure: BaseException) -> BaseException:
        """The failure that the caller is told: why the run was stopped, where that is what ended it."""
        if not self.cancelled.is_set() or not isinstance(failure, (asyncio.CancelledError, GraphDrained, HostError)):
            return failure
        if self._why_stopped == STOPPING:
            return HostLost(
                "the host was stopped in the middle of the run; what its unfinished nodes have done is unknown. "
                + GO_ON
            )
        if self._why_stopped == "deadline":
            return DeadlineExceeded("the run took longer than its timeout; it has been cancelled on the host")
        return failure

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._refuse_waiting(HostError("the run has ended"))
        self.signals.inbox.end(SignalError("the run has ended"))
        self.serving.runs.discard(self)
        self.frames.close()


class _Sender:
    """Sends the parts of a stream, and tells when to wait for the caller."""

    def __init__(self, run: ServedRun, steps: Steps | None) -> None:
        self.run, self.steps = run, steps
        self._untaken = False

    def kwargs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments to stream with."""
        return kwargs if self.steps is None else self.steps.parts.widened

    def send(self, part: Any) -> bool:
        """Sends a part; returns whether to wait for a credit before the next."""
        if self.steps is None:
            self.run.send_part(part, more=False)
            return True
        part, visible, starts = self.steps.take(part)
        if visible:
            self.run.send_part(part, more=not starts)
            self._untaken = True
        elif starts and self._untaken:
            self.run.send_part(None, more=False)
        if not starts or not self._untaken:
            return False
        self._untaken = False
        return True


def _saver_method(graph: Any, method: str) -> Any:
    saver = getattr(graph, "checkpointer", None)
    if saver in (None, True, False) or method not in METHODS["saver"]:
        raise HostError(f"the agent has no checkpointer of its own to ask for {method}")
    return getattr(saver, method)
