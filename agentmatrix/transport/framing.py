"""Frames to messages and back, free of I/O: coalescing, slicing, fairness, reassembly.

What leaves here is the wire encoding of `Frames`. It is put together from frames that were serialised one by one in the
threads that sent them, since the encoding of a repeated field is the concatenation of its elements.

Any thread may put frames into an `Outbox`; the I/O thread takes messages out of it. Frames are encoded before its lock
is taken, which therefore covers only the moving of references and, in `take`, the choice of what goes next.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from io import BytesIO

from google.protobuf.message import DecodeError as ProtobufDecodeError

from agentmatrix.errors import ProtocolError
from agentmatrix.wire.v1.run_pb2 import Frame, Frames

__all__ = ["CHUNK_BYTES", "MESSAGE_BYTES", "Outbox", "Reassembly", "decode"]

CHUNK_BYTES = 256 * 1024
"""Bytes of a slice; a frame up to this size goes as it is."""

MESSAGE_BYTES = 1024 * 1024
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


_BULK = {
    "start": "arguments",
    "reply": "value",
    "signal": "value",
    "notice": "arguments",
    "part": "value",
    "event": "arguments",
    "request": "arguments",
    "end": "result",
}
"""The field of each body that may be large."""


def _prefix(body: str) -> tuple[str, bytes, bytes]:
    descriptor = Frame.DESCRIPTOR.fields_by_name[body]
    content = descriptor.message_type
    assert content is not None
    field = content.fields_by_name[_BULK[body]]
    return field.name, bytes((descriptor.number << 3 | 2,)), bytes((field.number << 3 | 2,))


_PREFIXES = {body: _prefix(body) for body in _BULK}


def _encode(frame: Frame) -> bytes | deque[bytes | memoryview]:
    """The frame's encoding, whole or in slices."""
    body = frame.WhichOneof("body")
    if body in _PREFIXES:
        name, body_tag, field_tag = _PREFIXES[body]
        content = getattr(frame, body)
        value: bytes = getattr(content, name)
        if len(value) > CHUNK_BYTES:
            # Parsers merge what is said of a message in two places. So a large value need not pass through the
            # serialiser, which takes four times as long as to copy it.
            content.ClearField(name)
            inner = field_tag + _varint(len(value))
            head = frame.SerializeToString() + body_tag + _varint(len(inner) + len(value)) + inner
            return deque((head, *_slices(value)))
    data = frame.SerializeToString()
    return deque(_slices(data)) if len(data) > CHUNK_BYTES else data


def _slices(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))


class _RunQueue:
    """The frames that one run has still to send, encoded; of a frame in slices, the slices that are left."""

    __slots__ = ("frames", "run")

    def __init__(self, run: int) -> None:
        self.run = run
        self.frames: deque[bytes | deque[bytes | memoryview]] = deque()

    def next_small(self) -> bytes | None:
        if self.frames and isinstance(frame := self.frames[0], bytes):
            del self.frames[0]
            return frame
        return None

    def next_slice(self) -> Iterator[bytes | memoryview]:
        slices = self.frames[0]
        assert not isinstance(slices, bytes)
        piece = slices.popleft()
        yield _slice_headers(self.run, len(piece), last=not slices)
        yield piece
        if not slices:
            yield _LAST
            del self.frames[0]


class Outbox:
    """Frames of many runs on their way out, in order within each run. Thread-safe.

    Each message takes all small frames that are waiting and then slices of large ones, run after run, so that a large
    frame delays the others by at most one message, and small frames do not keep a large one for ever.

    Args:
        wake: called, from the thread that sends, when `take` found nothing before and there is something now.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._queues: dict[int, _RunQueue] = {}
        self._small: deque[_RunQueue] = deque()
        self._bulky: deque[_RunQueue] = deque()
        self._waiting = False

    def put(self, frame: Frame) -> None:
        """Adds a frame behind the earlier ones of its run. The frame is used up."""
        run = frame.run
        data = _encode(frame)
        with self._lock:
            queue = self._queues.get(run)
            if queue is None:
                queue = self._queues[run] = _RunQueue(run)
                queue.frames.append(data)
                self._put_back(queue)
            else:
                queue.frames.append(data)
            wake, self._waiting = self._waiting, False  # one wake-up for all frames until the next take
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
        """Drops everything."""
        with self._lock:
            self._queues.clear()
            self._small.clear()
            self._bulky.clear()

    def _take_small(self, parts: list[bytes | memoryview], runs: list[int]) -> int:
        size = 0
        while self._small and size < MESSAGE_BYTES:
            queue = self._small.popleft()
            runs.append(queue.run)
            while size < MESSAGE_BYTES and (frame := queue.next_small()) is not None:
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
            size += CHUNK_BYTES
            if size >= MESSAGE_BYTES:
                return

    def _put_back(self, queue: _RunQueue) -> None:
        if not queue.frames:
            del self._queues[queue.run]
        elif isinstance(queue.frames[0], bytes):
            self._small.append(queue)
        else:
            self._bulky.append(queue)


class Reassembly:
    """The slices of one run's large frame, until it is whole.

    Args:
        limit: bytes of the largest frame to accept.
    """

    __slots__ = ("_limit", "_whole")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._whole = BytesIO()

    def add(self, data: bytes, last: bool) -> Frame | None:
        """The frame, once its last slice is here.

        Raises:
            ProtocolError: it is larger than the limit, or no frame.
        """
        size = self._whole.tell() + len(data)
        if size > self._limit:
            raise ProtocolError(f"a frame is larger than the {self._limit:,} bytes that this side accepts")
        self._whole.write(data)
        if not last:
            return None
        # getvalue hands over the buffer itself, where joining a list would copy all of it.
        whole = self._whole.getvalue()
        self._whole = BytesIO()
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
