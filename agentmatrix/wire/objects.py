"""Objects of a class: how each kind of class is taken apart and put together again, without its constructor."""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Flag
from types import NoneType
from typing import Any, Final

from langgraph.store.base import Item
from langgraph.types import Command, Interrupt, Send, TimeoutPolicy
from ormsgpack import Ext

from agentmatrix.wire import validation
from agentmatrix.wire.extensions import CLASS, NATIVE, OBJECT, Decoding, Encoding, Marker, Refusal


def name_of(cls: type) -> str:
    """What a class is called on the wire: `"module:qualname"`."""
    return f"{cls.__module__}:{cls.__qualname__}"


class Shape(Marker):
    """How instances of one class cross."""

    __slots__ = ("cls", "ext")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.ext = Ext(OBJECT, name_of(cls).encode("utf-8", "surrogatepass"))

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        """Take an instance apart."""
        raise NotImplementedError


set_attribute: Final[Callable[[Any, str, Any], None]] = object.__setattr__


def dict_of(payload: Any, what: str) -> dict[str, Any]:
    if type(payload) is not dict:
        raise Refusal(f"{what} are a {type(payload).__name__}")
    return payload


class DataclassShape(Shape):
    """Dataclasses: fields, and what else stands in the instance's `__dict__`."""

    __slots__ = ("_check", "_fields")

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self._fields = frozenset(field.name for field in dataclasses.fields(cls))
        self._check = validation.check_of(cls)

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        out: dict[str, Any] = {"": self.ext}
        for name in self._fields:
            try:
                item = getattr(value, name)
            except AttributeError:
                continue
            out[name] = walk.field(item, f".{name}", depth)
        more = _own_attributes(value, self._fields)
        if more:
            out["+"] = attributes_of(walk, more, depth)
        return out

    def from_map(self, walk: Decoding, payload: dict[str, Any], depth: int) -> Any:
        walk.charge(400)
        del payload[""]
        more = walk.field(payload.pop("+", None), "", depth)
        for name, item in payload.items():
            if type(item) not in NATIVE:
                payload[name] = walk.field(item, f".{name}", depth)
        if not payload.keys() <= self._fields:
            raise Refusal(f"{self.cls.__qualname__} has no field {min(payload.keys() - self._fields)!r}")
        if self._check is not None:
            self._check(payload)
        instance: Any = object.__new__(self.cls)
        for name, item in payload.items():
            set_attribute(instance, name, item)
        _restore(instance, more)
        if self._check is not None:
            self._check.whole(instance)
        return _sound(instance)


def _own_attributes(value: Any, fields: frozenset[str]) -> dict[str, Any]:
    own = getattr(value, "__dict__", None) or {}
    if own.keys() <= fields:
        return {}
    return {
        name: item
        for name, item in own.items()
        if name not in fields
        and not isinstance(getattr(type(value), name, None), functools.cached_property)
        and name != "__orig_class__"
    }


def attributes_of(walk: Encoding, attributes: dict[str, Any], depth: int) -> dict[str, Any]:
    return {name: walk.field(item, f".{name}", depth + 1) for name, item in attributes.items()}


def _restore(instance: Any, attributes: Any) -> None:
    """Set what `_own_attributes` found."""
    if attributes is None:
        return
    for name, item in dict_of(attributes, "attributes").items():
        if name.startswith("__") and name.endswith("__"):
            raise Refusal(f"an attribute {name}")
        set_attribute(instance, name, item)


class EnumShape(Shape):
    """Enum members, by name; combined flags by value."""

    __slots__ = ()

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        if not isinstance(value, Flag) and value._name_ in self.cls.__members__:  # type: ignore[attr-defined]
            return [self.ext, value._name_]
        return [self.ext, None, walk.field(value._value_, ".value", depth)]

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        name, *values = walk.rest(payload, depth)
        if name is not None:
            return self.cls.__members__[name]  # type: ignore[attr-defined]
        (value,) = values  # more would ask an enum for a new class
        return self.cls(value)


class NamedTupleShape(Shape):
    """Named tuples, by position."""

    __slots__ = ("_arity",)

    def __init__(self, cls: type) -> None:
        super().__init__(cls)
        self._arity = len(cls._fields)  # type: ignore[attr-defined]

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        fields = zip(self.cls._fields, value, strict=True)  # type: ignore[attr-defined]
        return [self.ext, *(walk.field(item, f".{name}", depth) for name, item in fields)]

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        items = walk.rest(payload, depth)
        if len(items) != self._arity:
            raise Refusal(f"{len(items)} values for the {self._arity} fields of {self.cls.__qualname__}")
        make: Any = tuple.__new__
        return make(self.cls, items)


_IMMUTABLE: Final = (str, bytes, int, float, complex, tuple, frozenset)
_FILLED: Final[dict[Any, Any]] = {
    list: list.extend,
    bytearray: bytearray.extend,
    set: set.update,
    OrderedDict: OrderedDict.update,
    dict: dict.update,
}


class DerivedShape(Shape):
    """Subclasses of built-in types: the built-in value and the instance's attributes."""

    __slots__ = ("_base",)

    def __init__(self, cls: type, base: Any) -> None:
        super().__init__(cls)
        self._base = base

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        head = [self.ext, walk.field(self._plain(value), "", depth)]
        attributes = state_of(value)
        return [*head, attributes_of(walk, attributes, depth)] if attributes else head

    def _plain(self, value: Any) -> Any:
        """The built-in value alone, whatever the subclass overrides."""
        base = self._base
        if base in (dict, OrderedDict):
            return base(base.items(value))
        if base in (str, bytes, int, float):
            return base.__getnewargs__(value)[0]
        return base(base.__iter__(value)) if hasattr(base, "__iter__") else base(value)

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        value, *attributes = walk.rest(payload, depth)
        base: Any = self._base
        if type(value) is not base:
            raise Refusal(f"{self.cls.__qualname__} of a {type(value).__name__}")
        if base in _FILLED:
            instance = base.__new__(self.cls)  # type: ignore[call-overload]
            _FILLED[base](instance, value)
        else:
            instance = base.__new__(self.cls, value)
        if attributes:
            _restore(instance, attributes[0])
        return instance


_SECONDS: Final = (int, float, timedelta, NoneType)
_WORD: Final = struct.calcsize("P")


def _slots(cls: type) -> list[str]:
    """The attributes that a class keeps in slots of its own."""
    slots = cls.__dict__.get("__slots__", ())
    return [
        f"_{cls.__name__.lstrip('_')}{slot}" if slot.startswith("__") and not slot.endswith("__") else slot
        for slot in ((slots,) if isinstance(slots, str) else slots)
        if slot not in ("__dict__", "__weakref__")
    ]


def state_of(value: Any) -> dict[str, Any]:
    """The attributes of an instance, those in slots included."""
    names = [slot for cls in reversed(type(value).__mro__) for slot in _slots(cls)]
    state = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return state | _own_attributes(value, frozenset())


class PlainShape(Shape):
    """Ordinary classes: their attributes."""

    __slots__ = ()

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        return [self.ext, attributes_of(walk, state_of(value), depth)]

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        (attributes,) = walk.rest(payload, depth)
        instance: Any = object.__new__(self.cls)
        _restore(instance, attributes)
        return _sound(instance)


_KINDS: Final[dict[type, dict[str, tuple[type, ...]]]] = {
    Send: {"node": (str,), "timeout": (TimeoutPolicy, NoneType)},
    Command: {"graph": (str, NoneType), "goto": (str, Send, list, tuple)},
    Interrupt: {"id": (str,), "response_schema": (dict, type, NoneType)},
    TimeoutPolicy: {"run_timeout": _SECONDS, "idle_timeout": _SECONDS, "refresh_on": (str,)},
    Item: {
        "namespace": (tuple,),
        "key": (str,),
        "value": (dict,),
        "created_at": (datetime,),
        "updated_at": (datetime,),
    },
}


def _sound(instance: Any) -> Any:
    """The instance itself, if LangGraph could have made it so."""
    for cls, kinds in _KINDS.items():
        if isinstance(instance, cls):
            for name, allowed in kinds.items():
                if not isinstance(getattr(instance, name, None), allowed):
                    raise Refusal(f"{cls.__name__} whose {name} is a {type(getattr(instance, name, None)).__name__}")
    return instance


def base_of(cls: type) -> type | None:
    """The built-in type that a class derives from, if it is one that `DerivedShape` knows."""
    return next((base for base in cls.__mro__ if base in _FILLED or base in _IMMUTABLE), None)


def is_named_tuple(cls: type) -> bool:
    """Whether the class is a named tuple."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_plain(cls: type) -> bool:
    """Whether instances are their attributes and nothing else, so that they can be sent as these."""
    heap = all(base.__flags__ & 1 << 9 for base in cls.__mro__[:-1])
    slots = sum(len(_slots(base)) for base in cls.__mro__)
    return heap and cls.__basicsize__ <= object.__basicsize__ + _WORD * (slots + 2)  # two more: __dict__, __weakref__


def class_ext(cls: type) -> Ext:
    """A class as a value."""
    return Ext(CLASS, name_of(cls).encode("utf-8", "surrogatepass"))
