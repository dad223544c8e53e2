"""One run of a connection: its frames both ways, the credit of its peer, and the memory of what has arrived.

Threads: frames arrive on the I/O thread; a session sends and consumes on any thread. `_lock` guards the credit and the
bytes that are held, and is not held while anything is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from agentmatrix.errors import ProtocolError
from agentmatrix.transport.base import NO_FIELDS, FrameReceiver
from agentmatrix.transport.flow import CreditGrant
from agentmatrix.transport.framing import UNCOUNTED, BulkFields
from agentmatrix.wire.v1.run_pb2 import Frame

if TYPE_CHECKING:
    from agentmatrix.transport.multiplexer import Multiplexer

__all__ = ["CreditedFrame", "MultiplexedStream"]


class MultiplexedStream:
    """The frames of one run in a `Multiplexer`: a `FrameStream`.

    Attributes:
        connection: the number of the multiplexer.
        bytes_in: of the frames that have arrived.
        bytes_out: of the frames that were sent.
        receiver: gets the frames that arrive.
        goes_elsewhere: as of `FrameStream`.
        delivered: whether a frame of the run may have reached the peer.
        delivered_at: bytes of all messages up to the end of the one with its first frame.
        owner: an object to keep alive as long as the run is open.
        partial: a frame whose large fields are arriving.
        partial_since: when the last of them came.
        ended: whether the peer has sent the run's last frame, and expects nothing more.
    """

    __slots__ = (
        *("_credit", "_held", "_lock", "_multiplexer", "_on_cut"),
        *(
            "bytes_in",
            "bytes_out",
            "connection",
            "delivered",
            "delivered_at",
            "ended",
            "goes_elsewhere",
            "owner",
            "partial",
            "partial_since",
            "receiver",
            "run",
        ),
    )

    def __init__(self, multiplexer: Multiplexer, run: int, receiver: FrameReceiver) -> None:
        self._multiplexer = multiplexer
        self.run, self.connection = run, multiplexer.number
        self.receiver = receiver
        self.bytes_in = self.bytes_out = self.delivered_at = 0
        self.delivered = self.ended = False
        self.owner: object = None
        self.goes_elsewhere: Callable[[], bool] | None = None
        self.partial: tuple[BulkFields, int] | None = None
        self.partial_since = 0.0
        self._credit = CreditGrant()
        self._held = 0
        self._on_cut: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def send(self, frame: Frame, large: Mapping[str, Sequence[bytes]] = NO_FIELDS, *, flush: bool = True) -> None:
        frame.run = self.run
        self.bytes_out += self._multiplexer.send(frame, large, flush=flush)

    def flush(self) -> None:
        self._multiplexer.outbox.flush()

    @property
    def room(self) -> int:
        return self._multiplexer.outbox.room(self.run)

    def on_room(self, least: int, call: Callable[[], None]) -> None:
        self._multiplexer.outbox.on_room(self.run, least, call)

    @property
    def is_cut(self) -> bool:
        return self._multiplexer.is_cut

    def on_cut(self, call: Callable[[], None]) -> None:
        with self._lock:
            if not self._multiplexer.is_cut:
                self._on_cut.append(call)
                return
        call()

    def cut(self) -> None:
        """The line is cut: by now the multiplexer says so."""
        with self._lock:
            calls, self._on_cut = self._on_cut, []
        for call in calls:
            call()

    @property
    def downtime(self) -> float:
        return self._multiplexer.downtime

    @property
    def arriving(self) -> tuple[int, int] | None:
        partial = self.partial
        return (partial[0].arrived, partial[0].size) if partial is not None else None

    def reset(self, kind: str, reason: str) -> None:
        self._multiplexer.reset(self.run, kind, reason)

    def close(self) -> None:
        self._multiplexer.close(self.run)

    def arrived(self, frame: Frame, size: int, body: str) -> CreditedFrame | None:
        """Takes a frame of the peer; returns the one that is whole now, for its receiver. On the I/O thread.

        Raises:
            ProtocolError: the peer had no credit for it, or it comes in the middle of another.
            BudgetExceeded: it announces more bytes than this side may hold.
        """
        self.bytes_in += size
        if body in UNCOUNTED:
            if not frame.bulk:
                return CreditedFrame(self, frame, body, 0)
        else:
            with self._lock:
                if not self._credit.receive(size):
                    raise ProtocolError(f"the peer has sent more than the {self._credit.granted:,} bytes of its credit")
            if body == "chunk":
                return self._add_slice(frame, size)
            if self.partial is not None:
                raise ProtocolError("a frame came in the middle of another one's large fields")
            if not frame.bulk:
                return CreditedFrame(self, frame, body, size)
        fields = BulkFields(frame)
        self._multiplexer.hold(fields.size)
        with self._lock:
            self._held += fields.size
            self._credit.announce(fields.size)
        self.partial, self.partial_since = (fields, size), self._multiplexer.clock()
        self.give_credit()
        return None

    def _add_slice(self, frame: Frame, size: int) -> CreditedFrame | None:
        if self.partial is None:
            raise ProtocolError("a slice came of no frame")
        fields, first = self.partial
        self.partial_since = self._multiplexer.clock()
        with self._lock:
            self._credit.consume(size - len(frame.chunk.data))  # the rest was granted when it was announced
        if not fields.add(frame.chunk.data):
            return None
        self.partial = None
        return CreditedFrame(self, fields.frame, fields.body, first, fields.size, fields.values)

    def consumed(self, size: int, bulk: int) -> None:
        """A frame has been consumed. On any thread."""
        with self._lock:
            self._credit.consume(size, bulk)
            held = min(bulk, self._held)  # 0 once the stream is gone
            self._held -= held
            credit = 0 if self.ended else self._credit.due()
        if held:
            self._multiplexer.release(held)
        if credit:
            self._multiplexer.outbox.give_credit(self.run, credit)

    def give_credit(self) -> None:
        """Tells the peer of its credit, when it is due."""
        with self._lock:
            credit = 0 if self.ended else self._credit.due()
        if credit:
            self._multiplexer.outbox.give_credit(self.run, credit)

    def forget(self) -> None:
        """The stream is gone: what is held for it is held no more."""
        with self._lock:
            held, self._held = self._held, 0
        self.partial = self.owner = None
        if held > 0:
            self._multiplexer.release(held)


class CreditedFrame:
    """A frame that has arrived: a `ReceivedFrame`."""

    __slots__ = ("_body", "_bulk", "_large", "_size", "_stream", "frame")

    def __init__(
        self,
        stream: MultiplexedStream,
        frame: Frame,
        body: str,
        size: int,
        bulk: int = 0,
        large: Mapping[str, Sequence[bytes | BytesIO]] = NO_FIELDS,
    ) -> None:
        self.frame, self._body, self._large = frame, body, large
        self._stream: MultiplexedStream | None = stream
        self._size, self._bulk = size, bulk

    def field(self, name: str) -> bytes:
        if name in self._large:
            return b"".join(piece.getbuffer() if isinstance(piece, BytesIO) else piece for piece in self._large[name])
        value: bytes = getattr(getattr(self.frame, self._body), name)
        return value

    def pieces(self, name: str) -> Sequence[bytes | BytesIO]:
        return self._large[name] if name in self._large else [getattr(getattr(self.frame, self._body), name)]

    def release(self) -> None:
        stream, self._stream, self._large = self._stream, None, NO_FIELDS
        if stream is not None and self._size:
            stream.consumed(self._size, self._bulk)
