"""The walk from a value to what msgpack can write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ormsgpack

from agentmatrix.wire.containers import lower_pairs
from agentmatrix.wire.extensions import NATIVE, Lower, Refusal, key_step
from agentmatrix.wire.scalars import big_int, surrogates

_STR_KEYS: Final = frozenset({str})
_OPTIONS: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


class Encoder:
    """One value on its way to bytes.

    Args:
        lowering: gives the function that lowers values of a class, or raises `Refusal`.
        admits: tells whether a class is listed.
        max_bytes: the most bytes of a buffer.
        max_depth: how many containers may be nested.
        plain_strings: whether strings may be written as they are; not when one has a lone surrogate.
    """

    __slots__ = ("_admits", "_lowering", "_max_depth", "_native", "_plain_strings", "max_bytes")

    def __init__(
        self,
        lowering: Callable[[type], Lower],
        admits: Callable[[type], bool],
        max_bytes: int,
        max_depth: int,
        plain_strings: bool = True,
    ) -> None:
        self._lowering = lowering
        self._admits = admits
        self.max_bytes = max_bytes
        self._max_depth = max_depth
        self._plain_strings = plain_strings
        self._native = NATIVE if plain_strings else NATIVE - {str}

    def admits(self, cls: type) -> bool:
        """Whether the class is listed."""
        return self._admits(cls)

    def lower(self, value: Any, depth: int) -> Any:
        """What stands for the value: natives, lists, dicts with plain string keys, extensions."""
        cls = type(value)
        if cls in self._native:
            return value
        if depth > self._max_depth:
            raise Refusal(f"nested deeper than {self._max_depth}, or a container that contains itself")
        if cls is list:
            return value if self._native.issuperset(map(type, value)) else self.sequence(value, depth)
        if cls is dict:
            return self.mapping(value, depth)
        if cls is str:
            return self._string(value)
        return self._lowering(cls)(self, value, depth)

    def field(self, value: Any, step: str, depth: int) -> Any:
        """Lower a part of the value at `depth`; `step` is the part's place in a path, `.name` or `["key"]`."""
        if type(value) in self._native:
            return value
        try:
            return self.lower(value, depth + 1)
        except Refusal as refusal:
            refusal.steps.append(step)
            raise

    def sequence(self, values: Any, depth: int) -> list[Any]:
        """Lower the elements of a container at `depth`."""
        native, out = self._native, []
        try:
            for value in values:
                out.append(value if type(value) in native else self.lower(value, depth + 1))
        except Refusal as refusal:
            refusal.steps.append(f"[{len(out)}]")
            raise
        return out

    def mapping(self, values: Any, depth: int) -> Any:
        """Lower a dict at `depth`."""
        if not self._plain_strings or not _STR_KEYS.issuperset(map(type, values)):
            return lower_pairs(self, values, depth)
        native = self._native
        if native.issuperset(map(type, values.values())):
            return values
        out, key = {}, ""
        try:
            for key, value in values.items():
                out[key] = value if type(value) in native else self.lower(value, depth + 1)
        except Refusal as refusal:
            refusal.steps.append(key_step(key))
            raise
        return out

    @staticmethod
    def _string(value: str) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return surrogates(value)
        return value


def pack(lowered: Any) -> bytes:
    """Write what an `Encoder` lowered.

    Raises:
        TypeError: a string has lone surrogates, or the value is nested too deep for msgpack.
    """
    return ormsgpack.packb(lowered, default=big_int, option=_OPTIONS)
