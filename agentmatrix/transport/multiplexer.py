"""One connection's lanes, free of I/O: messages in, messages out, frames to receivers.

A carrier (gRPC, inproc) feeds it what arrives and writes what `take` gives. Both sides of a connection use the same
class; only a host's accepts runs that it does not know.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from agentmatrix.errors import AgentMatrixError, HostBusy, HostUnreachable, ProtocolError
from agentmatrix.transport.base import Lane, Receiver
from agentmatrix.transport.framing import Outbox, Reassembly, decode
from agentmatrix.wire.v1.run_pb2 import Frame, Reset

__all__ = ["Exchange", "Loss", "OpenLane", "Refusal"]

_logger = logging.getLogger(__name__)

_REMEMBERED = 4096


class Refusal(Exception):
    """Raised by `accept` to turn a new run down. `kind` as in `Reset`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


Accept = Callable[[Lane], Receiver]


class OpenLane:
    """A run's place in an exchange."""

    __slots__ = ("_exchange", "delivered", "owner", "partial", "receiver", "run")

    def __init__(self, exchange: Exchange, run: int, receiver: Receiver) -> None:
        self._exchange = exchange
        self.run = run
        self.receiver = receiver
        self.delivered = False
        self.owner: object = None
        self.partial: Reassembly | None = None

    def send(self, frame: Frame) -> None:
        frame.run = self.run
        self._exchange.send(frame)

    def close(self) -> None:
        self._exchange.forget(self.run)


@dataclass(frozen=True)
class Loss:
    """Why a connection is gone: what runs hear whose frames may have been delivered, and those whose were not."""

    touched: AgentMatrixError
    untouched: AgentMatrixError


class Exchange:
    """The lanes of one connection.

    `open`, `send`, `forget` and `take` may be called from any thread; `feed` and `lose` from the I/O thread only.

    Args:
        wake: called when `take` has something again.
        limit: bytes of the largest frame to accept.
        accept: on a host, makes the receiver of a new run, or raises `Refusal`.
        on_forget: called when a lane is gone, for whatever reason, from any thread.
        peer: what the other side is called in errors.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        limit: int,
        accept: Accept | None = None,
        on_forget: Callable[[], None] | None = None,
        peer: str = "the host",
    ) -> None:
        self._outbox = Outbox(wake)
        self._limit = limit
        self._accept = accept
        self._on_forget = on_forget
        self._peer = peer
        self._lock = threading.Lock()
        self._lanes: dict[int, OpenLane] = {}
        self._unknown: dict[int, Reassembly] = {}
        self._closed: dict[int, None] = {}
        self._lost = False

    def __len__(self) -> int:
        return len(self._lanes)

    def open(self, run: int, receiver: Receiver) -> OpenLane | None:
        """A lane for a new run; None when the connection is lost already."""
        with self._lock:
            if self._lost:
                return None
            lane = self._lanes[run] = OpenLane(self, run, receiver)
            return lane

    def send(self, frame: Frame) -> None:
        if frame.run in self._lanes:
            self._outbox.put(frame)

    def forget(self, run: int) -> None:
        with self._lock:
            lane = self._lanes.pop(run, None)
            if lane is None:
                return
            self._remember(run)
        lane.partial = lane.owner = None
        if self._on_forget:
            self._on_forget()

    def take(self) -> bytes | None:
        """The next message to write. Its runs count as delivered from here on."""
        taken = self._outbox.take()
        if taken is None:
            return None
        message, runs = taken
        for run in runs:
            lane = self._lanes.get(run)
            if lane is not None:
                lane.delivered = True
        return message

    def feed(self, message: bytes) -> None:
        """Give the frames of a message to their receivers.

        Raises:
            ProtocolError: the message is broken, and so is the connection. A broken frame ends its run alone.
        """
        for frame in decode(message):
            try:
                self._feed(frame)
            except ProtocolError as error:
                self._give_up(frame.run, error)
            except Exception as error:
                _logger.exception("a run failed to take a frame")
                self._give_up(frame.run, ProtocolError(f"a frame could not be taken ({type(error).__name__}: {error})"))

    def lose(self, loss: Loss) -> None:
        """The connection is gone: tell every run. Idempotent."""
        with self._lock:
            self._lost = True
            lanes, self._lanes = self._lanes, {}
            self._unknown.clear()
        self._outbox.clear()
        for lane in lanes.values():
            lane.owner = None
            _tell(lane, loss.touched if lane.delivered else loss.untouched)
            if self._on_forget:
                self._on_forget()

    def silence(self) -> None:
        """Tell nobody anything any more: the interpreter exits, and the threads that still wait end with it."""
        with self._lock:
            self._lost = True
            self._lanes = {}

    def _feed(self, frame: Frame) -> None:
        lane = self._lanes.get(frame.run)
        if lane is None:
            self._feed_unknown(frame)
            return
        body = frame.WhichOneof("body")
        if body == "chunk":
            if lane.partial is None:
                lane.partial = Reassembly(self._limit)
            whole = lane.partial.add(frame.chunk.data, frame.chunk.last)
            if whole is None:
                return
            lane.partial = None
            frame = whole
            frame.run = lane.run
        elif body == "reset":
            self._end(frame.run, _reset_error(frame.reset, self._peer))
            return
        lane.receiver.receive(frame)

    def _feed_unknown(self, frame: Frame) -> None:
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
            self._begin(run, frame)

    def _begin(self, run: int, start: Frame) -> None:
        assert self._accept is not None
        lane = OpenLane(self, run, _Nobody())
        lane.delivered = True
        with self._lock:
            self._lanes[run] = lane
        try:
            lane.receiver = self._accept(lane)
        except Refusal as refusal:
            with self._lock:
                self._lanes.pop(run, None)
            self._reset(run, refusal)
            return
        lane.receiver.receive(start)

    def _end(self, run: int, error: AgentMatrixError) -> None:
        lane = self._lanes.get(run)
        self.forget(run)
        if lane is not None:
            _tell(lane, error)

    def _give_up(self, run: int, error: ProtocolError) -> None:
        self._reset(run, Refusal("protocol", str(error)))
        self._end(run, error)

    def _reset(self, run: int, refusal: Refusal) -> None:
        self._unknown.pop(run, None)
        with self._lock:
            self._remember(run)
        self._outbox.put(Frame(run=run, reset=Reset(kind=refusal.kind, reason=str(refusal))))

    def _remember(self, run: int) -> None:
        self._closed[run] = None
        if len(self._closed) > _REMEMBERED:
            del self._closed[next(iter(self._closed))]


class _Nobody:
    """Stands in while the host is still making the receiver of a new run."""

    def receive(self, frame: Frame) -> None:
        pass

    def lost(self, error: AgentMatrixError) -> None:
        pass


def _tell(lane: OpenLane, error: AgentMatrixError) -> None:
    try:
        lane.receiver.lost(error)
    except Exception:
        _logger.exception("a run failed to hear that it is lost")


def _reset_error(reset: Reset, peer: str) -> AgentMatrixError:
    if reset.kind == "busy":
        return HostBusy(f"{peer} is busy: {reset.reason}")
    if reset.kind == "stopping":
        return HostUnreachable(f"{peer} is stopping and takes no new runs; nothing has been started there")
    return ProtocolError(f"{peer} ended the run: {reset.reason}")
