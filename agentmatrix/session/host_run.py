"""The host's side of a run: takes Start, runs the verb of the graph, calls the caller's objects, sends End.

Threads and locks. The I/O thread delivers frames; it takes the run, stops it, completes answers and queues signals, all
of which return at once. Sync verbs run on a worker thread of the host, async verbs as a task on an event loop for user
code. `_lock` guards the protocol machine, and is held until the frame that it made is sent: so frames go out in the
order of the protocol, from whichever thread. It is never held while user code runs.

The order of an end: notifications of the config are sent, End is sent, and only then is the run removed from its host
and its stream closed. The caller ends the run when it has carried out the pipelined requests before End. Whatever user
code raises, SystemExit included, ends its run and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from langgraph.checkpoint.base import BaseCheckpointSaver

from agentmatrix.cancel_scope import CancelScope, current_scope, is_cancelled_here
from agentmatrix.errors import (
    AgentMatrixError,
    HostBusy,
    HostError,
    ProtocolError,
    SignalError,
)
from agentmatrix.live.send_scope import current_send_scope
from agentmatrix.live.signal_router import SIGNAL_ROUTER, node_path
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.node_handler import is_hook_muted
from agentmatrix.pregel.run_control import RunControlProxy, set_drained
from agentmatrix.pregel.token_usage import counting_tokens
from agentmatrix.pregel.written_keys import observed_if_asked
from agentmatrix.session import host_verbs, tracing
from agentmatrix.session.authorization import public_verb
from agentmatrix.session.checkpointer import acall_own_saver, call_own_saver
from agentmatrix.session.config import HostRunConfig
from agentmatrix.session.host_rpc import HostRpc
from agentmatrix.session.host_state import ExportedGraph, HostState, encodable_result
from agentmatrix.session.host_stream import AsyncHostStream, HostStream
from agentmatrix.session.missing_messages import adecode_with_missing, decode_with_missing
from agentmatrix.session.remote_usage import ReportedUsage
from agentmatrix.session.run_limiter import TICKETS
from agentmatrix.session.run_queue import AgentSlot
from agentmatrix.session.run_record import RunRecord
from agentmatrix.session.run_turn import RunTurn
from agentmatrix.session.send_forwarding import SendsProxy
from agentmatrix.session.signal_forwarding import IncomingSignals
from agentmatrix.session.stage_clock import stage_clock
from agentmatrix.session.stop_reasons import CALLER_LOST, DEADLINE, ended_by, outcome_of, reported_failure
from agentmatrix.session.verb_call import VerbCall
from agentmatrix.session.verb_names import is_async_verb
from agentmatrix.transport.base import NO_FIELDS, FrameStream, ReceivedFrame
from agentmatrix.transport.identity import Identity
from agentmatrix.transport.iothread import io_thread
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import encode_failure
from agentmatrix.wire.shared_messages import ReceivedMessages
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["HostRun"]

_NO_CALL: Final = VerbCall()
_NOTHING: Final = contextlib.nullcontext()
_LONGEST_TIMEOUT: Final = 1e8
"""Seconds; a longer timeout is none."""


class HostRun(HostRpc):
    """A run on the host: the `FrameReceiver` of its frames, and the `RpcClient` of its graph's proxies."""

    def __init__(self, frames: FrameStream, host: HostState, caller: str = "", user: Identity | None = None) -> None:
        super().__init__(frames, _failure_codec(tracebacks=host.tracebacks), user, host.answer_timeout, host.linger)
        self.host, self.caller = host, caller
        self._clock = stage_clock("host")
        self.config: HostRunConfig | None = None
        self.control: RunControlProxy | None = None
        self._drained: str | None = None
        self._decoding_drain: Future[None] | None = None
        self._signals: IncomingSignals | None = None
        self._signals_open: tuple[Any, tuple[str, ...], Codec] | None = None
        self.cancelled = False
        self._scope = CancelScope()
        self._stop_reason = ""
        self._refused = self._draining = self._is_watched = self._keeps_messages = False
        self._stream: HostStream | AsyncHostStream | None = None
        self._new_task: asyncio.Task[None] | None = None
        """Keeps the task alive until its first step, where it becomes `_task`."""
        self._task: asyncio.Task[Any] | None = None
        self._loop = host.loop
        self._timer: asyncio.TimerHandle | None = None
        self._place: AgentSlot | None = None
        self._turn: RunTurn | None = None
        self._root: Any = None
        """The graph that was asked for; `_graph` is it, or one inside it."""
        self._graph: Any = None
        self._has_checkpointer, self._call = False, _NO_CALL
        self._limits: list[object] = []
        self.record = RunRecord("", "", "", caller)
        self._messages = ReceivedMessages(frames.connection)
        self._usage: ReportedUsage | None = None

    # FrameReceiver: called on the I/O thread.

    def receive(self, received: ReceivedFrame) -> None:
        frame = received.frame
        try:
            with self._lock:
                kind = self.protocol.receive(frame)
        except AgentMatrixError as error:
            self._end(failure=error)
            self.frames.flush()
            self.stop(str(error))
            return
        if kind == "start":
            self._start(received)
        elif kind == "reply":
            self._requests.answered(received)
        elif kind == "credit" and (stream := self._stream) is not None:
            stream.add_credit()
        elif kind == "cancel":
            self.stop(frame.cancel.reason)
        elif kind == "signal":
            self.record.signals += 1
            self._incoming_signals().receive(received)
        elif kind == "notice" and frame.notice.kind == "drain":
            self._decoding_drain = self.host.services.submit(self._decode_drain, received)
        elif kind == "notice" and frame.notice.kind == "budget":
            self.host.services.submit(self._limit_budget, received)
        elif kind == "notice" and frame.notice.kind == "close":
            self._incoming_signals().close(after=self._decoding_drain)
            received.release()

    def lost(self, error: AgentMatrixError) -> None:
        with self._lock:
            self.protocol.lost()
        self.stop(CALLER_LOST)
        self._requests.fail(error)

    def _start(self, received: ReceivedFrame) -> None:
        start, record = received.frame.start, self.record
        record.agent, record.verb, record.run_id = start.agent, public_verb(start.verb), start.id
        try:
            host_verbs.check_verb(start.verb)
            if not start.timeout >= 0.0:
                raise ProtocolError(f"the timeout of a run is a number of seconds, not {start.timeout}")
            exported = self.host.admit(start, self.user)
            self.host.started.check(self.user, start.id)
            turn = RunTurn(self, functools.partial(self._begin, start, exported), self.host)
            limited = start.agent if start.verb in host_verbs.RUNS else ""
            self._place = turn.enter(limited, self.caller, start.tickets)
        except AgentMatrixError as error:
            self.refuse(error)
            return
        self._turn = turn
        self.host.started.add(self.user, start.id)
        self.codec = exported.codec.with_messages(self._messages, encodes=True)
        self._start_received = received
        self.host.runs.add(self)
        with self._lock:
            self._accepted = self.protocol.accept()
        if 0 < start.timeout < _LONGEST_TIMEOUT:
            self._timer = io_thread().loop.call_later(start.timeout, self.stop, DEADLINE)
        if self._place is not None:
            self._begin(start, exported, self._place)
        else:
            self.host.observers.on_wait(record)
            turn.tell()

    def _begin(self, start: pb.Start, exported: ExportedGraph, place: AgentSlot) -> None:
        self._place, self._turn = place, None
        self.host.observers.on_begin(self.record)
        if exported.is_async_only and start.verb in ("invoke", "stream"):
            start.verb = f"a{start.verb}"
        if is_async_verb(start.verb):
            self._loop = exported.loop(self.host.loop)
            # In an empty context, here and below: nothing of the I/O thread's reaches user code.
            self.host.handover(self._loop).call(self._spawn, start, exported)
        else:
            self.host.workers.submit(contextvars.Context().run, self._run, start, exported)

    def refuse(self, error: BaseException) -> None:
        """Ends a run that has not begun. On the I/O thread."""
        self.record.end("refused" if not self._stop_reason else outcome_of(error, None, self._stop_reason), error)
        self._refused = True
        self._end(failure=error)
        self._close()

    def _spawn(self, start: pb.Start, exported: ExportedGraph) -> None:
        self._new_task = self._loop.create_task(self._arun(start, exported), context=contextvars.Context())

    def _report_usage(self, used: tuple[int, int, int]) -> None:
        self.send_event("usage", self.codec.encode(used, "usage"))

    def _decode_drain(self, received: ReceivedFrame) -> None:
        with contextlib.suppress(AgentMatrixError):  # a reason that is none stops nothing
            (reason,) = self.codec.decode(received.field("arguments"), "reason")
            self._drain(str(reason))
        received.release()

    def _limit_budget(self, received: ReceivedFrame) -> None:
        with contextlib.suppress(AgentMatrixError):  # what is none limits nothing
            limits = self.codec.decode(received.field("arguments"), "budget")
            with self._lock:
                self._limits.append(limits)
                call = self._call
            call.limit_budget(limits)
        received.release()

    def _drain(self, reason: str) -> None:
        with self._lock:
            self._drained = reason
            controls = self.control, self.config.control if self.config else None
        for control in controls:
            if control is not None:
                set_drained(control, reason)

    def drain(self, reason: str) -> None:
        """Stops the run at its next checkpoint; one that has no checkpointer goes on. Thread-safe."""
        if self._has_checkpointer:
            self._draining = True
            self._drain(reason)

    def stop(self, reason: str) -> None:
        """Stops the run: an async one at its next await, a sync one before its next superstep. Thread-safe."""
        if self.cancelled:
            return
        self._stop_reason = reason or "cancelled"
        self.cancelled = True
        self._scope.cancel()
        self._drain(reason)
        with self._lock:
            signals = self._signals
        if signals is not None:
            signals.router.close()
        if (stream := self._stream) is not None:
            stream.stop()
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # the host is gone, and its loop with it
                self._loop.call_soon_threadsafe(self._task.cancel)
        if self._turn is not None and self._turn.leave():
            io_thread().call(self.refuse, HostError("the run was cancelled before it began"))

    def _ack_signal(self, number: int, refused: str) -> None:
        with self._lock:
            self._send(self.protocol.ack_signal(number, refused))

    # The run, on its worker thread or event loop.

    def _run(self, start: pb.Start, exported: ExportedGraph) -> None:
        try:
            self._show_tickets(start)
            with tracing.continued(start.trace) if start.trace else _NOTHING, counting_tokens(self.record.usage):
                result = self._result(start, exported)
            self._check_not_truncated()
            self._end(result=result)
        except BaseException as error:
            self._end(failure=error)
        finally:
            self._close()

    async def _arun(self, start: pb.Start, exported: ExportedGraph) -> None:
        # Only now can `stop` cancel it: a task that is cancelled before its first step would never send End.
        self._task = asyncio.current_task()
        self._is_watched = self._loop is self.host.loop
        if self._is_watched:
            self.host.watch.enter()
        try:
            self._show_tickets(start)
            with tracing.continued(start.trace) if start.trace else _NOTHING, counting_tokens(self.record.usage):
                result = await self._aresult(start, exported)
            self._check_not_truncated()
            self._end(result=result)
        except BaseException as error:
            self._end(failure=error)
        finally:
            self._close()

    def _lap(self, stage: str) -> None:
        if self._clock is not None:
            self._clock.lap(stage)

    def _show_tickets(self, start: pb.Start) -> None:
        """Has what the code of the run calls belong to its tree, in this context."""
        self._lap("admitted, and the run's thread woken")
        # A watcher of the caller's has a recorder among the callbacks: one of this process would tell all twice.
        is_hook_muted.set(True)
        if self._place is not None:
            TICKETS.set(self._place.tickets(start.tickets))

    def _check_not_truncated(self) -> None:
        """Raises where a live run was stopped: that closes its input, and may end it as if all signals had come."""
        if self.cancelled and self._signals is not None and self._signals.live:
            raise HostError("the run was cancelled")

    def _result(self, start: pb.Start, exported: ExportedGraph) -> Any:
        call = decode_with_missing(self._messages, self, lambda: self._unpack(start))
        opened = exported.open(call.run_config, self.host.loop, call.kwargs.get("context"), is_run=call.is_run)
        with call.budget, opened as graph:
            verb = self._prepare(start, graph)
            if start.verb in host_verbs.STREAMS:
                self._stream = stream = HostStream(self, self._graph, start.verb, call.kwargs)
                return stream.send_all(call.args)
            return call_own_saver(self._root, *call.args) if start.verb == "saver" else verb(*call.args, **call.kwargs)

    async def _aresult(self, start: pb.Start, exported: ExportedGraph) -> Any:
        call = await adecode_with_missing(self._messages, self, lambda: self._unpack(start))
        with call.budget:
            if exported.factory is None:
                return await self._acall(start, exported.graph)
            async with exported.aopen(call.run_config, call.kwargs.get("context"), is_run=call.is_run) as graph:
                return await self._acall(start, graph)

    async def _acall(self, start: pb.Start, graph: Any) -> Any:
        verb, call = self._prepare(start, graph), self._call
        if start.verb in host_verbs.STREAMS:
            self._stream = stream = AsyncHostStream(self, self._graph, start.verb, call.kwargs)
            return await stream.send_all(call.args)
        if start.verb == "asaver":
            return await acall_own_saver(self._root, *call.args)
        return await verb(*call.args, **call.kwargs)

    def _unpack(self, start: pb.Start) -> VerbCall:
        self.host.authorization.check(self.user, start.agent, public_verb(start.verb))
        call = VerbCall.unpack(self._start_received, self.codec, self)
        self._keeps_messages = self._messages.keep()
        with self._lock:
            self.control, self.config, self._call = call.control, call.config, call
            drained, limits = self._drained, self._limits
        for limit in limits:
            call.limit_budget(limit)
        if drained is not None:
            self._drain(drained)
        if call.wants_usage:
            self._usage = ReportedUsage(self.record.usage, self._report_usage)
            if call.shares_budget:
                self.record.usage.on_use = self._usage.report
        self.record.name(call.run_config)
        return call

    def _prepare(self, start: pb.Start, graph: Any) -> Any:
        """What is called: the verb of the graph, or of one inside it."""
        call = self._call
        asks_saver = start.verb in ("saver", "asaver")
        self._root = graph = self.host.graph_for(graph, self.user, call.configurable, asks_saver=asks_saver)
        for name in start.path:
            graph = dict(graph.get_subgraphs())[name]
        if call.config is not None:
            # In this context: that of the run's own thread or task.
            current_send_scope.set(SendsProxy(self) if call.forwards_sends else None)
            self._open_signals(graph if call.is_live else None, call.configurable)
            current_scope.set(self._scope)
            graph = observed_if_asked(graph, call.run_config, is_cancelled_here())
        self._graph = graph
        savers = self._root.checkpointer, call.configurable.get(config_keys.CHECKPOINTER)
        self._has_checkpointer = any(isinstance(saver, BaseCheckpointSaver) for saver in savers)
        call.end_with_last_checkpoint(graph, start.verb)
        if self.cancelled:
            raise HostError("the run was cancelled before it began")
        self._lap("config and arguments decoded")
        return None if asks_saver else getattr(graph, start.verb)

    def _open_signals(self, graph: Any, configurable: dict[str, Any]) -> None:
        opened = graph, node_path(configurable.get(config_keys.CHECKPOINT_NS) or ""), self.codec
        with self._lock:
            self._signals_open, signals = opened, self._signals
        if signals is not None:  # some have come already
            signals.open(*opened)
        elif graph is not None:
            signals = self._incoming_signals()
        if graph is not None and signals is not None:
            configurable[SIGNAL_ROUTER] = signals.router

    def _incoming_signals(self) -> IncomingSignals:
        """The signals of the run, which most runs have none of."""
        with self._lock:
            if self._signals is not None:
                return self._signals
            signals = self._signals = IncomingSignals(self.host.services, self._ack_signal)
            opened = self._signals_open
        if self.cancelled:
            signals.router.close()
        if opened is not None:
            signals.open(*opened)
        return signals

    def _end(self, *, result: Any = None, failure: BaseException | None = None) -> None:
        """Sends the last frame, after the last notifications."""
        self._lap("the graph")
        large: Mapping[str, Sequence[bytes]] = NO_FIELDS
        if self.config is not None:
            if self.config.finish is not None:
                self.config.finish()
            if self._usage is not None:
                self._usage.report()
        if failure is None:
            try:
                large = {"result": self.codec.encode_pieces(encodable_result(result), "result")}
            except BaseException as error:
                failure = error
        if self._place is not None:
            self.record.end(outcome_of(failure, result, self._stop_reason), failure)
        broken = None if failure is None else encode_failure(reported_failure(failure, self._stop_reason), self.codec)
        with self._lock:
            try:
                self._send_batch()
                written = None if self.config is None else self.config.written
                by = ended_by(failure, self._stop_reason, refused=self._refused, draining=self._draining)
                end = self.protocol.end(
                    failure=broken, written=written, ended_by=by, keeps_messages=self._keeps_messages
                )
                self._send(end, large)
            except HostBusy as error:
                self.frames.reset("bound", str(error))

    def _close(self) -> None:
        if self._timer is not None:
            io_thread().call(self._timer.cancel)
        self._requests.fail(HostError("the run has ended"))
        if self._signals is not None:
            self._signals.router.end(SignalError("the run has ended"))
        if self._is_watched:
            self.host.watch.leave()
        self.record.bytes_in, self.record.bytes_out = self.frames.bytes_in, self.frames.bytes_out
        self.host.observers.on_end(self.record)  # before a host that drains sees it gone, and ends
        self.host.runs.discard(self)
        if self._place is not None:
            self._place.leave()
        self.frames.close()
        self._forget()
        self.frames.flush()
        self._lap("result encoded, run closed, the I/O thread woken")

    def _forget(self) -> None:
        """Lets go of what refers to the run: else each run is left to the garbage collector, with all that it had."""
        self.config = self.control = self._usage = self._signals = self._turn = self._stream = None
        self._call = _NO_CALL
        self.record.usage.on_use = None


@functools.cache
def _failure_codec(*, tracebacks: bool) -> Codec:
    """What the failure of a run is written with of which no agent is known."""
    return Codec(tracebacks=tracebacks)
