"""The caller's side of a run: what its sync and its async driver share.

Threads and locks. The driver (see `caller_sync`, `caller_async`) opens, reads and closes the run, on the thread or the
event loop that called the verb. Frames arrive on the I/O thread, which puts them into the driver's queue: to handle
them there could meet user code. (Acknowledgements of signals alone are passed on there.) A cancellation, a drain or a
signal may come on any thread. `_lock` guards the protocol machine, and is held until the frame that it made is sent: so
frames go out in the order of the protocol. It is never held while user code runs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphBubbleUp, ParentCommand

from agentmatrix.errors import (
    AgentMatrixError,
    BudgetError,
    DeadlineExceeded,
    EncodeError,
    HostBusy,
    HostLost,
    HostUnreachable,
    ProtocolError,
    SignalError,
    Unauthenticated,
)
from agentmatrix.live.send_scope import current_send_scope
from agentmatrix.live.signal_router import SIGNAL_ROUTER, PendingSignal, SignalRouter, node_path
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.checkpoint_order import is_write_awaited
from agentmatrix.pregel.run_control import watch_drain
from agentmatrix.pregel.task_config import declared_targets
from agentmatrix.session import tracing
from agentmatrix.session.call_spec import CallSpec
from agentmatrix.session.config import CallerConfig
from agentmatrix.session.event_encoding import GATHERED
from agentmatrix.session.event_scope import check_command, check_states
from agentmatrix.session.protocol import CallerProtocol, Phase
from agentmatrix.session.proxies import ProxiedObjects
from agentmatrix.session.remote_usage import RunBudget
from agentmatrix.session.run_limiter import TICKETS
from agentmatrix.session.run_loss import with_advice
from agentmatrix.session.saver_scope import LentSaver
from agentmatrix.session.send_forwarding import LentSends
from agentmatrix.session.sent_checkpoint import SentCheckpoint, StartCheckpoint
from agentmatrix.session.signal_forwarding import SignalForwarder
from agentmatrix.session.stage_clock import stage_clock
from agentmatrix.transport.base import NO_FIELDS, FrameStream, ReceivedFrame, Transport
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import decode_failure, encode_failure, raisable
from agentmatrix.wire.shared_messages import SentMessages
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["UNWIND_SECONDS", "CallerRun"]

_CERTAINLY_NOT_BEGUN: Final = (HostUnreachable, HostBusy, Unauthenticated)
UNWIND_SECONDS: Final = 10.0
"""How long a caller that leaves a run goes on serving the host, so that the run can unwind cleanly there."""


class CallerRun:
    """A run on a host. Subclasses drive it: they take from a queue what `_enqueue` puts there."""

    is_async: ClassVar[bool]

    def __init__(self, transport: Transport, codec: Codec, spec: CallSpec) -> None:
        self.transport, self.codec, self.spec = transport, codec, spec
        self._clock = stage_clock("caller")
        self.protocol = CallerProtocol()
        self.objects = ProxiedObjects()
        self.config: CallerConfig | None = None
        self._lock = threading.Lock()
        self._failed_write: BaseException | None = None
        """What a pipelined request has raised first: nobody has been told so far."""
        self._frames: FrameStream | None = None
        self._messages: SentMessages | None = None
        self._arguments: list[bytes] = []
        self._stop_watching_drain: Any = None
        self._signals: SignalRouter | None = None
        self._forwarder: SignalForwarder | None = None
        self._unacked: dict[int, PendingSignal] = {}
        self.ended_by = ""
        """What, if not the graph, has ended the run: "refused" where it has certainly not begun, "lost" where the
        connection broke and it may have, "stopped" and "drained" by its host."""
        self._place = 0
        """In the queue of the host, as it has said last; 0 once it is at work."""
        self.began_from: StartCheckpoint | None = None
        """None where the caller keeps no checkpoints of the run, or where it is not clear which they are."""
        self._raised: deque[BaseException] = deque(maxlen=8)
        """What objects of the caller have raised lately, with tracebacks, which do not cross."""
        self.goes_elsewhere: Callable[[], bool] | None = None
        self._deadline = None if spec.timeout is None else time.monotonic() + spec.timeout

    def open(self, start: pb.Start) -> None:
        """Sends the run's first frame, from `_start_frame`."""
        if self._clock is not None:
            self._clock.lap("config and arguments encoded")
        frame = self.protocol.start(start)
        self._frames = self.transport.open(self)
        self._frames.goes_elsewhere = self.goes_elsewhere
        self._frames.send(frame, {"arguments": self._arguments}, flush=False)
        self._arguments = []
        if self.config is not None and self.config.callbacks is not None:
            self.config.callbacks.follow(self._frames)
        if self.config is not None and self.config.control is not None:
            self._stop_watching_drain = watch_drain(self.config.control, self._drain)
        if self._forwarder is not None and self._signals is not None:
            self._signals.attach(self._forwarder)
        if self.config is not None:
            self.config.usage.follow(self._limit_budget)
        # At last: both threads want the interpreter from here on.
        self._frames.flush()
        if self._clock is not None:
            self._clock.lap("handed to the I/O thread")

    def _start_frame(self) -> pb.Start:
        """The run's first frame.

        Raises:
            EncodeError: an argument or the config cannot be encoded.
        """
        spec = self.spec
        start = pb.Start(
            id=spec.run_id, version=spec.version, agent=spec.agent, path=spec.path, verb=spec.verb,
            timeout=spec.timeout or 0.0,
        )  # fmt: skip
        kwargs = dict(spec.kwargs)
        if spec.config is not None:
            self.config = CallerConfig(
                spec.config, codec=self.codec, is_async=self.is_async, is_run=spec.is_run,
                objects=self.objects, forward=spec.forward, store_prefix=spec.store_prefix,
                agent=f"{self.transport.address}/{spec.agent}", has_memory=spec.has_memory,
            )  # fmt: skip
            packed = self.config.pack()
            if spec.control is not None:
                self.config.control = spec.control
                packed["control"] = {"drained": spec.control.drain_reason}
            if (context := kwargs.pop("context", None)) is not None:
                packed["context"] = self.codec.encode_partly(context, "context", self.config.left_out)
            packed["live"] = self._prepare_forwarding(self.config.configurable)
            packed["sends"] = self._lend_sends(self.config.configurable)
            start.config = self.codec.encode_plain(packed, "config")
            if self.config.left_out:
                self.codec = self.codec.with_left_out(self.config.left_out)
        if trace := tracing.outgoing():
            start.trace.update(trace)
        if tickets := TICKETS.get():
            start.tickets.extend(tickets)
        self._messages = sent = SentMessages(self.transport.connection)
        self.objects.expose("messages", sent)
        self._arguments = self.codec.encode_pieces([[*spec.args], kwargs], "arguments", sent)
        self.codec = self.codec.with_messages(sent, encodes=False)
        return start

    def _first_checkpoint(self) -> tuple[LentSaver, RunnableConfig] | None:
        """The checkpointer and the config of the checkpoint to send with the start; None where there is none."""
        if self.config is None or self.config.saver is None or (asked := self.config.first_checkpoint()) is None:
            return None
        return self.config.saver, asked

    def _send_along(
        self, start: pb.Start, saver: LentSaver, asked: RunnableConfig, found: CheckpointTuple | None
    ) -> None:
        """Puts a checkpoint into the first frame; one that cannot be encoded is an error where the host asks for it."""
        durability = (self.config.configurable if self.config else {}).get(config_keys.DURABILITY)
        if "exit" not in (durability, self.spec.kwargs.get("durability")):
            self.began_from = StartCheckpoint(saver, asked, found)
        with contextlib.suppress(EncodeError):
            start.checkpoint = SentCheckpoint.encode(asked, found, self.codec.for_storage(text=False), self._messages)

    def _prepare_forwarding(self, configurable: dict[str, Any]) -> bool:
        """Prepares to forward signals where the run is part of a live one; returns whether it is."""
        self._signals = configurable.get(SIGNAL_ROUTER) if self.spec.is_run else None
        if self._signals is None:
            return False
        path = node_path(configurable.get(config_keys.CHECKPOINT_NS) or "")
        self._forwarder = SignalForwarder(path, self.codec, self._send_signal, self._close_input)
        return True

    def _lend_sends(self, configurable: dict[str, Any]) -> bool:
        """Lets the host send to the graphs around the run; returns whether there are any."""
        scope = current_send_scope.get() if self.spec.is_run else None
        if scope is None:
            return False
        self.objects.expose("sends", LentSends(scope, configurable.get(config_keys.CHECKPOINT_NS) or ""))
        return True

    def _send(self, frame: pb.Frame | None, large: Mapping[str, Sequence[bytes]] = NO_FIELDS) -> None:
        if frame is not None and self._frames is not None:
            self._frames.send(frame, large)

    def cancel(self, reason: str) -> None:
        """Asks the host to stop the run, which still ends by the End frame, unless the line is cut. Thread-safe."""
        with self._lock:
            frame = self.protocol.cancel(reason)
            self._send(frame)
        if frame is not None:
            self._end_where_cut()

    def _end_where_cut(self) -> None:
        """Has a run that is cancelled end here without the host's End, when the line is cut now or before it comes."""
        if self._frames is not None:
            self._frames.on_cut(lambda: self._enqueue("lost", HostLost(f"the run was cancelled {self._cut_off}")))

    @property
    def _cut_off(self) -> str:
        return f"while the line to the host at {self.transport.address} was cut; it ends there when that notices"

    def credit(self) -> None:
        """Lets the host go on after the parts that the consumer has taken."""
        with self._lock:
            self._send(self.protocol.credit())

    def _drain(self, reason: str) -> None:
        with self._lock:
            self._send(self.protocol.control("drain", self.codec.encode((reason,), "reason")))

    def _limit_budget(self, limits: RunBudget) -> None:
        with self._lock:
            self._send(self.protocol.control("budget", self.codec.encode(limits, "budget")))

    def _send_signal(self, sent: PendingSignal, value: bytes) -> None:
        with self._lock:
            frame = self.protocol.signal(sent.id, sent.address, value)
            if frame is not None:
                self._unacked[frame.signal.number] = sent
            self._send(frame)

    def _close_input(self) -> None:
        with self._lock:
            self._send(self.protocol.control("close", b""))

    def _on_signal_acked(self, taken: pb.Taken) -> None:
        sent = self._unacked.pop(taken.number)
        if not taken.refused:
            sent.acknowledge()
        elif not self.protocol.cancelled:
            # A run that is cancelled refuses its signals; whether another receiver takes them is its parent's to say.
            sent.refuse(SignalError(taken.refused))

    def close(self) -> None:
        """Closes the run's stream and takes back what `open` has registered. Idempotent."""
        if self._signals is not None and self._forwarder is not None:
            self._signals.detach(self._forwarder)
            self._signals = None
        if self._stop_watching_drain is not None:
            self._stop_watching_drain()
            self._stop_watching_drain = None
        with self._lock:
            self.protocol.lost()
        if self.config is not None:
            self.config.usage.close()
        if self.config is not None and self.config.callbacks is not None:
            self.config.callbacks.follow(None)
        if self._frames is not None:
            self._frames.close()

    # FrameReceiver: called on the I/O thread.

    def receive(self, received: ReceivedFrame) -> None:
        try:
            with self._lock:
                kind = self.protocol.receive(received.frame)
            if kind == "event" and received.frame.event.kind == "queue":
                self._note_place(received)
        except AgentMatrixError as error:
            self._enqueue("lost", error)
            return
        if self._clock is not None and kind == "end":
            self._clock.lap("the wire and the host")
        if kind not in ("taken", "ignored", "accepted"):
            self._enqueue(kind, received)
            return
        if kind == "taken":
            self._on_signal_acked(received.frame.taken)
        received.release()

    def _note_place(self, received: ReceivedFrame) -> None:
        args = self.codec.decode(received.field("arguments"), "event queue")
        # One that is none is refused where the event is handled.
        if type(args) is tuple and len(args) == 1 and type(args[0]) is int:
            self._place = args[0]

    def lost(self, error: AgentMatrixError) -> None:
        with self._lock:
            delivered = self.protocol.phase is Phase.ACCEPTED
            was_open = self.protocol.lost()
        if was_open:
            self.ended_by = "refused" if isinstance(error, _CERTAINLY_NOT_BEGUN) else "lost"
            self._enqueue("lost", with_advice(error, delivered, self._place))

    def _enqueue(self, kind: str, item: Any) -> None:
        """Puts something into the driver's queue.

        Args:
            kind: as from `CallerProtocol.receive`, or "lost".
            item: the frame's `ReceivedFrame`, to be released when it is consumed; for "lost", the error.
        """
        raise NotImplementedError

    # For the drivers.

    def _on_event(self, received: ReceivedFrame) -> Any:
        """Notifies an object of the caller; the result may be an awaitable."""
        event = received.frame.event
        args = self.codec.decode(received.field("arguments"), f"event {event.kind}")
        received.release()
        if self.config is None or (event.kind == "queue" and args == (0,)):  # its turn has come
            return None
        if event.kind not in GATHERED:
            return self.config.on_event(event.kind, args)
        for arguments in args if type(args) is tuple else (None,):
            self.config.on_event(event.kind, arguments)
        return None

    def _codec_for(self, request: pb.Request) -> Codec:
        """The codec for the arguments and the answer of a request: what is stored returns to the host as it was."""
        if request.target in ("callback", "messages", "sends"):
            return self.codec
        return self.codec.for_storage(text=request.target == "store")

    def _reply(self, request: pb.Request, value: Any, failure: BaseException | None) -> None:
        if request.pipelined:
            self._failed_write = self._failed_write or failure
            return
        reply = pb.Reply(id=request.id, value=b"")
        large: Mapping[str, Sequence[bytes]] = NO_FIELDS
        if failure is None:
            try:
                large = {"value": self._codec_for(request).encode_pieces(value, "reply")}
            except EncodeError as error:
                failure = error
        if failure is not None:
            self._raised.append(failure)
            reply.failure = encode_failure(failure, self.codec)
        with self._lock:
            frame = self.protocol.reply(reply)
            try:
                self._send(frame, large)
            except HostBusy as error:
                self._send(pb.Frame(reply=pb.Reply(id=request.id, failure=encode_failure(error, self.codec))))

    def _handle_request(self, received: ReceivedFrame) -> None:
        value, failure, request = None, None, received.frame.request
        token = is_write_awaited.set(not request.pipelined)
        try:
            arguments = received.pieces("arguments")
            args, kwargs = self._codec_for(request).decode_pieces(arguments, f"{request.target}.{request.method}")
            value = self.objects.call(request.target, request.method, args, kwargs)
        except BaseException as error:
            failure = error
        finally:
            is_write_awaited.reset(token)
        self._reply(request, value, failure)
        received.release()

    async def _ahandle_request(self, received: ReceivedFrame) -> None:
        value, failure, request = None, None, received.frame.request
        token = is_write_awaited.set(not request.pipelined)
        try:
            arguments = received.pieces("arguments")
            args, kwargs = self._codec_for(request).decode_pieces(arguments, f"{request.target}.{request.method}")
            value = await self.objects.acall(request.target, request.method, args, kwargs)
        except BaseException as error:
            failure = error
        finally:
            is_write_awaited.reset(token)
        self._reply(request, value, failure)
        received.release()

    def _result_of(self, received: ReceivedFrame) -> Any:
        end = received.frame.end
        self.ended_by = end.ended_by
        if end.keeps_messages and self._messages is not None and self._frames is not None:
            self._messages.keep(self._frames.connection)
        if self._clock is not None:
            self._clock.lap("the caller's thread woken")
        if self.config is not None and end.HasField("written"):
            self.config.on_written(end.written.keys)
        if failure := received.field("failure"):
            error = raisable(decode_failure(failure, self.codec))
            if self._failed_write is not None and isinstance(error, GraphBubbleUp):
                raise self._failed_write  # a pause that was not saved is none
            if isinstance(error, ParentCommand):
                self._check_command(error)
            if isinstance(error, BudgetError) and self.config is not None:
                error = self.config.usage.in_words_of_the_caller(error)
            self._restore_traceback(error)
            raise error
        if self._failed_write is not None:
            raise self._failed_write
        result = self.codec.decode_pieces(received.pieces("result"), "result")
        self._check_states(result)
        if self._clock is not None:
            self._clock.lap("result decoded")
        return result

    def _check_states(self, value: object) -> None:
        if self.config is not None and not self.spec.is_run:
            check_states(value, self.config.scope, self.config.configurable.get("thread_id"))

    def _restore_traceback(self, error: BaseException) -> None:
        """Names as the cause what has been raised here, where that is what the run has ended with."""
        if error.__cause__ is None:
            same = (own for own in self._raised if type(own) is type(error) and str(own) == str(error))
            error.__cause__ = next(same, None)

    def _check_command(self, error: ParentCommand) -> None:
        if self.config is None or not self.spec.is_run:
            raise ProtocolError(f"the host sent a command in answer to {self.spec.verb}, which runs nothing")
        check_command(error, self.config.scope, declared_targets(self.config.configurable))

    def _decode_part(self, received: ReceivedFrame) -> tuple[Any, ...]:
        """The part in a tuple of one; an empty tuple for the mark of a superstep's end."""
        data = received.pieces("value")
        value: tuple[Any, ...] = self.codec.decode_pieces(data, "part") if data[0] else ()
        received.release()
        for item in value:
            self._check_states(item)
            if self.spec.kwargs.get("subgraphs") and self.spec.is_run and self.config is not None:
                self.config.events.check_part(_namespace_of(item))
        return value

    def _remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _deadline_exceeded(self) -> DeadlineExceeded:
        """Cancels the run; returns the error to raise."""
        is_cut = self._frames is not None and self._frames.is_cut
        self.cancel("deadline")
        there = "the line is cut, and it ends there by itself" if is_cut else "it has been cancelled there"
        return DeadlineExceeded(
            f"{self.spec.agent!r} at {self.transport.address} did not finish {self.spec.verb} within "
            f"{self.spec.timeout:g} s; {there}. RemoteAgent(timeout=...) sets the limit"
        )


def _namespace_of(part: Any) -> object:
    """The namespace that a part of a stream with subgraphs names."""
    if isinstance(part, dict):
        return part.get("ns")
    return part[0] if isinstance(part, tuple) and part else None
