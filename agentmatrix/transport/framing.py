"""Frames to messages and back, free of I/O and of state: the encoding of a frame, its large fields in slices.

What leaves here is the wire encoding of `Frames`. It is put together from frames that were serialised one by one in the
threads that sent them, since the encoding of a repeated field is the concatenation of its elements.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError as ProtobufDecodeError

from agentmatrix.errors import ProtocolError
from agentmatrix.transport.base import NO_FIELDS
from agentmatrix.wire.v1.run_pb2 import Bulk, Chunk, Frame, Frames

__all__ = [
    "CHUNK_BYTES",
    "DISCONNECT",
    "FRAMES_OF_A_MESSAGE",
    "UNCOUNTED",
    "BulkFields",
    "EncodedFrame",
    "Message",
    "decode",
    "encode",
    "encoded_credit",
    "encoded_received",
    "encoded_run",
    "encoded_slice",
    "in_message",
    "is_counted",
    "slices",
    "varint",
]

CHUNK_BYTES: Final = 128 * 1024
"""Bytes of a slice; a field up to this size goes in its frame."""
FRAMES_OF_A_MESSAGE: Final = 4096
"""How many frames a message may have: the I/O thread handles them without a pause."""

DISCONNECT: Final = Frames(disconnect=True).SerializeToString()
"""The last message of a side that ends the stream by intention."""

PIECES_OF_A_FRAME: Final = 1024
"""How many pieces the large fields of a frame may come in."""

UNCOUNTED: Final = frozenset({"credit", "cancel", "reset", "resume", None})
"""The bodies of frames that no credit bounds, so that they never wait for one."""

_RUN_TAG: Final = Frame.RUN_FIELD_NUMBER << 3 | 1
_CHUNK_TAG: Final = Frame.CHUNK_FIELD_NUMBER << 3 | 2
_FRAMES_TAG: Final = Frames.FRAMES_FIELD_NUMBER << 3 | 2
_RECEIVED_TAG: Final = Frames.RECEIVED_FIELD_NUMBER << 3
_DISCONNECT_TAG: Final = Frames.DISCONNECT_FIELD_NUMBER << 3
_DATA_TAG: Final = Chunk.DATA_FIELD_NUMBER << 3 | 2
_RUN: Final = struct.Struct("<BQ")
_FRAMES_HEAD: Final = tuple(bytes((_FRAMES_TAG, size)) for size in range(128))
_SHORT_MESSAGE: Final = 1 << 16
"""Bytes of a message that protobuf reads whole; of a longer one slices are not copied."""


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    if number < 1 << 14:
        return bytes((number,)) if number < 128 else bytes((number & 127 | 128, number >> 7))
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_CREDIT_TAG: Final = varint(Frame.CREDIT_BYTES_FIELD_NUMBER << 3)


class EncodedFrame:
    """A frame on its way out.

    Attributes:
        data: its encoding, without its large fields.
        bulk: the large fields.
        counted: whether it needs credit.
        size: about the bytes of memory that it takes.
    """

    __slots__ = ("bulk", "counted", "data", "size")

    def __init__(self, data: bytes, bulk: Sequence[bytes], *, counted: bool) -> None:
        self.data, self.bulk, self.counted = data, bulk, counted
        self.size = len(data) + sum(map(len, bulk)) if bulk else len(data)


def encode(frame: Frame, large: Mapping[str, Sequence[bytes]] = NO_FIELDS) -> EncodedFrame:
    """The encoding of a frame. The frame is used up: large fields are moved out.

    Args:
        frame: the frame.
        large: fields of its body in pieces, which are not in it.
    """
    body = frame.WhichOneof("body")
    bulk: list[bytes] = []
    for name, number in _bytes_fields(body).items():
        content, pieces = getattr(frame, body or ""), large.get(name)
        if pieces is None:
            value: bytes = getattr(content, name)
            if len(value) <= CHUNK_BYTES:
                continue
            content.ClearField(name)
            pieces = (value,)
        elif len(pieces) == 1 and len(pieces[0]) <= CHUNK_BYTES:
            setattr(content, name, pieces[0])
            continue
        content.SetInParent()
        frame.bulk.extend(Bulk(field=number, size=len(piece)) for piece in pieces)
        bulk.extend(pieces)
    return EncodedFrame(frame.SerializeToString(), bulk, counted=body not in UNCOUNTED)


def is_counted(frame: Frame) -> bool:
    """Whether a frame that arrives needs credit."""
    return frame.WhichOneof("body") not in UNCOUNTED


def slices(values: Iterable[bytes]) -> Iterator[memoryview]:
    """Large fields in slices; none holds bytes of two fields."""
    for value in values:
        view = memoryview(value)
        yield from (view[start : start + CHUNK_BYTES] for start in range(0, len(value), CHUNK_BYTES))


def in_message(frame_size: int) -> bytes:
    """What precedes a frame of this size in a message."""
    if frame_size < 1 << 14:
        return (
            _FRAMES_HEAD[frame_size]
            if frame_size < 128
            else bytes((_FRAMES_TAG, frame_size & 127 | 128, frame_size >> 7))
        )
    return bytes((_FRAMES_TAG,)) + varint(frame_size)


def encoded_credit(credit: int) -> bytes:
    """What is added to the encoding of a frame to give the peer credit."""
    return _CREDIT_TAG + varint(credit)


def encoded_received(received: int) -> bytes:
    """What is added to a message to say how much of the peer's has been read."""
    return bytes((_RECEIVED_TAG,)) + varint(received)


def encoded_run(run: int) -> bytes:
    """The encoding of a frame without a body."""
    return _RUN.pack(_RUN_TAG, run)


def encoded_slice(run: int, piece: memoryview) -> bytes:
    """The encoding of a slice's frame up to its data, which follows as it is."""
    data = b"\x0a" + varint(len(piece))
    return _RUN.pack(_RUN_TAG, run) + bytes((_CHUNK_TAG,)) + varint(len(data) + len(piece)) + data


class BulkFields:
    """The large fields of one frame while they arrive.

    Args:
        frame: the frame that announces them.

    Attributes:
        frame: the frame, without them.
        body: the name of its body.
        size: bytes of all of them.
        values: those that are whole, by name, in pieces.

    Raises:
        ProtocolError: the frame has no such fields.
    """

    __slots__ = ("_left", "_pieces", "_whole", "body", "frame", "size", "values")

    def __init__(self, frame: Frame) -> None:
        body = frame.WhichOneof("body")
        known = {number: name for name, number in _bytes_fields(body).items()}
        if len(frame.bulk) > PIECES_OF_A_FRAME:
            raise ProtocolError(f"a frame announces more than {PIECES_OF_A_FRAME:,} large pieces")
        self._pieces = deque((known.get(bulk.field, ""), bulk.size) for bulk in frame.bulk)
        if any(not name or not size for name, size in self._pieces):
            raise ProtocolError(f"a frame of {body or 'no body'} announces large fields that it does not have")
        self.frame, self.body = frame, body or ""
        self.size = sum(size for _, size in self._pieces)
        self.values: dict[str, list[BytesIO]] = {}
        self._left, self._whole = self._pieces[0][1], BytesIO()
        frame.ClearField("bulk")

    @property
    def arrived(self) -> int:
        """How many bytes have come so far."""
        return sum(piece.tell() for pieces in self.values.values() for piece in pieces) + self._whole.tell()

    def add(self, data: bytes | memoryview) -> bool:
        """Adds a slice; returns whether the frame is whole.

        Raises:
            ProtocolError: it is empty, or longer than what is missing of its field.
        """
        self._left -= len(data)
        if not data or self._left < 0:
            raise ProtocolError("a slice of a frame is empty, or longer than was announced")
        self._whole.write(data)
        if self._left:
            return False
        name, _ = self._pieces.popleft()
        # Of a buffer that nobody else has, getvalue copies nothing, and getbuffer may be written to.
        self.values.setdefault(name, []).append(self._whole)
        self._whole = BytesIO()
        if not self._pieces:
            return True
        self._left = self._pieces[0][1]
        return False


@cache
def _bytes_fields(body: str | None) -> Mapping[str, int]:
    """The fields of a body that may be large, with their numbers."""
    content = Frame.DESCRIPTOR.fields_by_name[body].message_type if body and body != "chunk" else None
    fields = content.fields if content else ()
    return {field.name: field.number for field in fields if field.type == field.TYPE_BYTES}


class SliceFrame:
    """The frame of a slice, which is read without a copy: what protobuf would make of it, as far as it is asked.

    Attributes:
        run: the run.
        data: the slice.
        chunk: itself.
    """

    __slots__ = ("data", "run")
    credit_bytes = 0
    bulk = ()

    def __init__(self, run: int, data: memoryview) -> None:
        self.run, self.data = run, data

    @property
    def chunk(self) -> SliceFrame:
        return self

    @staticmethod
    def WhichOneof(_: str) -> str:
        return "chunk"

    @staticmethod
    def HasField(name: str) -> bool:
        return name == "chunk"

    @classmethod
    def read(cls, content: memoryview) -> SliceFrame | None:
        """The frame of a slice as this package writes it; None for any other frame."""
        if len(content) < 32 or content[0] != _RUN_TAG or content[9] != _CHUNK_TAG:
            return None
        size, at = _varint_at(content, 10)
        if size != len(content) - at or content[at] != _DATA_TAG:
            return None
        size, at = _varint_at(content, at + 1)
        return cls(_RUN.unpack(content[:9])[1], content[at:]) if size == len(content) - at else None


class Message(NamedTuple):
    """What a message holds.

    Attributes:
        frames: the frames, each with the length of its encoding.
        received: how much the peer has read of this side's messages; 0 says nothing, but with `disconnect`.
        disconnect: whether the peer ends the stream by intention. What it has not read by then it never will.
    """

    frames: list[tuple[Frame, int]]
    received: int
    disconnect: bool


def decode(message: bytes) -> Message:
    """The content of a message.

    Raises:
        ProtocolError: these bytes are no message, or hold more frames than one may have.
    """
    # Each frame begins with the same byte: where that is rare enough, protobuf may read the message whole.
    if len(message) <= _SHORT_MESSAGE and message.count(_FRAMES_TAG) <= FRAMES_OF_A_MESSAGE:
        try:
            content = Frames.FromString(message)
        except ProtobufDecodeError as error:
            raise ProtocolError("a message holds no frames") from error
        return Message([(frame, frame.ByteSize()) for frame in content.frames], content.received, content.disconnect)
    return _decode_by_fields(message)


def _decode_by_fields(message: bytes) -> Message:
    view, frames, received, disconnect = memoryview(message), list[tuple[Frame, int]](), 0, False
    try:
        # Protobuf itself would build every frame before one could count them.
        for number, (tag, content) in enumerate(_fields(view)):
            if number >= FRAMES_OF_A_MESSAGE + 1:
                raise ProtocolError(f"a message has more than {FRAMES_OF_A_MESSAGE:,} frames")
            if tag == _FRAMES_TAG and isinstance(content, memoryview) and content:
                frame: Any = SliceFrame.read(content) or Frame.FromString(content)  # type: ignore[arg-type]
                frames.append((frame, len(content)))
            elif tag == _RECEIVED_TAG and isinstance(content, int):
                received = content
            elif tag == _DISCONNECT_TAG:
                disconnect = bool(content)
    except (ProtobufDecodeError, IndexError) as error:
        raise ProtocolError("a message holds no frames") from error
    return Message(frames, received, disconnect)


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message: tag, and content of variable length or number; of other kinds an empty content.

    Raises:
        IndexError: the bytes end in the middle of a field.
        ProtocolError: they are no fields.
    """
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint_at(view, at)
        content: memoryview | int = view[:0]
        kind = tag & 7
        if kind == 0:
            content, at = _varint_at(view, at)
        elif kind == 2:
            size, at = _varint_at(view, at)
            content, at = view[at : at + size], at + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ProtocolError("a message holds no frames")
        if at > end:
            raise IndexError
        yield tag, content


def _varint_at(view: memoryview, at: int) -> tuple[int, int]:
    first: int = view[at]
    if first < 128:
        return first, at + 1
    number, shift = first & 127, 7
    while True:
        at += 1
        byte: int = view[at]
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 0xFFFFFFFFFFFFFFFF, at + 1
        shift += 7
        if shift > 63:
            raise ProtocolError("a message holds no frames")
