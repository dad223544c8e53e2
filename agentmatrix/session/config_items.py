"""The items of a config on the wire: each by itself, so that one which cannot cross does no harm to the others.

A value that msgpack has is sent as it is, a tuple of such as a list, any other as the codec's bytes. What cannot be
encoded here, or decoded there, is an `UnencodableValue` on the host, which raises when a node uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from langgraph.runtime import ExecutionInfo

from agentmatrix.errors import DecodeError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.objects import instance_state, set_attribute
from agentmatrix.wire.unencodable import UnencodableValue
from agentmatrix.wire.unlisted import UnlistedValue, not_allowed

__all__ = [
    "ContextFields",
    "pack_checkpoint_map",
    "pack_fields",
    "pack_items",
    "pack_more",
    "unpack_checkpoint_map",
    "unpack_context",
    "unpack_fields",
    "unpack_items",
    "unpack_more",
]

_NAMESPACE: Final[list[Any]] = []
"""Stands for the namespace of the run. Another list is a tuple of plain values; lists among the items are bytes."""
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_INFO_FIELDS: Final = tuple(field.name for field in fields(ExecutionInfo))


def pack_items(
    values: Mapping[str, Any], where: str, codec: Codec, left_out: dict[str, Any], namespace: str = ""
) -> dict[str, Any]:
    """The items for the host.

    Args:
        values: the items; their keys are strings.
        where: the name of the mapping in errors.
        codec: encodes them.
        left_out: takes the parts that cannot be encoded, see `Codec.encode_partly`.
        namespace: of the run, which may be long: where an item is that, it is not sent again.
    """
    packed: dict[str, Any] = {}
    for key, value in values.items():
        if namespace and value == namespace and type(value) is str:
            packed[key] = _NAMESPACE
            continue
        if type(value) in _PLAIN:
            packed[key] = value
        elif type(value) is tuple and value and _PLAIN.issuperset(map(type, value)):
            packed[key] = [*value]
        else:
            packed[key] = codec.encode_partly(value, f'{where}["{key}"]', left_out)
    return packed


def unpack_items(packed: Mapping[str, Any], where: str, codec: Codec, namespace: object = "") -> dict[str, Any]:
    """The items on the host; arguments as of `pack_items`."""
    items: dict[str, Any] = {}
    for key, value in packed.items():
        if type(value) is bytes:
            items[key] = _decoded(value, f'{where}["{key}"]', codec)
        elif type(value) is list:
            items[key] = tuple(value) if value else namespace
        else:
            items[key] = value
    return items


def pack_more(values: Mapping[str, Any], known: Mapping[str, Any], pack: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Items of which the host gets most by another way already: in a list what is more than those.

    Args:
        values: the items.
        known: those that the host gets.
        pack: packs items.
    """
    more = {key: value for key, value in values.items() if key not in known or known[key] is not value}
    return pack(values) if len(values) - len(more) < len(known) else [pack(more)]


def unpack_more(packed: Any, known: Mapping[str, Any], unpack: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """The items on the host; arguments as of `pack_more`."""
    return {**known, **unpack(packed[0])} if type(packed) is list else unpack(packed)


def pack_fields(info: ExecutionInfo | None) -> dict[str, Any] | None:
    """What a task knows of its own execution, as plain data."""
    return None if info is None else {name: getattr(info, name) for name in _INFO_FIELDS}


def unpack_fields(packed: Mapping[str, Any] | None) -> ExecutionInfo | None:
    """The same on the host; the other side may have a LangGraph whose tasks know more."""
    return None if packed is None else ExecutionInfo(**{key: packed[key] for key in _INFO_FIELDS if key in packed})


def _decoded(data: bytes, where: str, codec: Codec) -> Any:
    try:
        return codec.decode(data, where)
    except DecodeError as error:
        return UnencodableValue(f"{error} on the host: Host(allow=[...])")


def pack_checkpoint_map(ids: Mapping[str, Any], namespace: str) -> list[list[Any]]:
    """The checkpoints of the graphs around a nested one, for the host.

    Their namespaces are beginnings of the nested one's, which may be long: each is sent as its length.

    Args:
        ids: checkpoint ids by namespace.
        namespace: of the nested graph.
    """
    return [[len(outer) if namespace.startswith(outer) else outer, number] for outer, number in ids.items()]


def unpack_checkpoint_map(packed: Any, namespace: Any) -> dict[str, Any]:
    """The checkpoint ids by namespace on the host.

    Raises:
        DecodeError: they are none.
    """
    try:
        return {outer if isinstance(outer, str) else namespace[:outer]: number for outer, number in packed}
    except (TypeError, ValueError) as error:
        raise DecodeError("the checkpoints of the graphs around the run cannot be read") from error


class ContextFields:
    """On the host, the fields of a caller's context whose class the host does not have: they read as attributes."""

    def __init__(self, value: UnlistedValue) -> None:
        self._type = value.type
        self.__dict__.update((str(name), item) for name, item in value.items())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"the caller's context is a {self._type}, which the host has not listed: it has come with its fields, and "
            f"{name!r} is none of them; list the class with Host(allow=[...])"
        )

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __repr__(self) -> str:
        return f"<context {self._type}: {', '.join(name for name in self.__dict__ if name != '_type')}>"


def unpack_context(data: bytes | None, codec: Codec) -> Any:
    """The caller's context on the host: of its own class if that is listed, else its fields.

    Args:
        data: from `Codec.encode_partly`; None for no context.
        codec: the codec of the graph.
    """
    if data is None:
        return None
    context = codec.for_replies().decode(data, "context")
    if isinstance(context, UnlistedValue):
        for name, value in context.items():
            context[name] = _or_refused(value, name)
        return ContextFields(context)
    if isinstance(context, dict):
        return {name: _or_refused(value, name) for name, value in context.items()}
    for name, value in _fields_of(context).items():
        if (refused := _or_refused(value, name)) is not value:
            set_attribute(context, name, refused)
    return context


def _fields_of(context: Any) -> dict[str, Any]:
    return {} if type(context) is UnencodableValue or isinstance(context, tuple) else instance_state(context)


def _or_refused(value: Any, name: str) -> Any:
    """The value of a field; an `UnencodableValue` where the host has not listed its class, or that of a part of it."""
    found = _first_unlisted(value)
    return (
        value
        if found is None
        else UnencodableValue(f"context.{name}: {not_allowed(found)} on the host: Host(allow=...)")
    )


def _first_unlisted(value: Any) -> str | None:
    if isinstance(value, UnlistedValue):
        return value.wire_name
    if type(value) in (list, tuple, dict, set):
        return next(filter(None, map(_first_unlisted, value.values() if type(value) is dict else value)), None)
    return None
