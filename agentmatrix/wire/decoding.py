"""The recursion from bytes to a value, bounded in size and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ormsgpack

from agentmatrix.wire import scalars
from agentmatrix.wire.extensions import CLASS, NATIVE, OBJECT, TAG, InvalidPart, Marker, Tag, Undecodable, key_step
from agentmatrix.wire.size import decoded_size


class Decoder:
    """Decodes one value.

    Args:
        allowed_class: returns the class of a wire name, `"module:qualname"`, or None if it is not in the allow-list.
        object_codec_of: returns the codec of an allowed class, or raises `InvalidPart`.
        max_bytes: the most memory that the value may take, in bytes, estimated from above.
        max_depth: how many containers may be nested.
    """

    __slots__ = ("_budget", "_max_bytes", "_max_depth", "_object_codec_of", "allowed_class")

    def __init__(
        self,
        allowed_class: Callable[[str], type | None],
        object_codec_of: Callable[[type], Marker],
        max_bytes: int,
        max_depth: int,
    ) -> None:
        self.allowed_class = allowed_class
        self._object_codec_of = object_codec_of
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._budget = max_bytes

    def decode(self, data: bytes | memoryview) -> Any:
        """The value of the bytes.

        Raises:
            InvalidPart: they are no value, or too large, too deep, or name a class that is not in the allow-list.
        """
        self.charge(len(data))
        self.charge(decoded_size(data, self._budget))
        try:
            raw = ormsgpack.unpackb(data, ext_hook=self._extension)
        except ValueError as error:
            raise InvalidPart(f"no message of this codec ({error})") from None
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
            return value
        marker = _marker(value[0] if cls is list else value.get(""))
        if marker is None:
            return self._decode_in_place(value, enumerate(value) if cls is list else value.items(), depth)
        try:
            return marker.from_list(self, value, depth) if cls is list else marker.from_map(self, value, depth)
        except (InvalidPart, RecursionError):
            raise
        except Exception as error:
            raise InvalidPart(f"not a value of its type ({type(error).__name__}: {error})") from error

    def _single(self, value: Any) -> Any:
        if type(value) in NATIVE:
            return value
        if type(value) is Undecodable:
            raise InvalidPart(value.reason, not_allowed=value.not_allowed)
        if isinstance(value, Marker):
            raise InvalidPart("a mark out of its place")
        self.charge(200)
        return value

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
        index = 0
        try:
            for index, value in enumerate(values):
                if type(value) not in NATIVE:
                    values[index] = self.decode_part(value, depth + 1)
        except InvalidPart as invalid:
            invalid.steps.append(f"[{index}]")
            raise
        return values

    def _decode_in_place(self, container: Any, items: Any, depth: int) -> Any:
        """Decode the parts of a list or dict in place."""
        key: Any = None
        try:
            for key, value in items:
                if type(value) not in NATIVE:
                    container[key] = self.decode_part(value, depth + 1)
        except InvalidPart as invalid:
            invalid.steps.append(key_step(key))
            raise
        return container

    def _extension(self, code: int, data: bytes) -> Any:
        # msgpack drops what a hook raises, so a failure is returned and raised once its path is known.
        try:
            if code == TAG:
                return Tag.registry[data]
            if code in (OBJECT, CLASS):
                return self._class(code, data.decode())
            return scalars.DECODERS[code](data)
        except InvalidPart as invalid:
            return Undecodable(invalid.reason, invalid.not_allowed)
        except Exception as error:
            return Undecodable(f"extension {code} with a payload that is no value of it ({type(error).__name__})")

    def _class(self, code: int, name: str) -> Any:
        cls = self.allowed_class(name)
        if cls is None:
            return Undecodable(not_allowed(name), not_allowed=True)
        return self._object_codec_of(cls) if code == OBJECT else cls


def not_allowed(name: str) -> str:
    """The error text for a class, `"module:qualname"`, that is not in the allow-list."""
    module, _, qualname = name.partition(":")
    short = qualname.rpartition(".")[2]
    option = f"allow=[{short}]" if "<locals>" in qualname else f'allow=["{module}"] or allow=[{short}]'
    return f"the type {module}.{qualname} is not listed; admit it with {option}"


def _marker(first: Any) -> Marker | None:
    if isinstance(first, Marker):
        return first
    if type(first) is Undecodable and first.not_allowed:
        raise InvalidPart(first.reason, not_allowed=True)
    return None
