"""The vocabulary that the encoder and the decoder share.

A value is msgpack with three kinds of extension:

- a *leaf*, one extension whose payload is the whole value (a UUID, a date, an int beyond 64 bits);
- a *tag*, the first element of an array that is not a list (`[TUPLE, 1, 2]`);
- a *shape*, the class of an object: the first element of an array (`[Shape, ...]`) or the entry `""` of a
  map (`{"": Shape, "field": value, ...}`).

No payload holds msgpack in turn, so one scan bounds the size, one walk bounds the depth, and nothing is copied twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, Protocol

import ormsgpack

TAG: Final = 0
OBJECT: Final = 1
CLASS: Final = 2

NATIVE: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types that msgpack keeps exactly, ints up to 64 bits and strings without lone surrogates."""


class Refusal(Exception):
    """A value or bytes that the codec refuses, with the way to it, innermost step first."""

    def __init__(self, reason: str, *, unlisted: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unlisted = unlisted
        self.steps: list[str] = []

    def at(self, where: str) -> str:
        """The whole message, with the path that starts at `where`."""
        return f"{where}{''.join(reversed(self.steps))}: {self.reason}"


def refuse(reason: str) -> NoReturn:
    """Raise a `Refusal`; for use in expressions."""
    raise Refusal(reason)


def key_step(key: object) -> str:
    """The step of a path that a mapping's key takes: `["docs"]`, `[2]`."""
    text = f'"{key}"' if type(key) is str else repr(key)
    return f"[{text if len(text) <= 60 else text[:57] + '...'}]"


class Encoding(Protocol):
    """What the parts of the codec need of an encoder."""

    max_bytes: int

    def lower(self, value: Any, depth: int) -> Any: ...
    def field(self, value: Any, step: str, depth: int) -> Any: ...
    def sequence(self, values: Any, depth: int) -> list[Any]: ...
    def mapping(self, values: Any, depth: int) -> Any: ...
    def admits(self, cls: type) -> bool: ...


class Decoding(Protocol):
    """What the parts of the codec need of a decoder."""

    def lift(self, value: Any, depth: int) -> Any: ...
    def field(self, value: Any, step: str, depth: int) -> Any: ...
    def rest(self, payload: list[Any], depth: int) -> list[Any]: ...
    def charge(self, cost: int) -> None: ...
    def admitted(self, name: str) -> type | None: ...


Lower = Callable[[Encoding, Any, int], Any]
Lift = Callable[[Decoding, list[Any], int], Any]


class Marker:
    """What stands first in a payload that is no plain list or dict."""

    __slots__ = ()

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        """Rebuild the value of `[self, ...]`."""
        raise Refusal("a list that stands for nothing")

    def from_map(self, walk: Decoding, payload: dict[str, Any], depth: int) -> Any:
        """Rebuild the value of `{"": self, ...}`."""
        raise Refusal("a map that stands for nothing")


class Tag(Marker):
    """A kind of built-in value that has parts. `lift` rebuilds it from `[tag, part, ...]`."""

    __slots__ = ("ext", "from_list")

    registry: Final[dict[bytes, Tag]] = {}

    def __init__(self, number: int, lift: Lift) -> None:
        code = bytes([number])
        if code in self.registry:
            raise ValueError(f"tag {number} is taken")
        self.ext = ormsgpack.Ext(TAG, code)
        self.from_list = lift  # type: ignore[method-assign, assignment]  # an attribute, since each call is a frame of the stack
        self.registry[code] = self


class Broken:
    """A leaf that could not be rebuilt; the walk reports it with its path."""

    __slots__ = ("reason", "unlisted")

    def __init__(self, reason: str, unlisted: bool = False) -> None:
        self.reason = reason
        self.unlisted = unlisted
