"""What stands for an instance of a class that is not in the allow-list, where that is no error.

Towards a caller it is an `UnlistedValue`. Encoded again it is what it was, so a host that has the class gets its own
object back. A caller's checkpointer, cache and store keep its bytes in a dict, see `STORED_TYPE`: a dict comes through
each serializer as it is, while the fields of an object would lose their tuples, and their own classes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

import ormsgpack
from ormsgpack import Ext

from agentmatrix.wire.extensions import CLASS, OBJECT, TAG, InvalidPart, Marker, PartDecoder, PartEncoder

__all__ = ["UnlistedValue"]

STORED_TYPE: Final = "agentmatrix:type"
"""The key that a dict in a caller's checkpointer, cache or store has where it stands for an object. Its value is the
name of the object's class, for readers, and the key `""` has the object's bytes, in base64 for a store. Where a dict of
the graph's own has this key, the name is empty, and that dict is under `""`."""
_BESIDE: Final = frozenset({"=", "+", "_"})


def not_allowed(name: str) -> str:
    """The error text for a class, `"module:qualname"`, that is not in the allow-list."""
    return f"the type {name.replace(':', '.')} is not listed; admit it with {option_for(name)}"


def option_for(name: str) -> str:
    """The option that admits a class, `"module:qualname"`."""
    module, _, qualname = name.partition(":")
    short = qualname.rpartition(".")[2]
    return f"allow=[{short}]" if "<locals>" in qualname else f'allow=["{module}"] or allow=[{short}]'


class UnlistedValue(dict[Any, Any]):
    """An object of a class that this process does not have, or has not listed: a dict of its fields.

    A model, a dataclass and a named tuple are their fields, an enum member is its `name` and `value`. Sent back to the
    host, it becomes the host's object again. A parent's own checkpoint keeps the dict alone.

    Args:
        type: the class, `"module:qualname"`.
        fields: the fields.
    """

    __slots__ = ("_beside", "_name")

    def __init__(self, type: str, fields: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(fields)
        self._name = type
        self._beside: dict[str, Any] = {}

    @property
    def wire_name(self) -> str:
        """The name of the class on the wire, `"module:Class"`."""
        return self._name

    @property
    def type(self) -> str:
        """The name of the class, `"module.Class"`."""
        return str(self._name).replace(":", ".")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        read = f"read [{name!r}], or " if name in self else ""
        raise AttributeError(
            f"the type {self.type} is not listed, so its object has come as a dict, without {name!r} as an attribute; "
            f"{read}admit the class with {option_for(self._name)}"
        )

    def copy(self) -> UnlistedValue:
        """A copy that stands for an object of the same class."""
        other = UnlistedValue(self._name, self)
        other._beside = dict(self._beside)
        return other

    def __repr__(self) -> str:
        return f"UnlistedValue({self.type!r}, {dict.__repr__(self)})"


class UnlistedMarker(Marker):
    """The marker of an object of an unlisted class: decodes it to an `UnlistedValue`, or to what is stored of it.

    Args:
        name: the wire name of the class.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def from_map(self, decoder: PartDecoder, payload: dict[str, Any], depth: int) -> Any:
        decoder.charge(600)
        del payload[""]
        with decoder.inside_unlisted():
            for name, item in payload.items():
                payload[name] = decoder.decode_field(item, "" if name in _BESIDE else f".{name}", depth)
        beside = {name: payload.pop(name) for name in _BESIDE & payload.keys()}
        extra = beside.get("+") or {}
        if type(extra) is not dict:
            raise InvalidPart(f"attributes are a {type(extra).__name__}")
        value = UnlistedValue(self._name, {**payload, **extra})
        value._beside = {**beside, "+": frozenset(extra)}
        return decoder.unlisted(value)

    def from_list(self, decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
        # An ordinary object, by its attributes, or a subclass of a built-in type. Without its class a string is a
        # string, a list is a list: LangGraph's serializer keeps no more of them.
        with decoder.inside_unlisted():
            value, *attributes = decoder.decode_rest(payload, depth)
        if not isinstance(value, dict):
            return value
        made = UnlistedValue(self._name, value)
        made._beside = {"base": type(value), "attributes": attributes}
        return decoder.unlisted(made)


class UnlistedClass:
    """A class that is itself the value, and not listed. As `Undecodable`, it is turned into a value at its place."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def value(self) -> UnlistedValue:
        made = UnlistedValue(self._name)
        made._beside = {"class": True}
        return made


def encode_unlisted(encoder: PartEncoder, value: UnlistedValue, depth: int) -> Any:
    """Encode the object that an `UnlistedValue` stands for."""
    beside, name = value._beside, value._name.encode("utf-8", "surrogatepass")
    if "class" in beside:
        return Ext(CLASS, name)
    if "tag" in beside:
        return [Ext(TAG, bytes([beside["tag"]])), *encoder.encode_items(value.values(), depth)]
    if "base" in beside:
        plain = encoder.encode_field(beside["base"](value), "", depth)
        return [Ext(OBJECT, name), plain, *encoder.encode_items(beside["attributes"], depth)]
    extra = beside.get("+", frozenset())
    parts: dict[str, Any] = {"": Ext(OBJECT, name)}
    for key, item in value.items():
        if type(key) is not str or key == "" or (key in _BESIDE and key not in extra):
            raise InvalidPart(f"an UnlistedValue of {value.type} with the key {key!r}")
        if key not in extra:
            parts[key] = encoder.encode_field(item, f".{key}", depth)
    if type(beside.get("=")) is list:
        parts["="] = [name for name in beside["="] if name in value]
    if extra:
        parts["+"] = encoder.encode_field({key: value[key] for key in extra if key in value}, "", depth)
    if "_" in beside:
        parts["_"] = encoder.encode_field(beside["_"], "", depth)
    return parts


def stored(value: UnlistedValue, data: bytes, *, text: bool) -> dict[str, Any]:
    """What is stored of an object whose bytes are `data`; as `text` where only JSON can be stored."""
    return {STORED_TYPE: value.type, "": base64.b64encode(data).decode() if text else data}


def escaped(value: dict[Any, Any]) -> dict[Any, Any]:
    """What is stored of a dict of the graph's own that could be taken for an object."""
    return {STORED_TYPE: "", "": value}


def encode_stored(encoder: PartEncoder, value: Mapping[Any, Any], depth: int) -> Any:
    """Encode what a dict with the key `STORED_TYPE` stands for."""
    data: Any = value.get("")
    if isinstance(data, dict):
        return encoder.encode_mapping(data, depth, itself=True)
    try:
        return ormsgpack.unpackb(base64.b64decode(data) if isinstance(data, str) else data, ext_hook=Ext)
    except (TypeError, ValueError) as error:
        raise InvalidPart(f"a dict with the key {STORED_TYPE!r}, which is reserved ({error})") from None
