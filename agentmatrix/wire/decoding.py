"""The recursion from bytes to a value, bounded in size and depth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import ormsgpack

from agentmatrix.wire import scalars
from agentmatrix.wire.extensions import (
    BUFFER,
    CLASS,
    NATIVE,
    OBJECT,
    REFERENCE,
    TAG,
    InvalidPart,
    Marker,
    Tag,
    Undecodable,
    key_step,
)
from agentmatrix.wire.objects import ObjectCodec
from agentmatrix.wire.shared_messages import SharedMessages
from agentmatrix.wire.size import SHORT, decoded_size, most_levels
from agentmatrix.wire.unlisted import STORED_TYPE, UnlistedClass, UnlistedMarker, UnlistedValue, escaped, not_allowed


def _size(buffer: bytes | BytesIO) -> int:
    return len(buffer.getbuffer()) if isinstance(buffer, BytesIO) else len(buffer)


class PartUnlisted(Exception):
    """An object of a listed class cannot be made, since a part of it is of an unlisted one: it counts as unlisted too.

    Args:
        cls: the listed class.
    """

    def __init__(self, cls: type) -> None:
        super().__init__(cls)
        self.cls = cls


class Decoder:
    """Decodes one value.

    Args:
        allowed_class: returns the class of a wire name, `"module:qualname"`, or None if it is not in the allow-list.
        object_codec_of: returns the codec of an allowed class, or raises `InvalidPart`.
        max_bytes: the most memory that the value may take, in bytes, estimated from above.
        max_depth: how many containers may be nested.
        unlisted: what becomes of an object of another class; None where it is an error.
        stored: the value goes to a checkpointer, cache or store, which keeps objects of other classes in dicts.
        left_out: the parts that stayed here when a config was encoded, by the sentence of their placeholder.
        shared: the messages that the peer may name, or has numbered.
    """

    __slots__ = (
        "_budget",
        "_buffers",
        "_given_away",
        "_has_extensions",
        "_max_bytes",
        "_max_depth",
        "_object_codec_of",
        "_inside_unlisted",
        "_kept",
        "_left_out",
        "_stored",
        "_unlisted",
        "_unlisted_made",
        "allowed_class",
        "shared",
    )

    def __init__(
        self,
        allowed_class: Callable[[str], type | None],
        object_codec_of: Callable[[type], Marker],
        max_bytes: int,
        max_depth: int,
        unlisted: Callable[[UnlistedValue], Any] | None = None,
        stored: bool = False,
        left_out: Mapping[str, Any] | None = None,
        shared: SharedMessages | None = None,
    ) -> None:
        self.shared = shared
        self._left_out = left_out or {}
        self._buffers: Sequence[bytes | BytesIO] = ()
        self._given_away: list[BytesIO] = []
        self._unlisted, self._stored = unlisted, stored
        self._unlisted_made = self._inside_unlisted = 0
        self._kept: Any = None
        self.allowed_class = allowed_class
        self._object_codec_of = object_codec_of
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._budget = max_bytes
        self._has_extensions = False

    def decode(self, data: bytes | memoryview, buffers: Sequence[bytes | BytesIO] = ()) -> Any:
        """The value of the bytes.

        Args:
            data: the message.
            buffers: the large buffers beside it.

        Raises:
            InvalidPart: they are no value, or too large, too deep, or name a class that is not in the allow-list.
            PartUnlisted: see there.
        """
        self._buffers = buffers
        self.charge(len(data) + sum(map(_size, buffers)) if buffers else len(data))
        levels = most_levels(data) if len(data) <= SHORT else None
        self.charge(decoded_size(data, self._budget, levels))
        try:
            raw = ormsgpack.unpackb(data, ext_hook=self._extension)
        except ValueError as error:
            raise InvalidPart(f"no message of this codec ({error})") from None
        if (
            not (self._has_extensions or self._stored)
            and (most_levels(data) if levels is None else levels) <= self._max_depth
        ):
            return raw  # without an extension there is nothing to make
        return self.decode_part(raw, 0)

    def charge(self, cost: int) -> None:
        """Take memory that the value needs, in bytes, off the budget; raise `InvalidPart` when it is used up."""
        self._budget -= cost
        if self._budget < 0:
            raise InvalidPart(f"larger in memory than {self._max_bytes:,} bytes (max_bytes)")

    def decode_part(self, value: Any, depth: int) -> Any:
        """Return the value of what msgpack has read; `depth` is the number of containers around it."""
        cls = type(value)
        if cls is not list and cls is not dict:
            return self._single(value)
        if depth > self._max_depth:
            raise InvalidPart(f"nested deeper than {self._max_depth} (max_depth)")
        if NATIVE.issuperset(map(type, value if cls is list else value.values())):
            return self._own(value) if self._stored and cls is dict else value
        marker = value[0] if cls is list else value.get("")
        if not isinstance(marker, Marker):
            if type(marker) is Undecodable and marker.not_allowed:
                raise InvalidPart(marker.reason, not_allowed=True)
            self._decode_in_place(value, enumerate(value) if cls is list else value.items(), depth)
            return self._own(value) if self._stored and cls is dict else value
        before = self._unlisted_made
        try:
            made = marker.from_list(self, value, depth) if cls is list else marker.from_map(self, value, depth)
        except (PartUnlisted, RecursionError):
            raise
        except InvalidPart as invalid:
            if isinstance(marker, ObjectCodec) and not invalid.in_object:
                invalid.in_object = True
                if self._unlisted_made > before:
                    raise PartUnlisted(marker.cls) from invalid
            raise
        except Exception as error:
            raise InvalidPart(f"not a value of its type ({type(error).__name__}: {error})") from error
        return self._own(made) if type(marker) is Tag and made is not self._kept else made

    def _own(self, value: Any) -> Any:
        """The value itself; to be stored, a dict that could be taken for an object is wrapped."""
        wrap = self._stored and type(value) is dict and STORED_TYPE in value and not self._inside_unlisted
        return escaped(value) if wrap else value

    def writable(self, value: Any) -> bytearray | memoryview:
        """The content of a buffer, as what has read it may write to it: that of a large one itself, which is not
        copied."""
        if type(value) is BytesIO and value not in self._given_away:
            self._given_away.append(value)
            return value.getbuffer()
        if type(content := self._single(value)) is not bytes:
            raise InvalidPart("what stands in the place of a buffer is none")
        return bytearray(content)

    def _single(self, value: Any) -> Any:
        if type(value) in NATIVE:
            return value
        if type(value) is BytesIO:
            return bytes(value.getbuffer()) if value in self._given_away else value.getvalue()
        if type(value) is Undecodable:
            raise InvalidPart(value.reason, not_allowed=value.not_allowed)
        if type(value) is UnlistedClass:
            self.charge(600)
            return self.unlisted(value.value())
        if isinstance(value, Marker):
            raise InvalidPart("a mark out of its place")
        self.charge(200)
        return value

    @contextlib.contextmanager
    def inside_unlisted(self) -> Iterator[None]:
        """Around the decoding of the parts of an object of an unlisted class."""
        self._inside_unlisted += 1
        try:
            yield
        finally:
            self._inside_unlisted -= 1

    def unlisted(self, value: UnlistedValue) -> Any:
        """What becomes of an object of an unlisted class. It is stored with all of its parts."""
        self._unlisted_made += 1
        if self._unlisted is None or self._inside_unlisted:
            return value
        self._kept = self._unlisted(value)
        return self._kept

    def unlisted_or(self, value: UnlistedValue, reason: str) -> Any:
        """The same, or `InvalidPart` with the reason where an unlisted class is an error."""
        if self._unlisted is None:
            raise InvalidPart(reason)
        return self.unlisted(value)

    def unencodable(self, value: Any, reason: str) -> Any:
        """The part that a placeholder stands for where it was left out, elsewhere the placeholder."""
        self._unlisted_made += 1  # An object that this makes invalid is as one with an unlisted part.
        return self._left_out.get(reason, value)

    def decode_field(self, value: Any, step: str, depth: int) -> Any:
        """Decode a part of a container that is at `depth`; `step` is its place in a path."""
        if type(value) in NATIVE:
            return value
        try:
            return self.decode_part(value, depth + 1)
        except InvalidPart as invalid:
            invalid.steps.append(step)
            raise

    def decode_rest(self, payload: list[Any], depth: int) -> list[Any]:
        """Decode the elements after the marker of a payload that is at `depth`."""
        self.charge(300 + 16 * len(payload))
        values = payload[1:]
        self._decode_in_place(values, enumerate(values), depth)
        return values

    def _decode_in_place(self, container: Any, items: Any, depth: int) -> None:
        """Decode the parts of a list or dict in place."""
        key: Any = None
        # A container of native values stands for itself: most are such, and each spares a call.
        looks, stored = depth < self._max_depth, self._stored
        try:
            for key, value in items:
                cls = type(value)
                if cls in NATIVE:
                    continue
                if looks and (cls is dict or cls is list):
                    plain = NATIVE.issuperset(map(type, value.values() if cls is dict else value))
                    if plain and not (stored and cls is dict and STORED_TYPE in value):
                        continue
                container[key] = self.decode_part(value, depth + 1)
        except InvalidPart as invalid:
            invalid.steps.append(key_step(key))
            raise

    def _extension(self, code: int, data: bytes) -> Any:
        self._has_extensions = True
        # msgpack drops what a hook raises, so a failure is returned and raised once its path is known.
        try:
            if code == TAG:
                return Tag.registry[data]
            if code == BUFFER:
                return self._buffers[int.from_bytes(data, "big")]
            if code == REFERENCE and self.shared is not None:
                return self.shared.get(self, int.from_bytes(data, "big"))
            if code in (OBJECT, CLASS):
                return self._class(code, data.decode())
            return scalars.DECODERS[code](data)
        except InvalidPart as invalid:
            return Undecodable(invalid.reason, invalid.not_allowed)
        except Exception as error:
            return Undecodable(f"extension {code} with a payload that is no value of it ({type(error).__name__})")

    def _class(self, code: int, name: str) -> Any:
        cls = self.allowed_class(name)
        if cls is None and self._unlisted is None:
            return Undecodable(not_allowed(name), not_allowed=True)
        if cls is None:
            return UnlistedMarker(name) if code == OBJECT else UnlistedClass(name)
        return self._object_codec_of(cls) if code == OBJECT else cls
