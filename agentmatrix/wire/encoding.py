"""The recursion from a value to what msgpack can write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ormsgpack
from ormsgpack import Ext

from agentmatrix.wire.containers import TUPLE, encode_pairs
from agentmatrix.wire.extensions import BUFFER, NATIVE, PACK_OPTIONS, EncodePart, InvalidPart, key_step
from agentmatrix.wire.scalars import big_int, surrogates
from agentmatrix.wire.shared_messages import SharedMessages
from agentmatrix.wire.unencodable import UnencodableValue, encode_unencodable
from agentmatrix.wire.unlisted import STORED_TYPE, encode_stored

LARGE: Final = 256 * 1024
"""Bytes from which on a buffer is worth a place beside the message."""
MOST_BUFFERS: Final = 256
_STR_KEYS: Final = frozenset({str})
_SMALL: Final = NATIVE - {bytes}
_CONTAINERS: Final = frozenset({dict, list, tuple})
_MOST_CONTAINERS: Final = 1_000


class Encoder:
    """Encodes one value.

    Args:
        encoder_of: returns the function that encodes values of a class, or raises `InvalidPart`.
        max_bytes: the most bytes of one buffer.
        max_depth: how many containers may be nested.
        plain_strings: write strings as they are. The caller tries this first, since the check of each string costs
            time, and passes False when msgpack has found a string with lone surrogates.
        stored: the value comes from a caller's checkpointer, cache or store, where plain data stands for objects of
            unlisted classes (see `unlisted`).
        buffers: takes the large buffers out of the message; None leaves them in it.
        shared: the messages that the peer has, or is to keep.
    """

    __slots__ = ("_buffers", "_encoder_of", "_max_depth", "_native", "_plain_strings", "_stored", "max_bytes", "shared")

    def __init__(
        self,
        encoder_of: Callable[[type], EncodePart],
        max_bytes: int,
        max_depth: int,
        plain_strings: bool = True,
        stored: bool = False,
        buffers: list[bytes] | None = None,
        shared: SharedMessages | None = None,
    ) -> None:
        self._stored, self._buffers, self.shared = stored, buffers, shared
        self._encoder_of = encoder_of
        self.max_bytes = max_bytes
        self._max_depth = max_depth
        self._plain_strings = plain_strings
        self._native = NATIVE if plain_strings else NATIVE - {str}
        if buffers is not None:
            self._native -= {bytes}

    def encode_part(self, value: Any, depth: int) -> Any:
        """Return what msgpack writes for a value: native values, lists, dicts with string keys, extensions.

        A list or dict of native values is returned itself, not copied.

        Args:
            value: the value or a part of it.
            depth: how many containers it is in.

        Raises:
            InvalidPart: it cannot be encoded, or it is nested deeper than `max_depth`.
        """
        cls = type(value)
        if cls in self._native:
            return value
        if cls is bytes:
            return self.buffer(value)
        if depth > self._max_depth:
            raise InvalidPart(f"nested deeper than {self._max_depth}, or a container that contains itself")
        if cls is list:
            if self._native.issuperset(map(type, value)):
                return value
            named = None if self.shared is None else self.shared.encode_list(self, value, depth)
            return self.encode_items(value, depth) if named is None else named
        if cls is dict:
            return self.encode_mapping(value, depth)
        if cls is tuple:
            return [TUPLE.ext, *self.encode_items(value, depth)]
        if cls is str:
            return self._string(value)
        return self._encoder_of(cls)(self, value, depth)

    def encode_field(self, value: Any, step: str, depth: int) -> Any:
        """Encode a part of a container that is at `depth`; `step` is its place in a path, `.name` or `["key"]`."""
        if type(value) in self._native:
            return value
        try:
            return self.encode_part(value, depth + 1)
        except InvalidPart as invalid:
            invalid.steps.append(step)
            raise

    def encode_items(self, values: Any, depth: int, start: int = 0) -> list[Any]:
        """Encode the elements of a container that is at `depth`, of a list those from `start` on."""
        native, out = self._native, []
        # A dict of native values is written as it is: most are such, and each spares two calls.
        looks = self._plain_strings and depth < self._max_depth
        try:
            for value in values[start:] if start else values:
                if type(value) in native or (
                    looks
                    and type(value) is dict
                    and native.issuperset(map(type, value.values()))
                    and _STR_KEYS.issuperset(map(type, value))
                    and not (self._stored and STORED_TYPE in value)
                ):
                    out.append(value)
                else:
                    out.append(self.encode_part(value, depth + 1))
        except InvalidPart as invalid:
            invalid.steps.append(f"[{start + len(out)}]")
            raise
        return out

    def encode_mapping(self, values: Any, depth: int, *, itself: bool = False) -> Any:
        """Encode a dict that is at `depth`: what it stands for where it was stored, unless `itself` is meant."""
        if self._stored and not itself and STORED_TYPE in values:
            return encode_stored(self, values, depth)
        if not self._plain_strings or not _STR_KEYS.issuperset(map(type, values)):
            return encode_pairs(self, values, depth)
        native = self._native
        if native.issuperset(map(type, values.values())):
            return values
        out, key = {}, ""
        looks = self._plain_strings and depth < self._max_depth
        try:
            for key, value in values.items():
                if type(value) in native or (
                    looks
                    and type(value) is dict
                    and native.issuperset(map(type, value.values()))
                    and _STR_KEYS.issuperset(map(type, value))
                    and not (self._stored and STORED_TYPE in value)
                ):
                    out[key] = value
                else:
                    out[key] = self.encode_part(value, depth + 1)
        except InvalidPart as invalid:
            invalid.steps.append(key_step(key))
            raise
        return out

    def buffer(self, value: bytes | memoryview) -> Any:
        """Return what msgpack writes for a buffer: itself, or its place beside the message."""
        buffers = self._buffers
        if buffers is None or len(value) < LARGE or len(buffers) >= MOST_BUFFERS:
            return value
        buffers.append(bytes(value))  # bytes are not copied; who has an array may go on to change it
        return Ext(BUFFER, (len(buffers) - 1).to_bytes(2, "big"))

    @staticmethod
    def _string(value: str) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return surrogates(value)
        return value


class PartialEncoder(Encoder):
    """Encodes what can be encoded of a value; each other part becomes an `UnencodableValue` that names it.

    Args:
        where: the name of the value.
        lost: takes the parts that were left out, by the sentence of their placeholder.
        options: as for `Encoder`.
    """

    __slots__ = ("_lost", "_path")

    def __init__(self, where: str, lost: dict[str, Any], *options: Any) -> None:
        super().__init__(*options)
        self._path, self._lost = [where], lost

    def encode_whole(self, value: Any) -> Any:
        """Encode the value, or its placeholder."""
        return self._encode_or_leave(value, 0)

    def encode_field(self, value: Any, step: str, depth: int) -> Any:
        self._path.append(step)
        try:
            return self._encode_or_leave(value, depth + 1)
        finally:
            self._path.pop()

    def encode_items(self, values: Any, depth: int, start: int = 0) -> list[Any]:
        return [self.encode_field(value, f"[{number}]", depth) for number, value in enumerate(values)]

    def encode_mapping(self, values: Any, depth: int, *, itself: bool = False) -> Any:
        if not self._plain_strings or not _STR_KEYS.issuperset(map(type, values)):
            return encode_pairs(self, values, depth)
        return {key: self.encode_field(value, key_step(key), depth) for key, value in values.items()}

    def _encode_or_leave(self, value: Any, depth: int) -> Any:
        try:
            return self.encode_part(value, depth)
        except InvalidPart as invalid:
            cls, steps = type(value), "".join(reversed(invalid.steps))
            reason = (
                f"{''.join(self._path)}{steps} is a {cls.__module__}.{cls.__qualname__}, which cannot cross to a "
                f"remote agent: {invalid.reason}; make it on the host, or leave it out with RemoteAgent(forward=[...])"
            )
            self._lost[reason] = value
            return encode_unencodable(self, UnencodableValue(reason), depth)


def pack(encoded: Any) -> bytes:
    """The bytes of what an `Encoder` has returned.

    Raises:
        TypeError: a string has lone surrogates, or the value is nested too deep for msgpack.
    """
    return ormsgpack.packb(encoded, default=big_int, option=PACK_OPTIONS)


def pack_plain(value: Any) -> bytes:
    """The bytes of a value of lists, dicts, tuples and native values, as an `Encoder` would have them.

    Raises:
        TypeError: another part is in it, or a key or a string that only an `Encoder` can write.
    """
    return ormsgpack.packb(value, default=_built_in, option=PACK_OPTIONS)


def _built_in(value: Any) -> Any:
    if type(value) is tuple:
        return [TUPLE.ext, *value]
    if type(value) is int:
        return big_int(value)
    raise TypeError


def is_plain(value: Any) -> bool:
    """Whether a value is made of lists, dicts, tuples and native values alone, none of them large, and not too many."""
    if type(value) not in _CONTAINERS:
        return type(value) in _SMALL
    containers = [value]
    for container in containers:  # it grows
        parts = container.values() if type(container) is dict else container
        if _SMALL.issuperset(map(type, parts)):
            continue
        for part in parts:
            kind = type(part)
            if kind in _CONTAINERS:
                containers.append(part)
            elif kind not in _SMALL and (kind is not bytes or len(part) >= LARGE):
                return False
        if len(containers) > _MOST_CONTAINERS:
            return False
    return True
