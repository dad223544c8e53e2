"""Objects of a class: how each kind of class is taken apart and put together again, without its constructor."""

from __future__ import annotations

import copy
import dataclasses
import functools
import struct
import sys
from collections import OrderedDict
from enum import Enum, Flag
from typing import Any, Final

from ormsgpack import Ext
from pydantic import BaseModel
from pydantic.fields import ModelPrivateAttr
from pydantic_core import PydanticUndefined

from agentmatrix.wire import validation
from agentmatrix.wire.marks import CLASS, OBJECT, Decoding, Encoding, Marker, Refusal


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


def _set(target: Any, name: str, value: Any) -> None:
    object.__setattr__(target, name, value)


def _dict_of(payload: Any, what: str) -> dict[str, Any]:
    if type(payload) is not dict:
        raise Refusal(f"{what} are a {type(payload).__name__}")
    return payload


class ModelShape(Shape):
    """Pydantic models: fields, extra fields, private attributes and which fields were set."""

    __slots__ = ("_check", "_extra", "_fields", "_root")

    def __init__(self, cls: type[BaseModel]) -> None:
        super().__init__(cls)
        if not cls.__pydantic_complete__:
            cls.model_rebuild(raise_errors=False)
        self._fields = cls.__pydantic_fields__
        self._extra = cls.model_config.get("extra") == "allow"
        self._root = cls.__pydantic_root_model__
        self._check: validation.Check | None = None

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        out: dict[str, Any] = {"": self.ext}
        for name, item in value.__dict__.items():
            if name in self._fields:
                out[name] = walk.field(item, f".{name}", depth)
        out["="] = list(value.__pydantic_fields_set__)
        if value.__pydantic_extra__:
            out["+"] = walk.mapping(value.__pydantic_extra__, depth)
        if value.__pydantic_private__:
            out["_"] = self._private(walk, value.__pydantic_private__, depth)
        return out

    @staticmethod
    def _private(walk: Encoding, private: dict[str, Any], depth: int) -> dict[str, Any]:
        # A private attribute may be a lock or a client: it then takes its default over there.
        out = {}
        for name, item in private.items():
            try:
                out[name] = walk.field(item, f".{name}", depth + 1)
            except Refusal:
                continue
        return out

    def from_map(self, walk: Decoding, payload: dict[str, Any], depth: int) -> Any:
        walk.charge(600)
        del payload[""]
        fields_set = payload.pop("=", [])
        extra = walk.field(payload.pop("+", None), "", depth)
        private = walk.field(payload.pop("_", None), "", depth)
        for name, item in payload.items():
            payload[name] = walk.field(item, f".{name}", depth)
        if self._check is None:
            self._check = validation.Check(self.cls)
        if extra is not None and not self._extra:
            raise Refusal(f"{self.cls.__qualname__} takes no extra fields")
        self._check(payload, extra and _dict_of(extra, "extra fields"))
        model = self._assemble(payload, fields_set, extra, private)
        self._check.whole(model)
        return model

    def _assemble(self, fields: dict[str, Any], fields_set: Any, extra: Any, private: Any) -> Any:
        known = self._fields.keys() | (extra or {}).keys()
        if type(fields_set) is not list or not known >= set(fields_set):
            raise Refusal("unknown fields are said to be set")
        model: Any = object.__new__(self.cls)
        _set(model, "__dict__", fields)
        _set(model, "__pydantic_fields_set__", set(fields_set))
        if not self._root:
            _set(model, "__pydantic_extra__", (extra or {}) if self._extra else None)
            _set(model, "__pydantic_private__", self._private_of(private))
        return model

    def _private_of(self, sent: Any) -> dict[str, Any] | None:
        attributes = self.cls.__private_attributes__  # type: ignore[attr-defined]
        if not attributes:
            return None
        values = {name: _default(item) for name, item in attributes.items() if name not in (sent or {})}
        values.update(sent or {})
        if not values.keys() <= attributes.keys():
            raise Refusal("unknown private attributes")
        return {name: item for name, item in values.items() if item is not PydanticUndefined}


def _default(attribute: ModelPrivateAttr) -> Any:
    if attribute.default_factory is not None:
        return attribute.default_factory()  # type: ignore[call-arg]
    return copy.deepcopy(attribute.default)


class OldModelShape(Shape):
    """Models of pydantic's version 1 interface: fields and extra fields, private attributes, which were set."""

    __slots__ = ()

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        private = {name: getattr(value, name) for name in self.cls.__private_attributes__ if hasattr(value, name)}  # type: ignore[attr-defined]
        return [
            self.ext,
            _attributes(walk, value.__dict__, depth),
            list(value.__fields_set__),
            _attributes(walk, private, depth),
        ]

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        fields, fields_set, private = walk.rest(payload, depth)
        validation.check_old(self.cls, _dict_of(fields, "fields"))
        model: Any = object.__new__(self.cls)
        _set(model, "__dict__", fields)
        _set(model, "__fields_set__", set(fields_set))
        for name, item in private.items():
            if name not in model.__private_attributes__:
                raise Refusal(f"{self.cls.__qualname__} has no private attribute {name!r}")
            _set(model, name, item)
        return model


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
            out["+"] = _attributes(walk, more, depth)
        return out

    def from_map(self, walk: Decoding, payload: dict[str, Any], depth: int) -> Any:
        walk.charge(400)
        del payload[""]
        more = walk.field(payload.pop("+", None), "", depth)
        for name, item in payload.items():
            payload[name] = walk.field(item, f".{name}", depth)
        if not payload.keys() <= self._fields:
            raise Refusal(f"{self.cls.__qualname__} has no field {min(payload.keys() - self._fields)!r}")
        if self._check is not None:
            self._check(payload)
        instance: Any = object.__new__(self.cls)
        for name, item in payload.items():
            _set(instance, name, item)
        _restore(instance, more)
        return instance


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


def _attributes(walk: Encoding, attributes: dict[str, Any], depth: int) -> dict[str, Any]:
    return {name: walk.field(item, f".{name}", depth + 1) for name, item in attributes.items()}


def _restore(instance: Any, attributes: Any) -> None:
    """Set what `_own_attributes` found."""
    if attributes is None:
        return
    for name, item in _dict_of(attributes, "attributes").items():
        if name.startswith("__") and name.endswith("__"):
            raise Refusal(f"an attribute {name}")
        _set(instance, name, item)


class EnumShape(Shape):
    """Enum members, by name; combined flags by value."""

    __slots__ = ()

    def lower(self, walk: Encoding, value: Any, depth: int) -> Any:
        if not isinstance(value, Flag) and value._name_ in self.cls.__members__:  # type: ignore[attr-defined]
            return [self.ext, value._name_]
        return [self.ext, None, walk.field(value._value_, ".value", depth)]

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        name, *value = walk.rest(payload, depth)
        if name is not None:
            return self.cls.__members__[name]  # type: ignore[attr-defined]
        return self.cls(*value)


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
        return tuple.__new__(self.cls, items)


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
        return [*head, _attributes(walk, attributes, depth)] if attributes else head

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
            instance = base.__new__(self.cls)
            _FILLED[base](instance, value)
        else:
            instance = base.__new__(self.cls, value)
        if attributes:
            _restore(instance, attributes[0])
        return instance


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
        return [self.ext, _attributes(walk, state_of(value), depth)]

    def from_list(self, walk: Decoding, payload: list[Any], depth: int) -> Any:
        (attributes,) = walk.rest(payload, depth)
        instance: Any = object.__new__(self.cls)
        _restore(instance, attributes)
        return instance


def base_of(cls: type) -> type | None:
    """The built-in type that a class derives from, if it is one that `DerivedShape` knows."""
    return next((base for base in cls.__mro__ if base in _FILLED or base in _IMMUTABLE), None)


def is_named_tuple(cls: type) -> bool:
    """Whether the class is a named tuple."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_old_model(cls: type) -> bool:
    """Whether the class is a model of pydantic's version 1 interface, which later Pythons do not have."""
    old = sys.modules.get("pydantic.v1")
    return old is not None and issubclass(cls, old.BaseModel)


def is_plain(cls: type) -> bool:
    """Whether instances are their attributes and nothing else, so that they can be sent as these."""
    heap = all(base.__flags__ & 1 << 9 for base in cls.__mro__[:-1])
    slots = sum(len(_slots(base)) for base in cls.__mro__)
    return heap and cls.__basicsize__ <= object.__basicsize__ + _WORD * (slots + 2)  # two more: __dict__, __weakref__


def shape_of(cls: type) -> Shape | None:
    """How instances of a class cross; None if there is no way."""
    if issubclass(cls, BaseModel):
        return ModelShape(cls)
    if is_old_model(cls):
        return OldModelShape(cls)
    if issubclass(cls, Enum):
        return EnumShape(cls)
    if dataclasses.is_dataclass(cls) and is_plain(cls):
        return DataclassShape(cls)
    if is_named_tuple(cls):
        return NamedTupleShape(cls)
    base = base_of(cls)
    if base is not None and base is not cls:
        return DerivedShape(cls, base)
    return PlainShape(cls) if is_plain(cls) else None


def class_ext(cls: type) -> Ext:
    """A class as a value."""
    return Ext(CLASS, name_of(cls).encode("utf-8", "surrogatepass"))
