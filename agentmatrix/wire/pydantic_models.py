"""Pydantic models of versions 1 and 2, and which codec a class has."""

from __future__ import annotations

import copy
import dataclasses
import sys
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import ModelPrivateAttr
from pydantic_core import PydanticUndefined

from agentmatrix.wire import validation
from agentmatrix.wire.extensions import NATIVE, InvalidPart, PartDecoder, PartEncoder
from agentmatrix.wire.objects import (
    DataclassCodec,
    EnumCodec,
    NamedTupleCodec,
    ObjectCodec,
    PlainObjectCodec,
    SubclassCodec,
    base_of,
    encode_attributes,
    expect_dict,
    is_named_tuple,
    is_plain,
    set_attribute,
)


class ModelCodec(ObjectCodec):
    """Pydantic models: fields, and under `"="` which were set, under `"+"` extra fields, under `"_"` private ones."""

    __slots__ = ("_check", "_extra", "_fields", "_root")

    def __init__(self, cls: type[BaseModel]) -> None:
        super().__init__(cls)
        if not cls.__pydantic_complete__:
            cls.model_rebuild(raise_errors=False)
        self._fields = cls.__pydantic_fields__
        self._extra = cls.model_config.get("extra") == "allow"
        self._root = cls.__pydantic_root_model__
        self._check: validation.SchemaCheck | None = None

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        out: dict[str, Any] = {"": self.ext}
        for name, item in value.__dict__.items():
            if name in self._fields:  # else it is a cached property
                out[name] = encoder.encode_field(item, f".{name}", depth)
        out["="] = list(value.__pydantic_fields_set__)
        if value.__pydantic_extra__:
            out["+"] = encoder.encode_mapping(value.__pydantic_extra__, depth)
        if value.__pydantic_private__:
            out["_"] = self._encode_private(encoder, value.__pydantic_private__, depth)
        return out

    @staticmethod
    def _encode_private(encoder: PartEncoder, private: dict[str, Any], depth: int) -> dict[str, Any]:
        # A private attribute may be a lock or a client. It is left out and gets its default on the other side.
        out = {}
        for name, item in private.items():
            try:
                out[name] = encoder.encode_field(item, f".{name}", depth + 1)
            except InvalidPart:
                continue
        return out

    def from_map(self, decoder: PartDecoder, payload: dict[str, Any], depth: int) -> Any:
        decoder.charge(600)
        del payload[""]
        fields_set = payload.pop("=", [])
        extra = decoder.decode_field(payload.pop("+", None), "", depth)
        private = decoder.decode_field(payload.pop("_", None), "", depth)
        for name, item in payload.items():
            if (kind := type(item)) not in NATIVE and (kind not in (list, dict) or item):
                payload[name] = decoder.decode_field(item, f".{name}", depth)
        if self._check is None:
            self._check = validation.SchemaCheck(self.cls)
        if extra is not None and not self._extra:
            raise InvalidPart(f"{self.cls.__qualname__} takes no extra fields")
        self._check(payload, extra and expect_dict(extra, "extra fields"))
        model = self._assemble(payload, fields_set, extra, private)
        self._check.check_instance(model)
        return model

    def _assemble(self, fields: dict[str, Any], fields_set: Any, extra: Any, private: Any) -> Any:
        known = self._fields.keys() | extra.keys() if extra else self._fields.keys()
        if type(fields_set) is not list or not known >= (fields_set := set(fields_set)):
            raise InvalidPart("unknown fields are said to be set")
        model: Any = object.__new__(self.cls)
        set_attribute(model, "__dict__", fields)
        set_attribute(model, "__pydantic_fields_set__", fields_set)
        if not self._root:
            set_attribute(model, "__pydantic_extra__", (extra or {}) if self._extra else None)
            set_attribute(model, "__pydantic_private__", self._private_of(private))
        return model

    def _private_of(self, sent: Any) -> dict[str, Any] | None:
        attributes = self.cls.__private_attributes__  # type: ignore[attr-defined]
        if not attributes:
            return None
        values = {name: _default(item) for name, item in attributes.items() if name not in (sent or {})}
        values.update(sent or {})
        if not values.keys() <= attributes.keys():
            raise InvalidPart("unknown private attributes")
        return {name: item for name, item in values.items() if item is not PydanticUndefined}


def _default(attribute: ModelPrivateAttr) -> Any:
    if attribute.default_factory is not None:
        return attribute.default_factory()  # type: ignore[call-arg]
    return copy.deepcopy(attribute.default)


class V1ModelCodec(ObjectCodec):
    """Models of pydantic's version 1 interface: their parts have the keys that they have in `ModelCodec`."""

    __slots__ = ()

    def encode(self, encoder: PartEncoder, value: Any, depth: int) -> Any:
        cls: Any = self.cls
        private = {name: getattr(value, name) for name in cls.__private_attributes__ if hasattr(value, name)}
        fields = {name: item for name, item in value.__dict__.items() if name in cls.__fields__}
        extra = {name: item for name, item in value.__dict__.items() if name not in cls.__fields__}
        out = {"": self.ext, "=": list(value.__fields_set__)}
        out |= {name: encoder.encode_field(item, f".{name}", depth) for name, item in fields.items()}
        for key, attributes in (("+", extra), ("_", private)):
            if attributes:
                out[key] = encode_attributes(encoder, attributes, depth)
        return out

    def from_map(self, decoder: PartDecoder, payload: dict[str, Any], depth: int) -> Any:
        decoder.charge(600)
        del payload[""]
        parts = {key: decoder.decode_field(payload.pop(key, None), "", depth) for key in ("=", "+", "_")}
        fields = {name: decoder.decode_field(item, f".{name}", depth) for name, item in payload.items()}
        fields |= expect_dict(parts["+"] or {}, "extra fields")
        validation.check_v1_model(self.cls, fields)
        model: Any = object.__new__(self.cls)
        set_attribute(model, "__dict__", fields)
        set_attribute(model, "__fields_set__", set(parts["="] or ()))
        for name, item in expect_dict(parts["_"] or {}, "private attributes").items():
            if name not in model.__private_attributes__:
                raise InvalidPart(f"{self.cls.__qualname__} has no private attribute {name!r}")
            set_attribute(model, name, item)
        return model


def is_v1_model(cls: type) -> bool:
    """Whether the class is a model of pydantic's version 1 interface, which later Pythons do not have."""
    old = sys.modules.get("pydantic.v1")
    return old is not None and issubclass(cls, old.BaseModel)


def object_codec_of(cls: type) -> ObjectCodec | None:
    """The codec of a class's instances; None if they are more than their attributes."""
    if issubclass(cls, BaseModel):
        return ModelCodec(cls)
    if is_v1_model(cls):
        return V1ModelCodec(cls)
    if issubclass(cls, Enum):
        return EnumCodec(cls)
    if dataclasses.is_dataclass(cls) and is_plain(cls):
        return DataclassCodec(cls)
    if is_named_tuple(cls):
        return NamedTupleCodec(cls)
    base = base_of(cls)
    if base is not None and base is not cls:
        return SubclassCodec(cls, base)
    return PlainObjectCodec(cls) if is_plain(cls) else None
