"""What a `StateGraph` has been told: edges, joins, routers, schemas and managed values, by LangGraph's own names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from langgraph.graph import StateGraph
from langgraph.managed.base import is_managed_value
from langgraph.types import Command
from pydantic import BaseModel

__all__ = [
    "add_join",
    "copy_builder",
    "default_error_handler",
    "edges_of",
    "joins_of",
    "declared_input",
    "input_keys_of",
    "keys_of_schema",
    "managed_values",
    "routers_of",
    "schemas_of",
    "set_router_path",
]

AnyBuilder = StateGraph[Any, Any, Any, Any]
Builder = TypeVar("Builder", bound=AnyBuilder)


def edges_of(builder: AnyBuilder) -> set[tuple[str, str]]:
    """All edges, those of joins included, one for each of its sources."""
    return builder._all_edges


def joins_of(builder: AnyBuilder) -> set[tuple[tuple[str, ...], str]]:
    """The edges that wait for several nodes: their sources and their target."""
    return builder.waiting_edges


def add_join(builder: AnyBuilder, sources: tuple[str, ...], target: str) -> None:
    """Add an edge that waits for several nodes, which may be added later: `add_edge` wants them to exist."""
    builder.waiting_edges.add((sources, target))


def routers_of(builder: AnyBuilder) -> Mapping[str, Mapping[str, Any]]:
    """The conditional edges: by node, then by name of the router, with `ends` (the targets by their label, or None),
    `path` (the router as a Runnable) and `input_schema`."""
    return builder.branches


def set_router_path(builder: AnyBuilder, node: str, name: str, path: Any) -> None:
    """Give a router of a copied builder another Runnable; its targets and its schema stay."""
    routers = builder.branches[node]
    builder.branches[node] = {**routers, name: routers[name]._replace(path=path)}


def default_error_handler(builder: AnyBuilder) -> Any:
    """The error handler of nodes that have none of their own, or None."""
    return builder._node_defaults.error_handler


def keys_of_schema(builder: AnyBuilder, schema: Any) -> list[str]:
    """The keys of one of the schemas of a graph or of its nodes."""
    return list(builder.schemas[schema])


def input_keys_of(graph: Any) -> frozenset[str] | None:
    """The keys of the state that a compiled graph takes of its input; None where its input is no such state."""
    builder = getattr(graph, "builder", None)
    if builder is None:
        known: frozenset[str] | None = getattr(graph, "input_keys", None)  # a remote agent, hosted in turn
        return known
    keys = [key for key, channel in builder.schemas[builder.input_schema].items() if not is_managed_value(channel)]
    return None if keys == ["__root__"] else frozenset(keys)


def declared_input(value: Any, keys: frozenset[str]) -> Any:
    """What a graph with these input keys takes of an input: of a state, the values of its keys.

    Args:
        value: the input; the state of a graph around it is a dict, or an object of that graph's own class.
        keys: from `input_keys_of`.
    """
    if isinstance(value, dict):
        return value if value.keys() <= keys else {key: item for key, item in value.items() if key in keys}
    annotated = any(base.__dict__.get("__annotations__") for base in type(value).__mro__)
    if value is None or isinstance(value, (Command, list, tuple)) or not annotated:
        return value
    found = {key: getattr(value, key) for key in sorted(keys) if hasattr(value, key)}
    if not isinstance(value, BaseModel):
        return found
    # As in LangGraph, a None of a model counts unless it is a default that nobody gave.
    defaults = {key: field.default for key, field in type(value).model_fields.items()}
    said = value.model_fields_set
    return {k: v for k, v in found.items() if v is not None or defaults.get(k, ...) is not None or k in said}


def schemas_of(graph: Any) -> list[Any]:
    """All schemas of a compiled graph: of its state, input, output, context, nodes and channels."""
    builder = getattr(graph, "builder", None)
    schemas: list[Any] = [getattr(graph, "context_schema", None)]
    schemas += [getattr(builder, name, None) for name in ("state_schema", "input_schema", "output_schema")]
    schemas += list(getattr(builder, "schemas", ()))
    for channel in getattr(graph, "channels", {}).values():
        schemas += [getattr(channel, "ValueType", None), getattr(channel, "UpdateType", None)]
    return [schema for schema in schemas if schema is not None]


def managed_values(builder: AnyBuilder) -> Mapping[str, Any]:
    """The managed values of the state, by key."""
    return builder.managed


def copy_builder(builder: Builder) -> Builder:
    """A copy that can be completed and compiled while the builder stays as it is."""
    other = copy.copy(builder)
    other.nodes = dict(builder.nodes)
    other.edges = set(builder.edges)
    other.branches = builder.branches.copy()
    other.channels = dict(builder.channels)
    other.schemas = dict(builder.schemas)
    return other
