"""The runs of one connection, free of I/O: messages in, messages out, frames to their receivers.

A carrier (gRPC, inproc) passes in each message that arrives and writes what `next_message` gives. Both sides of a
connection use the same class; only a host's accepts runs that it does not know.

Threads and locks. Any thread may send a frame, open or close a stream. Messages arrive, receivers are called and losses
are announced on the I/O thread alone, so a run's frames reach its receiver in order without a lock around the call.
`_lock` guards the tables of streams. It is never held while a receiver or a callback runs, since both may come back
here; the outbox has a lock of its own, and so has the credit of each stream, and none is taken under another.

A connection that is resumable outlives the stream that carries it: `cut` says that the stream is gone, `resume` that
there is another one. In between runs go on, and what they send waits.

Bounds: see `flow`. A peer that breaks one of its run's bounds loses that run; a message that is broken, or a peer that
asks for answers and does not read them, ends the connection.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentmatrix.errors import AgentMatrixError, HostBusy, HostLost, HostUnreachable, ProtocolError, Unauthenticated
from agentmatrix.transport.base import NO_FIELDS, FrameReceiver, FrameStream, ReceivedFrame
from agentmatrix.transport.flow import BudgetExceeded, ByteBudget
from agentmatrix.transport.framing import decode
from agentmatrix.transport.outbox import Outbox
from agentmatrix.transport.stream import MultiplexedStream
from agentmatrix.wire.v1.run_pb2 import Frame, Reset

__all__ = ["ConnectionLoss", "Multiplexer", "RunRejected", "unconnected_stream"]

_logger = logging.getLogger(__name__)

_connections = itertools.count(1)
_MAX_CLOSED = 4096
"""How many closed runs are remembered, so that frames still under way for them start nothing."""
STALLED_SECONDS = 60.0
"""How long a frame may be announced while nothing of it comes."""
MAX_REASON = 1000
"""Characters of a reason that a peer is told: much of it may be the peer's own words."""


class RunRejected(Exception):
    """Raised by `accept` when the host does not take a new run. `kind` as in `Reset`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


Accept = Callable[[FrameStream], FrameReceiver]


@dataclass(frozen=True)
class ConnectionLoss:
    """Why a connection is gone, as its runs are told.

    Attributes:
        after_send: for a run with frames that may have reached the peer.
        before_send: for a run with none.
    """

    after_send: AgentMatrixError
    before_send: AgentMatrixError


class Multiplexer:
    """The streams of one connection.

    `open`, `send`, `close`, `reset` and `next_message` may be called from any thread; `receive_message`, `cut`,
    `resume` and `connection_lost` from the I/O thread only.

    Args:
        wake: called, from the thread that sends, when `next_message` has something again.
        limit: bytes of the largest frame to accept.
        accept: on a host, makes the receiver of a new run, or raises `RunRejected`.
        on_close: called when a stream is gone, for whatever reason, from any thread.
        peer: what the other side is called in errors.
        budget: the bytes that may be held for this connection, in both directions.
        clock: seconds.
        on_refused: called on the I/O thread when the host takes no more runs of this connection.
        is_resumable: whether what is written is kept until the peer has it, so that the connection outlives a cut.

    Attributes:
        number: of the connection; no other one in this process has it.
        outbox: the frames on their way out.
        is_cut: whether there is no line; what is sent waits for one.
        has_disconnected: whether the peer has ended its stream by intention.
        heard: when a message came last, by the clock.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        limit: int,
        accept: Accept | None = None,
        on_close: Callable[[], None] | None = None,
        peer: str = "the host",
        budget: ByteBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_refused: Callable[[], None] | None = None,
        *,
        is_resumable: bool = False,
    ) -> None:
        self._on_refused = on_refused
        self.number = next(_connections)
        self.outbox = Outbox(wake, budget, clock, is_resumable=is_resumable)
        self.is_cut = self.has_disconnected = False
        self.heard = clock()
        self._cut_at = self._downtime = 0.0
        self._sent = 0
        """Bytes of all messages with frames."""
        self._read_in_all: int | None = None
        """How many of them the peer had read when it left; None where it has not said so."""
        self.clock = clock
        self._budget = budget
        self._limit = limit
        self._accept = accept
        self._on_close = on_close
        self._peer = peer
        self._lock = threading.Lock()
        self._streams: dict[int, MultiplexedStream] = {}
        self._closed: dict[int, None] = {}
        self._lost = False

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def downtime(self) -> float:
        """Seconds without a line, in all."""
        return self._downtime + (self.clock() - self._cut_at if self.is_cut else 0.0)

    def cut(self) -> None:
        """The line is gone; another one may come."""
        if not self.is_cut:
            self.is_cut, self._cut_at = True, self.clock()
            for stream in list(self._streams.values()):
                stream.cut()

    def resume(self, received: int) -> None:
        """There is a new line, whose peer has read so many bytes of messages in all.

        Raises:
            ProtocolError: it cannot have.
        """
        self.outbox.resume(received)
        self._downtime, self.is_cut = self.downtime, False
        for stream in list(self._streams.values()):
            stream.partial_since = self.clock()

    def open(self, run: int, receiver: FrameReceiver) -> MultiplexedStream | None:
        """A stream for a new run; None when the connection is lost already."""
        with self._lock:
            if self._lost:
                return None
            stream = self._streams[run] = MultiplexedStream(self, run, receiver)
        self.outbox.open(run)
        return stream

    def send(self, frame: Frame, large: Mapping[str, Sequence[bytes]] = NO_FIELDS, *, flush: bool = True) -> int:
        """Queues a frame; drops it when its run is closed. Returns its size in bytes."""
        return self.outbox.put(frame, large, flush=flush) if frame.run in self._streams else 0

    def close(self, run: int) -> None:
        """Closes a run's stream: frames that arrive are dropped. Idempotent.

        Queued frames still go out. Where the peer has not ended the run, they are dropped but for control frames, and
        the peer is told that the caller has left.
        """
        stream = self._remove(run)
        if stream is None:
            return
        if self._accept is None and stream.delivered and not stream.ended:
            # A host that goes on would wait for credit that nobody gives.
            self._put_reset(run, "closed", "the caller has left the run", keeps_control=True)
        self.outbox.close(run)
        stream.receiver = _NO_RECEIVER

    def reset(self, run: int, kind: str, reason: str, retry_after: float = 0.0) -> None:
        """Gives up a run: what is queued of it is dropped, and the peer is told why."""
        self._remove(run)
        with self._lock:
            self._remember_closed(run)
        self._put_reset(run, kind, reason, retry_after)

    def hold(self, size: int) -> None:
        """Bytes of a frame are to arrive.

        Raises:
            ProtocolError: they are more than a frame may have.
            BudgetExceeded: they are more than may be held.
        """
        if size > self._limit:
            raise ProtocolError(f"a frame is larger than the {self._limit:,} bytes that this side accepts (max_value=)")
        if self._budget is not None:
            self._budget.take(size)

    def release(self, size: int) -> None:
        """Bytes of frames are held no more."""
        if self._budget is not None:
            self._budget.give(size)

    def next_message(self) -> bytes | None:
        """The next message to write; None when there is nothing. Its runs count as delivered from here on."""
        queued = self.outbox.take()
        if queued is None:
            return None
        message, runs = queued
        if runs:
            self._sent += len(message)
        for run in runs:
            stream = self._streams.get(run)
            if stream is not None and not stream.delivered:
                stream.delivered, stream.delivered_at = True, self._sent
        return message

    def receive_message(self, message: bytes) -> None:
        """Gives the frames of a message to their receivers.

        Raises:
            ProtocolError: the message is broken, or the peer does not read, and the connection is to be ended. A broken
                frame ends its run alone.
        """
        content, self.heard = decode(message), self.clock()
        if content.disconnect:
            self.has_disconnected, self._read_in_all = True, content.received
        if content.received or content.frames:
            self.outbox.acknowledged(content.received, len(message) if content.frames else 0)
        for frame, size in content.frames:
            try:
                self._receive(frame, size)
            except ProtocolError as error:
                self._abort(frame.run, "protocol", error)
            except BudgetExceeded as over:
                self._abort(frame.run, "bound", HostBusy(str(over)))
            except Exception as error:
                _logger.exception("a run failed to take a frame")
                failure = ProtocolError(f"a frame could not be taken ({type(error).__name__}: {error})")
                self._abort(frame.run, "protocol", failure)
        if self.outbox.overfull:
            raise ProtocolError("it sends frames and does not read the answers")

    def give_up_stalled(self) -> None:
        """Gives up the runs whose large fields were announced, hold memory, and do not come. On the I/O thread."""
        limit = self.clock() - STALLED_SECONDS
        for stream in list(self._streams.values()):
            if stream.partial is not None and stream.partial_since < limit:
                why = f"a frame was announced, and nothing of it came for {STALLED_SECONDS:g} seconds"
                self._abort(stream.run, "bound", HostBusy(why))

    def end_runs(self, owner: object, loss: ConnectionLoss) -> None:
        """Ends the runs that one owner opened; the others go on. On the I/O thread."""
        self.end_streams([stream for stream in list(self._streams.values()) if stream.owner is owner], loss)

    def going_elsewhere(self) -> list[MultiplexedStream]:
        """The runs that go on at another host if they are lost. On the I/O thread."""
        streams = list(self._streams.values())
        return [stream for stream in streams if stream.goes_elsewhere is not None and stream.goes_elsewhere()]

    def end_streams(self, streams: Sequence[MultiplexedStream], loss: ConnectionLoss) -> None:
        """Ends some of the runs; the others go on. On the I/O thread."""
        for stream in streams:
            if stream.delivered:
                self._put_reset(stream.run, "closed", "the caller has left the run", keeps_control=True)
            self._end(stream.run, loss.after_send if stream.delivered else loss.before_send)
            self.outbox.close(stream.run)

    def connection_lost(self, loss: ConnectionLoss) -> None:
        """Tells every run that the connection is gone. Idempotent."""
        with self._lock:
            # In one step: `open` either put its stream into the table that is emptied here, or returns None.
            self._lost = True
            streams, self._streams = self._streams, {}
        self.outbox.clear()
        for stream in streams.values():
            stream.forget()
            _notify_lost(stream, loss.after_send if self._has_come(stream) else loss.before_send)
            if self._on_close:
                self._on_close()

    def _has_come(self, stream: MultiplexedStream) -> bool:
        """Whether the peer may have got a frame of a run: what it has not read when it leaves it never will."""
        return stream.delivered and (self._read_in_all is None or stream.delivered_at <= self._read_in_all)

    def abandon(self) -> None:
        """Drops all runs without a word to their receivers: the interpreter exits, and waiting threads end with it."""
        with self._lock:
            self._lost = True
            self._streams = {}

    def _receive(self, frame: Frame, size: int) -> None:
        run = frame.run
        if frame.credit_bytes:
            self.outbox.credited(run, frame.credit_bytes)
        body = frame.WhichOneof("body")
        if body is None:
            return  # it gave credit, or has a body that is not known yet
        stream = self._streams.get(run)
        if stream is None:
            self._receive_unknown(frame, size, body)
        elif body == "reset":
            self.outbox.drop(run)
            stream.ended = True
            self._end(run, _reset_error(frame.reset, self._peer))
            if self._on_refused and frame.reset.kind == "refused":
                self._on_refused()
        elif (received := stream.arrived(frame, size, body)) is not None:
            stream.ended = stream.ended or received.frame.HasField("end")
            stream.receiver.receive(received)

    def _receive_unknown(self, frame: Frame, size: int, body: str) -> None:
        run = frame.run
        if body == "reset":
            self.outbox.drop(run)  # the end of a run waits there for credit that will not come
        elif self._accept is None or run in self._closed:
            return
        elif body == "start":
            self._accept_run(run, frame, size)
        else:
            raise ProtocolError(f"a run begins with start, not with {body}")

    def _accept_run(self, run: int, start: Frame, size: int) -> None:
        assert self._accept is not None
        # The stream is in the table before the receiver exists, so that what the run sends at once is not dropped.
        stream = MultiplexedStream(self, run, _NO_RECEIVER)
        stream.delivered = True
        with self._lock:
            self._streams[run] = stream
        self.outbox.open(run)
        try:
            stream.receiver = self._accept(stream)
        except RunRejected as rejected:
            with self._lock:
                self._streams.pop(run, None)  # without on_close: a run that was not admitted is not counted
            self.reset(run, rejected.kind, str(rejected))
            return
        received = stream.arrived(start, size, "start")
        if received is not None:
            stream.receiver.receive(received)

    def _remove(self, run: int) -> MultiplexedStream | None:
        """Takes a stream out of the table."""
        with self._lock:
            stream = self._streams.pop(run, None)
            if stream is None:
                return None
            self._remember_closed(run)
        stream.forget()
        if self._on_close:
            self._on_close()
        return stream

    def _end(self, run: int, error: AgentMatrixError) -> None:
        stream = self._remove(run)
        if stream is not None:
            _notify_lost(stream, error)

    def _abort(self, run: int, kind: str, error: AgentMatrixError) -> None:
        stream = self._streams.get(run)
        self.reset(run, kind, str(error))
        if stream is not None:
            _notify_lost(stream, error)

    def _put_reset(
        self, run: int, kind: str, reason: str, retry_after: float = 0.0, *, keeps_control: bool = False
    ) -> None:
        self.outbox.drop(run, keeps_control=keeps_control)
        if not self._lost:
            self.outbox.put(Frame(run=run, reset=Reset(kind=kind, reason=reason[:MAX_REASON], retry_after=retry_after)))

    def _remember_closed(self, run: int) -> None:
        self._closed[run] = None
        if len(self._closed) > _MAX_CLOSED:
            del self._closed[next(iter(self._closed))]


class _NullReceiver:
    """Placeholder while the host is still making the receiver of a new run, and of one that is closed."""

    def receive(self, received: ReceivedFrame) -> None:
        pass

    def lost(self, error: AgentMatrixError) -> None:
        pass


_NO_RECEIVER: Final = _NullReceiver()


def unconnected_stream(run: int, receiver: FrameReceiver) -> MultiplexedStream:
    """The stream of a run whose host cannot be reached: frames that are sent to it are dropped."""
    return MultiplexedStream(Multiplexer(lambda: None, 0), run, receiver)


def _notify_lost(stream: MultiplexedStream, error: AgentMatrixError) -> None:
    try:
        stream.receiver.lost(error)
    except Exception:
        _logger.exception("the receiver of a lost run failed")
    stream.receiver = _NO_RECEIVER


def _reset_error(reset: Reset, peer: str) -> AgentMatrixError:
    reason = "".join(character if character.isprintable() else " " for character in reset.reason[:MAX_REASON])
    match reset.kind:
        case "busy":
            return HostBusy(f"{peer} is busy: {reason}")
        case "stopping":
            return HostUnreachable(f"{peer} is stopping and takes no new runs; nothing has been started there")
        case "refused":
            return Unauthenticated(f"{peer} refuses this caller now: {reason}")
        case "bound":
            return HostBusy(f"{peer} ended the run: {reason}")
        case "closed":
            return HostLost(f"{peer} has left the run")
    return ProtocolError(f"{peer} ended the run: {reason}")
