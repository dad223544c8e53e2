"""The walk from bytes to a value, bounded in size and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ormsgpack

from agentmatrix.wire import scalars
from agentmatrix.wire.extensions import CLASS, NATIVE, OBJECT, TAG, Broken, Marker, Refusal, Tag, key_step
from agentmatrix.wire.size import survey


class Decoder:
    """Some bytes on their way to a value.

    Args:
        admitted: gives the listed class of a name, `"module:qualname"`, or None.
        shape_of: gives the marker of a listed class.
        max_bytes: the most memory that the value may take, in bytes, estimated from above.
        max_depth: how many containers may be nested.
    """

    __slots__ = ("_budget", "_max_bytes", "_max_depth", "_shape_of", "admitted")

    def __init__(
        self,
        admitted: Callable[[str], type | None],
        shape_of: Callable[[type], Marker],
        max_bytes: int,
        max_depth: int,
    ) -> None:
        self.admitted = admitted
        self._shape_of = shape_of
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._budget = max_bytes

    def decode(self, data: bytes | memoryview) -> Any:
        """The value of the bytes.

        Raises:
            Refusal: they are no value, or too large, too deep, or name a class that is not listed.
        """
        self.charge(len(data))
        self.charge(survey(data, self._budget))
        try:
            raw = ormsgpack.unpackb(data, ext_hook=self._leaf)
        except ValueError as error:
            raise Refusal(f"no message of this codec ({error})") from None
        return self.lift(raw, 0)

    def charge(self, cost: int) -> None:
        """Count memory, in bytes, that the value takes."""
        self._budget -= cost
        if self._budget < 0:
            raise Refusal(f"larger in memory than {self._max_bytes:,} bytes (max_bytes)")

    def lift(self, value: Any, depth: int) -> Any:
        """Rebuild what msgpack read."""
        cls = type(value)
        if cls is not list and cls is not dict:
            return self._single(value)
        if depth > self._max_depth:
            raise Refusal(f"nested deeper than {self._max_depth} (max_depth)")
        if NATIVE.issuperset(map(type, value if cls is list else value.values())):
            return value
        marker = _marker(value[0] if cls is list else value.get(""))
        if marker is None:
            return self._parts(value, enumerate(value) if cls is list else value.items(), depth)
        try:
            return marker.from_list(self, value, depth) if cls is list else marker.from_map(self, value, depth)
        except (Refusal, RecursionError):
            raise
        except Exception as error:
            raise Refusal(f"not a value of its type ({type(error).__name__}: {error})") from error

    def _single(self, value: Any) -> Any:
        if type(value) in NATIVE:
            return value
        if type(value) is Broken:
            raise Refusal(value.reason, unlisted=value.unlisted)
        if isinstance(value, Marker):
            raise Refusal("a mark out of its place")
        self.charge(200)
        return value

    def field(self, value: Any, step: str, depth: int) -> Any:
        """Rebuild a part of the value at `depth`."""
        if type(value) in NATIVE:
            return value
        try:
            return self.lift(value, depth + 1)
        except Refusal as refusal:
            refusal.steps.append(step)
            raise

    def rest(self, payload: list[Any], depth: int) -> list[Any]:
        """Rebuild the elements after the marker of a payload at `depth`."""
        self.charge(300 + 16 * len(payload))
        values = payload[1:]
        index = 0
        try:
            for index, value in enumerate(values):
                if type(value) not in NATIVE:
                    values[index] = self.lift(value, depth + 1)
        except Refusal as refusal:
            refusal.steps.append(f"[{index}]")
            raise
        return values

    def _parts(self, container: Any, items: Any, depth: int) -> Any:
        """Rebuild the parts of a list or dict in their places."""
        key: Any = None
        try:
            for key, value in items:
                if type(value) not in NATIVE:
                    container[key] = self.lift(value, depth + 1)
        except Refusal as refusal:
            refusal.steps.append(key_step(key))
            raise
        return container

    def _leaf(self, code: int, data: bytes) -> Any:
        # msgpack swallows what a hook raises, so a failure is returned for the walk to find.
        try:
            if code == TAG:
                return Tag.registry[data]
            if code in (OBJECT, CLASS):
                return self._class(code, data.decode())
            return scalars.LIFT[code](data)
        except Refusal as refusal:
            return Broken(refusal.reason, refusal.unlisted)
        except Exception as error:
            return Broken(f"extension {code} with a payload that is no value of it ({type(error).__name__})")

    def _class(self, code: int, name: str) -> Any:
        cls = self.admitted(name)
        if cls is None:
            return Broken(not_listed(name), unlisted=True)
        return self._shape_of(cls) if code == OBJECT else cls


def not_listed(name: str) -> str:
    """The sentence for a class, `"module:qualname"`, that nobody listed."""
    module, _, qualname = name.partition(":")
    short = qualname.rpartition(".")[2]
    option = f"allow=[{short}]" if "<locals>" in qualname else f'allow=["{module}"] or allow=[{short}]'
    return f"the type {module}.{qualname} is not listed; admit it with {option}"


def _marker(first: Any) -> Marker | None:
    if isinstance(first, Marker):
        return first
    if type(first) is Broken and first.unlisted:
        raise Refusal(first.reason, unlisted=True)
    return None
