"""What a caller must know of the classes in a graph's JSON schemas, to send objects of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from agentmatrix.card import class_kind
from agentmatrix.wire.codec import types_of
from agentmatrix.wire.objects import wire_name

__all__ = ["describe_types"]


def describe_types(graph: Any, schemas: Mapping[str, Any]) -> dict[str, tuple[str, str, Mapping[str, Any] | None]]:
    """The classes that JSON schemas describe: by their name there, the name on the wire, the kind, an enum's members.

    Args:
        graph: the graph.
        schemas: its JSON schemas. Of two classes with one name there pydantic gives both another: they are left out.
    """
    described = {name for schema in schemas.values() for name in (schema or {}).get("$defs", ())}
    found: dict[str, tuple[str, str, Mapping[str, Any] | None]] = {}
    for cls in types_of(getattr(graph, "InputType", None), getattr(graph, "OutputType", None)):
        if cls.__name__ in described:
            if not issubclass(cls, Enum):
                found[cls.__name__] = (wire_name(cls), class_kind(cls), None)
                continue
            members = {name: member.value for name, member in cls.__members__.items()}
            if all(type(value) in (str, int, float, bool, type(None)) for value in members.values()):
                found[cls.__name__] = (wire_name(cls), "enum", members)
    return found
