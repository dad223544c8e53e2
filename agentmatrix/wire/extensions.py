"""The extension types of msgpack that the encoder and the decoder share.

A value is msgpack with four kinds of extension:

- a *scalar*, one extension whose payload is the whole value (a UUID, a date, an int beyond 64 bits);
- a *tag*, the first element of an array that stands for a built-in value with parts (`[TUPLE, 1, 2]`);
- a *buffer*, the number of bytes that are sent beside the message, since they are many;
- an *object*, the name of a class: the first element of an array (`[OBJECT, ...]`) or the entry `""` of a map
  (`{"": OBJECT, "field": value, ...}`). A class that is itself the value has an extension of its own, CLASS.

No payload holds msgpack in turn. So one scan bounds the size, one recursion bounds the depth, and nothing is copied
twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import ormsgpack

TAG: Final = 0
OBJECT: Final = 1
CLASS: Final = 2
REFERENCE: Final = 31
"""The number of a message that the peer has; see `shared_messages`."""
BUFFER: Final = 30
"""The place of a large buffer among those that are beside the message; see `Codec.encode_pieces`."""

NATIVE: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types that msgpack keeps exactly, ints up to 64 bits and strings without lone surrogates."""
PACK_OPTIONS: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
"""Of `ormsgpack.packb`: only what msgpack gives back as it was; other types are a `TypeError` there."""


_LONGEST_PATH: Final = 200


class InvalidPart(Exception):
    """A part of a value that cannot be encoded or decoded. `Codec` turns it into an `EncodeError` or a `DecodeError`.

    Attributes:
        reason: what is wrong with the part.
        not_allowed: the part is of a class that is not in the allow-list.
        steps: the path to the part, innermost step first: each level of the recursion appends its own.
        in_object: an object of a listed class was being decoded, and the innermost has been asked why it failed.
    """

    def __init__(self, reason: str, *, not_allowed: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.not_allowed = not_allowed
        self.steps: list[str] = []
        self.in_object = False

    def at(self, where: str) -> str:
        """The reason after the path to the part; `where` is the name of the whole value."""
        path = "".join(reversed(self.steps))
        if len(path) > _LONGEST_PATH:
            path = f"{path[: _LONGEST_PATH // 2]}...{path[-_LONGEST_PATH // 2 :]}"
        return f"{where}{path}: {self.reason}"


def key_step(key: object) -> str:
    """A mapping's key as a step of a path: `["docs"]`, `[2]`."""
    text = f'"{key}"' if type(key) is str else repr(key)
    return f"[{text if len(text) <= 60 else text[:57] + '...'}]"


class PartEncoder(Protocol):
    """What the functions that encode one type ask of the `Encoder`, which imports them."""

    max_bytes: int
    shared: Any

    def buffer(self, value: Any) -> Any: ...
    def encode_part(self, value: Any, depth: int) -> Any: ...
    def encode_field(self, value: Any, step: str, depth: int) -> Any: ...
    def encode_items(self, values: Any, depth: int, start: int = 0) -> list[Any]: ...
    def encode_mapping(self, values: Any, depth: int, *, itself: bool = False) -> Any: ...


class PartDecoder(Protocol):
    """What the functions that decode one type ask of the `Decoder`, which imports them."""

    shared: Any

    def decode_part(self, value: Any, depth: int) -> Any: ...
    def decode_field(self, value: Any, step: str, depth: int) -> Any: ...
    def decode_rest(self, payload: list[Any], depth: int) -> list[Any]: ...
    def writable(self, value: Any) -> bytearray | memoryview: ...
    def charge(self, cost: int) -> None: ...
    def allowed_class(self, name: str) -> type | None: ...
    def inside_unlisted(self) -> AbstractContextManager[None]: ...
    def unlisted(self, value: Any) -> Any: ...
    def unlisted_or(self, value: Any, reason: str) -> Any: ...
    def unencodable(self, value: Any, reason: str) -> Any: ...


EncodePart = Callable[[PartEncoder, Any, int], Any]
"""(encoder, value, depth) -> what msgpack can write: native values, lists, dicts with string keys, extensions."""
DecodePart = Callable[[PartDecoder, list[Any], int], Any]
"""(decoder, `[marker, part, ...]`, depth) -> the value."""


class Marker:
    """The first element of the payload of any value but lists and dicts. It decodes the payload."""

    __slots__ = ()

    def from_list(self, decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
        """Return the value of `[self, ...]`."""
        raise InvalidPart("a list that stands for nothing")

    def from_map(self, decoder: PartDecoder, payload: dict[str, Any], depth: int) -> Any:
        """Return the value of `{"": self, ...}`."""
        raise InvalidPart("a map that stands for nothing")


class Tag(Marker):
    """The marker of a built-in type with parts.

    Args:
        number: the payload of the extension, the same on both sides and in all versions of the wire.
        decode: returns the value of `[tag, part, ...]`.
    """

    __slots__ = ("ext", "from_list", "number")

    registry: Final[dict[bytes, Tag]] = {}

    def __init__(self, number: int, decode: DecodePart) -> None:
        code = bytes([number])
        if code in self.registry:
            raise ValueError(f"tag {number} is taken")
        self.ext, self.number = ormsgpack.Ext(TAG, code), number
        # An attribute and no method that calls `decode`: each call takes a frame of the stack at each level of nesting.
        self.from_list = decode  # type: ignore[method-assign, assignment]
        self.registry[code] = self


class Undecodable:
    """An extension whose payload cannot be decoded. msgpack puts it into the value; the decoder, which knows the path,
    raises `InvalidPart` when it comes to it."""

    __slots__ = ("reason", "not_allowed")

    def __init__(self, reason: str, not_allowed: bool = False) -> None:
        self.reason = reason
        self.not_allowed = not_allowed
