"""Frames to messages and back, free of I/O: coalescing, slicing, fairness, reassembly.

What leaves here is the wire encoding of `Frames`. It is put together from frames that were serialised one by one in the
threads that sent them, since the encoding of a repeated field is the concatenation of its elements.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError as ProtobufDecodeError

from agentmatrix.errors import ProtocolError
from agentmatrix.wire.v1.run_pb2 import Frame, Frames

__all__ = ["CHUNK", "MESSAGE", "Outbox", "Reassembly", "decode"]

CHUNK = 256 * 1024
"""Bytes of a slice; a frame up to this size goes as it is."""

MESSAGE = 1024 * 1024
"""Bytes after which a message is full; it may exceed this by less than one frame or slice."""

_RUN_TAG = Frame.RUN_FIELD_NUMBER << 3 | 1
_CHUNK_TAG = Frame.CHUNK_FIELD_NUMBER << 3 | 2
_FRAMES_TAG = Frames.FRAMES_FIELD_NUMBER << 3 | 2
_RUN = struct.Struct("<BQ")
_LAST = b"\x10\x01"


def _varint(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _slice_headers(run: int, size: int, last: bool) -> bytes:
    """All of an encoded chunk frame that precedes its data; `_LAST` follows the data of the last one."""
    data = b"\x0a" + _varint(size)
    tail = len(_LAST) if last else 0
    chunk = bytes((_CHUNK_TAG,)) + _varint(len(data) + size + tail) + data
    frame = _RUN.pack(_RUN_TAG, run) + chunk
    return bytes((_FRAMES_TAG,)) + _varint(len(frame) + size + tail) + frame


class _Queue:
    """What one run has still to send: serialised frames, the first of which may be partly sent."""

    __slots__ = ("frames", "run", "sent")

    def __init__(self, run: int) -> None:
        self.run = run
        self.frames: deque[bytes] = deque()
        self.sent = 0

    @property
    def bulky(self) -> bool:
        return len(self.frames[0]) > CHUNK

    def next_slice(self) -> Iterator[bytes | memoryview]:
        frame = self.frames[0]
        piece = memoryview(frame)[self.sent : self.sent + CHUNK]
        self.sent += len(piece)
        last = self.sent == len(frame)
        yield _slice_headers(self.run, len(piece), last)
        yield piece
        if last:
            yield _LAST
            self.frames.popleft()
            self.sent = 0


class Outbox:
    """Frames of many runs on their way out, in order within each run. Safe to use from many threads.

    Each message takes all small frames that are waiting and then slices of large ones, run after run, so that a large
    frame delays the others by at most one message, and small frames do not keep a large one for ever.

    Args:
        wake: called, from the thread that sends, when `take` found nothing before and there is something now.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._queues: dict[int, _Queue] = {}
        self._small: deque[_Queue] = deque()
        self._bulky: deque[_Queue] = deque()
        self._waiting = False

    def put(self, frame: Frame) -> None:
        """Add a frame behind the earlier ones of its run."""
        data = frame.SerializeToString()
        run = frame.run
        with self._lock:
            queue = self._queues.get(run)
            if queue is None:
                queue = self._queues[run] = _Queue(run)
                queue.frames.append(data)
                (self._bulky if len(data) > CHUNK else self._small).append(queue)
            else:
                queue.frames.append(data)
            wake, self._waiting = self._waiting, False
        if wake:
            self._wake()

    def take(self) -> tuple[bytes, list[int]] | None:
        """The next message with the runs whose frames are in it; None, and a `wake` to come, when there is nothing."""
        with self._lock:
            if not self._queues:
                self._waiting = True
                return None
            parts: list[bytes | memoryview] = []
            runs: list[int] = []
            self._take_bulky(parts, runs, self._take_small(parts, runs))
        return b"".join(parts), runs

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._queues.clear()
            self._small.clear()
            self._bulky.clear()

    def _take_small(self, parts: list[bytes | memoryview], runs: list[int]) -> int:
        size = 0
        while self._small and size < MESSAGE:
            queue = self._small.popleft()
            runs.append(queue.run)
            while queue.frames and not queue.bulky and size < MESSAGE:
                frame = queue.frames.popleft()
                parts += (bytes((_FRAMES_TAG,)), _varint(len(frame)), frame)
                size += len(frame)
            self._put_back(queue)
        return size

    def _take_bulky(self, parts: list[bytes | memoryview], runs: list[int], size: int) -> None:
        while self._bulky:
            queue = self._bulky.popleft()
            runs.append(queue.run)
            parts += queue.next_slice()
            self._put_back(queue)
            size += CHUNK
            if size >= MESSAGE:
                return

    def _put_back(self, queue: _Queue) -> None:
        if not queue.frames:
            del self._queues[queue.run]
        elif queue.bulky:
            self._bulky.append(queue)
        else:
            self._small.append(queue)


class Reassembly:
    """The slices of one run's large frame, until it is whole.

    Args:
        limit: bytes of the largest frame to accept.
    """

    __slots__ = ("_limit", "_pieces", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, data: bytes, last: bool) -> Frame | None:
        """The frame, once its last slice is here.

        Raises:
            ProtocolError: it is larger than the limit, or no frame.
        """
        self._size += len(data)
        if self._size > self._limit:
            raise ProtocolError(f"a frame is larger than the {self._limit:,} bytes that this side accepts")
        self._pieces.append(data)
        if not last:
            return None
        whole = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        try:
            frame = Frame.FromString(whole)
        except ProtobufDecodeError as error:
            raise ProtocolError("the slices of a frame do not make a frame") from error
        if frame.HasField("chunk"):
            raise ProtocolError("a sliced frame holds a slice again")
        return frame


def decode(message: bytes) -> Iterator[Frame]:
    """The frames and slices of one message, in order.

    Raises:
        ProtocolError: these bytes are no message.
    """
    try:
        return iter(Frames.FromString(message).frames)
    except ProtobufDecodeError as error:
        raise ProtocolError("a message holds no frames") from error
