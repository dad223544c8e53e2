"""The runs of one connection, free of I/O: messages in, messages out, frames to their receivers.

A carrier (gRPC, inproc) passes in each message that arrives and writes what `next_message` gives. Both sides of a
connection use the same class; only a host's accepts runs that it does not know.

Threads and locks. Any thread may send a frame, open or close a stream. Messages arrive, receivers are called and losses
are announced on the I/O thread alone, so a run's frames reach its receiver in order without a lock around the call.
`_lock` guards the tables of streams. It is never held while a receiver or a callback runs, since both may come back
here; the outbox has a lock of its own, and neither is taken under the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from agentmatrix.errors import AgentMatrixError, HostBusy, HostUnreachable, ProtocolError
from agentmatrix.transport.base import FrameReceiver, FrameStream
from agentmatrix.transport.framing import Outbox, Reassembly, decode
from agentmatrix.wire.v1.run_pb2 import Frame, Reset

__all__ = ["ConnectionLoss", "MultiplexedStream", "Multiplexer", "RunRejected", "unconnected_stream"]

_logger = logging.getLogger(__name__)

_MAX_CLOSED = 4096
"""How many closed runs are remembered, so that frames still under way for them start nothing."""


class RunRejected(Exception):
    """Raised by `accept` when the host does not take a new run. `kind` as in `Reset`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


Accept = Callable[[FrameStream], FrameReceiver]


class MultiplexedStream:
    """The frames of one run in a `Multiplexer`: a `FrameStream`.

    Attributes:
        receiver: gets the frames that arrive.
        delivered: whether a frame of the run may have reached the peer.
        owner: an object to keep alive as long as the run is open.
        partial: the slices so far of a large frame that is arriving.
    """

    __slots__ = ("_multiplexer", "delivered", "owner", "partial", "receiver", "run")

    def __init__(self, multiplexer: Multiplexer, run: int, receiver: FrameReceiver) -> None:
        self._multiplexer = multiplexer
        self.run = run
        self.receiver = receiver
        self.delivered = False
        self.owner: object = None
        self.partial: Reassembly | None = None

    def send(self, frame: Frame) -> None:
        frame.run = self.run
        self._multiplexer.send(frame)

    def close(self) -> None:
        self._multiplexer.close(self.run)


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

    `open`, `send`, `close` and `next_message` may be called from any thread; `receive_message` and `connection_lost`
    from the I/O thread only.

    Args:
        wake: called, from the thread that sends, when `next_message` has something again.
        limit: bytes of the largest frame to accept.
        accept: on a host, makes the receiver of a new run, or raises `RunRejected`.
        on_close: called when a stream is gone, for whatever reason, from any thread.
        peer: what the other side is called in errors.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        limit: int,
        accept: Accept | None = None,
        on_close: Callable[[], None] | None = None,
        peer: str = "the host",
    ) -> None:
        self._outbox = Outbox(wake)
        self._limit = limit
        self._accept = accept
        self._on_close = on_close
        self._peer = peer
        self._lock = threading.Lock()
        self._streams: dict[int, MultiplexedStream] = {}
        self._unknown: dict[int, Reassembly] = {}
        self._closed: dict[int, None] = {}
        self._lost = False

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, run: int, receiver: FrameReceiver) -> MultiplexedStream | None:
        """A stream for a new run; None when the connection is lost already."""
        with self._lock:
            if self._lost:
                return None
            stream = self._streams[run] = MultiplexedStream(self, run, receiver)
            return stream

    def send(self, frame: Frame) -> None:
        """Queues a frame; drops it when its run is closed."""
        if frame.run in self._streams:
            self._outbox.put(frame)

    def close(self, run: int) -> None:
        """Closes a run's stream: queued frames still go out, frames that arrive are dropped. Idempotent."""
        with self._lock:
            stream = self._streams.pop(run, None)
            if stream is None:
                return
            self._remember_closed(run)
        stream.partial = stream.owner = None
        if self._on_close:
            self._on_close()

    def next_message(self) -> bytes | None:
        """The next message to write; None when there is nothing. Its runs count as delivered from here on."""
        queued = self._outbox.take()
        if queued is None:
            return None
        message, runs = queued
        for run in runs:
            stream = self._streams.get(run)
            if stream is not None:
                stream.delivered = True
        return message

    def receive_message(self, message: bytes) -> None:
        """Gives the frames of a message to their receivers.

        Raises:
            ProtocolError: the message is broken, and so is the connection. A broken frame ends its run alone.
        """
        for frame in decode(message):
            try:
                self._receive(frame)
            except ProtocolError as error:
                self._abort(frame.run, error)
            except Exception as error:
                _logger.exception("a run failed to take a frame")
                self._abort(frame.run, ProtocolError(f"a frame could not be taken ({type(error).__name__}: {error})"))

    def connection_lost(self, loss: ConnectionLoss) -> None:
        """Tells every run that the connection is gone. Idempotent."""
        with self._lock:
            # In one step: `open` either put its stream into the table that is emptied here, or returns None.
            self._lost = True
            streams, self._streams = self._streams, {}
            self._unknown.clear()
        self._outbox.clear()
        for stream in streams.values():
            stream.owner = None
            _notify_lost(stream, loss.after_send if stream.delivered else loss.before_send)
            if self._on_close:
                self._on_close()

    def abandon(self) -> None:
        """Drops all runs without a word to their receivers: the interpreter exits, and waiting threads end with it."""
        with self._lock:
            self._lost = True
            self._streams = {}

    def _receive(self, frame: Frame) -> None:
        stream = self._streams.get(frame.run)
        if stream is None:
            self._receive_unknown(frame)
            return
        body = frame.WhichOneof("body")
        if body == "chunk":
            if stream.partial is None:
                stream.partial = Reassembly(self._limit)
            whole = stream.partial.add(frame.chunk.data, frame.chunk.last)
            if whole is None:
                return
            stream.partial = None
            frame = whole
            frame.run = stream.run
        elif body == "reset":
            self._end(frame.run, _reset_error(frame.reset, self._peer))
            return
        stream.receiver.receive(frame)

    def _receive_unknown(self, frame: Frame) -> None:
        run = frame.run
        if self._accept is None or run in self._closed:
            return
        if frame.HasField("chunk"):
            partial = self._unknown.setdefault(run, Reassembly(self._limit))
            whole = partial.add(frame.chunk.data, frame.chunk.last)
            if whole is None:
                return
            del self._unknown[run]
            frame = whole
        if frame.HasField("start"):
            self._accept_run(run, frame)

    def _accept_run(self, run: int, start: Frame) -> None:
        assert self._accept is not None
        # The stream is in the table before the receiver exists, so that what the run sends at once is not dropped.
        stream = MultiplexedStream(self, run, _NullReceiver())
        stream.delivered = True
        with self._lock:
            self._streams[run] = stream
        try:
            stream.receiver = self._accept(stream)
        except RunRejected as rejected:
            with self._lock:
                self._streams.pop(run, None)  # without on_close: a run that was not admitted is not counted
            self._reset(run, rejected)
            return
        stream.receiver.receive(start)

    def _end(self, run: int, error: AgentMatrixError) -> None:
        stream = self._streams.get(run)
        self.close(run)
        if stream is not None:
            _notify_lost(stream, error)

    def _abort(self, run: int, error: ProtocolError) -> None:
        self._reset(run, RunRejected("protocol", str(error)))
        self._end(run, error)

    def _reset(self, run: int, rejected: RunRejected) -> None:
        """Tells the peer that this side gives up the run."""
        self._unknown.pop(run, None)
        with self._lock:
            self._remember_closed(run)
        self._outbox.put(Frame(run=run, reset=Reset(kind=rejected.kind, reason=str(rejected))))

    def _remember_closed(self, run: int) -> None:
        self._closed[run] = None
        if len(self._closed) > _MAX_CLOSED:
            del self._closed[next(iter(self._closed))]


class _NullReceiver:
    """Placeholder while the host is still making the receiver of a new run."""

    def receive(self, frame: Frame) -> None:
        pass

    def lost(self, error: AgentMatrixError) -> None:
        pass


def unconnected_stream(run: int, receiver: FrameReceiver) -> MultiplexedStream:
    """The stream of a run whose host cannot be reached: frames that are sent to it are dropped."""
    return MultiplexedStream(Multiplexer(lambda: None, 0), run, receiver)


def _notify_lost(stream: MultiplexedStream, error: AgentMatrixError) -> None:
    try:
        stream.receiver.lost(error)
    except Exception:
        _logger.exception("the receiver of a lost run failed")


def _reset_error(reset: Reset, peer: str) -> AgentMatrixError:
    if reset.kind == "busy":
        return HostBusy(f"{peer} is busy: {reset.reason}")
    if reset.kind == "stopping":
        return HostUnreachable(f"{peer} is stopping and takes no new runs; nothing has been started there")
    return ProtocolError(f"{peer} ended the run: {reset.reason}")
