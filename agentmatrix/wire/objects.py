"""Instances of classes: one `ObjectCodec` for each kind of class. Decoding calls no constructor."""

from __future__ import annotations

import contextlib
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
from agentmatrix.wire.extensions import CLASS, NATIVE, OBJECT, InvalidPart, Marker, PartDecoder, PartEncoder


def wire_name(cls: type) -> str:
    """The name of a class on the wire: `"module:qualname"`."""
    return f"{cls.__module__}:{cls.__qualname__}"


class ObjectCodec(Marker):
    """Encodes and decodes the instances of one class. It is itself the marker of their payloads."""

    __slots__ = ("cls", "ext")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.ext = Ext(OBJECT, wire_name(cls).encode("utf-8", "surrogatepass"))

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        """Return `[self.ext, part, ...]` or `{"": self.ext, name: part, ...}`."""
        raise NotImplementedError


set_attribute: Final[Callable[[Any, str, Any], None]] = object.__setattr__
"""Sets attributes of frozen classes too."""


def expect_dict(payload: Any, what: str) -> dict[str, Any]:
    """The payload itself; raise `InvalidPart` if it is no dict."""
    if type(payload) is not dict:
        raise InvalidPart(f"{what} are a {type(payload).__name__}")
    return payload


class DataclassCodec(ObjectCodec):
    """Dataclasses: their fields, and the other attributes of the instance under the key `"+"`."""

    __slots__ = ("_check", "_fields", "_names")

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self._names = tuple(field.name for field in dataclasses.fields(cls))
        self._fields = frozenset(self._names)
        self._check = validation.check_of(cls)

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        out: dict[str, Any] = {"": self.ext}
        for name in self._names:
            try:
                item = getattr(value, name)
            except AttributeError:
                continue
            out[name] = encoder.encode_field(item, f".{name}", depth)
        others = _own_attributes(value, self._fields)
        if others:
            out["+"] = encode_attributes(encoder, others, depth)
        return out

    def from_map(self, decoder: PartDecoder, payload: dict[str, Any], depth: int) -> Any:
        decoder.charge(400)
        del payload[""]
        others = decoder.decode_field(payload.pop("+", None), "", depth)
        for name, item in payload.items():
            if type(item) not in NATIVE:
                payload[name] = decoder.decode_field(item, f".{name}", depth)
        if not payload.keys() <= self._fields:
            raise InvalidPart(f"{self.cls.__qualname__} has no field {min(payload.keys() - self._fields)!r}")
        if self._check is not None:
            self._check(payload)
        instance: Any = object.__new__(self.cls)
        for name, item in payload.items():
            set_attribute(instance, name, item)
        _restore(instance, others)
        if self._check is not None:
            self._check.check_instance(instance)
        return _checked_fields(instance)


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


def encode_attributes(encoder: PartEncoder, attributes: dict[str, Any], depth: int) -> dict[str, Any]:
    """Encode a dict of attributes that is a part of an object at `depth`."""
    return {name: encoder.encode_field(item, f".{name}", depth + 1) for name, item in attributes.items()}


def _restore(instance: Any, attributes: Any) -> None:
    """Set the attributes that `_own_attributes` or `instance_state` returned on the other side."""
    if attributes is None:
        return
    for name, item in expect_dict(attributes, "attributes").items():
        if name.startswith("__") and name.endswith("__"):
            raise InvalidPart(f"an attribute {name}")
        set_attribute(instance, name, item)


class EnumCodec(ObjectCodec):
    """Enum members, by name; combined flags by value. The value of a member is for those who do not have the class."""

    __slots__ = ()

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        if isinstance(value, Flag) or value._name_ not in self.cls.__members__:  # type: ignore[attr-defined]
            return {"": self.ext, "name": None, "value": encoder.encode_field(value._value_, ".value", depth)}
        out = {"": self.ext, "name": value._name_}
        with contextlib.suppress(InvalidPart):
            out["value"] = encoder.encode_field(value._value_, ".value", depth)
        return out

    def from_map(self, decoder: PartDecoder, payload: dict[str, Any], depth: int) -> Any:
        decoder.charge(300)
        if (name := payload["name"]) is not None:
            return self.cls.__members__[name]  # type: ignore[attr-defined]
        make: Any = self.cls
        return make(decoder.decode_field(payload["value"], ".value", depth))


class NamedTupleCodec(ObjectCodec):
    """Named tuples: their fields."""

    __slots__ = ("_fields",)

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self._fields: tuple[str, ...] = cls._fields

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        fields = zip(self._fields, value, strict=True)
        return {"": self.ext} | {name: encoder.encode_field(item, f".{name}", depth) for name, item in fields}

    def from_map(self, decoder: PartDecoder, payload: dict[str, Any], depth: int) -> Any:
        decoder.charge(300 + 16 * len(payload))
        del payload[""]
        if payload.keys() != {*self._fields}:
            name = min({*self._fields} ^ payload.keys())
            lacks = "lacks its" if name in self._fields else "has no"
            raise InvalidPart(f"{self.cls.__qualname__} {lacks} field {name!r}")
        make: Any = tuple.__new__
        return make(self.cls, [decoder.decode_field(payload[name], f".{name}", depth) for name in self._fields])


_IMMUTABLE: Final = (str, bytes, int, float, complex, tuple, frozenset)
_FILLERS: Final[dict[Any, Any]] = {
    list: list.extend,
    bytearray: bytearray.extend,
    set: set.update,
    OrderedDict: OrderedDict.update,
    dict: dict.update,
}


class SubclassCodec(ObjectCodec):
    """Subclasses of built-in types: the built-in value and the instance's attributes."""

    __slots__ = ("_base",)

    def __init__(self, cls: type, base: Any) -> None:
        super().__init__(cls)
        self._base = base

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        head = [self.ext, encoder.encode_field(self._plain(value), "", depth)]
        attributes = instance_state(value)
        return [*head, encode_attributes(encoder, attributes, depth)] if attributes else head

    def _plain(self, value: Any) -> Any:
        """The built-in value alone, whatever the subclass overrides."""
        base = self._base
        if base in (dict, OrderedDict):
            return base(base.items(value))
        if base in (str, bytes, int, float):
            return base.__getnewargs__(value)[0]
        return base(base.__iter__(value)) if hasattr(base, "__iter__") else base(value)

    def from_list(self, decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
        value, *attributes = decoder.decode_rest(payload, depth)
        base: Any = self._base
        if type(value) is not base:
            raise InvalidPart(f"{self.cls.__qualname__} of a {type(value).__name__}")
        if base in _FILLERS:
            instance = base.__new__(self.cls)  # type: ignore[call-overload]
            _FILLERS[base](instance, value)
        else:
            instance = base.__new__(self.cls, value)
        if attributes:
            _restore(instance, attributes[0])
        return instance


_SECONDS: Final = (int, float, timedelta, NoneType)
_WORD: Final = struct.calcsize("P")
HEAP_TYPE: Final = 1 << 9
"""CPython's Py_TPFLAGS_HEAPTYPE: a class that a `class` statement made, in contrast to one written in C."""


def _slots(cls: type) -> list[str]:
    """The names of the attributes in the slots that a class itself declares."""
    slots = cls.__dict__.get("__slots__", ())
    return [
        f"_{cls.__name__.lstrip('_')}{slot}" if slot.startswith("__") and not slot.endswith("__") else slot
        for slot in ((slots,) if isinstance(slots, str) else slots)
        if slot not in ("__dict__", "__weakref__")
    ]


def instance_state(value: Any) -> dict[str, Any]:
    """The attributes of an instance, in slots and in its `__dict__`."""
    names = [slot for cls in reversed(type(value).__mro__) for slot in _slots(cls)]
    state = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return state | _own_attributes(value, frozenset())


class PlainObjectCodec(ObjectCodec):
    """Classes of no other kind: their attributes."""

    __slots__ = ()

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        return [self.ext, encode_attributes(encoder, instance_state(value), depth)]

    def from_list(self, decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
        (attributes,) = decoder.decode_rest(payload, depth)
        instance: Any = object.__new__(self.cls)
        _restore(instance, attributes)
        return _checked_fields(instance)


_FIELD_TYPES: Final[dict[type, dict[str, tuple[type, ...]]]] = {
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


def _checked_fields(instance: Any) -> Any:
    """The instance itself; raise `InvalidPart` for fields of a type that LangGraph's constructor would not take."""
    for cls, kinds in _FIELD_TYPES.items():
        if isinstance(instance, cls):
            for name, allowed in kinds.items():
                if not isinstance(getattr(instance, name, None), allowed):
                    raise InvalidPart(
                        f"{cls.__name__} whose {name} is a {type(getattr(instance, name, None)).__name__}"
                    )
    return instance


def base_of(cls: type) -> type | None:
    """The built-in type that a class derives from, if it is one that `SubclassCodec` knows."""
    return next((base for base in cls.__mro__ if base in _FILLERS or base in _IMMUTABLE), None)


def is_named_tuple(cls: type) -> bool:
    """Whether the class is a named tuple."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_plain(cls: type) -> bool:
    """Whether instances are nothing but their attributes: no base class keeps other memory in C."""
    heap = all(base.__flags__ & HEAP_TYPE for base in cls.__mro__[:-1])
    slots = sum(len(_slots(base)) for base in cls.__mro__)
    return heap and cls.__basicsize__ <= object.__basicsize__ + _WORD * (slots + 2)  # two more: __dict__, __weakref__


def class_ext(cls: type) -> Ext:
    """The extension for a class that is itself the value."""
    return Ext(CLASS, wire_name(cls).encode("utf-8", "surrogatepass"))
