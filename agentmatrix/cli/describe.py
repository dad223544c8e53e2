"""`agentmatrix describe`: the card of an agent, or the agents of a host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmatrix.cli.host_options import HostOptions, takes_host_options
from agentmatrix.cli.terminal_text import json_line, terminal_text

if TYPE_CHECKING:
    from agentmatrix.card import AgentCard

__all__ = ["describe"]


@takes_host_options("allow")
def describe(
    target: Annotated[
        str, typer.Argument(help="module:attribute, path.py:attribute, host:port/agent, or host:port for its agents")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    *,
    options: HostOptions,
) -> None:
    """Show what an agent is: name, description, input and output; or which agents a host has."""
    from agentmatrix.card import AgentCard
    from agentmatrix.card import describe as describe_graph
    from agentmatrix.cli.resolve import resolve
    from agentmatrix.cli.targets import is_remote
    from agentmatrix.session.schema_types import describe_types
    from agentmatrix.transport import parse_target

    if is_remote(target) and not parse_target(target).agent:
        agents = options.agents(target)
        print(json_line(agents) if as_json else "\n".join(_columns(agents.items())))
        return
    graph = resolve(target, options)
    remote = is_remote(target)
    card: AgentCard = (
        graph.card if remote else AgentCard.unpack(describe_graph(graph, lambda saver: "", describe_types))
    )
    where = f"at {parse_target(target).url}" if remote else "in this process"
    print(json_line(_as_json(card, where), indent=2) if as_json else "\n".join(_columns(_rows(card, where))))


def _as_json(card: AgentCard, where: str) -> dict[str, Any]:
    return {
        "name": card.name,
        "description": card.description,
        "runs": where,
        "schemas": dict(card.schemas),
        "without_schema": dict(card.unmade),
        "checkpointer": card.checkpointer,
        "subgraphs": sorted(card.subgraphs),
        "signals": sorted(_signal_addresses(card)),
    }


def _rows(card: AgentCard, where: str) -> Iterable[tuple[str, str]]:
    yield "name", card.name
    if card.description:
        yield "description", card.description
    yield "runs", where
    for kind in ("input", "output", "context"):
        if schema := card.schemas.get(kind):
            yield kind, _fields(schema)
        elif reason := card.unmade.get(kind):
            yield kind, f"unknown: {reason.splitlines()[0]}"
    yield (
        "checkpointer",
        {None: "its parent's", True: "its own, in its parent's", False: "none"}.get(card.checkpointer, "its own"),
    )
    if card.subgraphs:
        yield "subgraphs", ", ".join(_subgraph_paths(card))
    if signals := sorted(_signal_addresses(card)):
        yield "signals", ", ".join(signals)


def _subgraph_paths(card: AgentCard, prefix: str = "") -> Iterable[str]:
    """The paths of all its subgraphs, parents first: `panel`, `panel/critic`."""
    for name, nested in card.subgraphs.items():
        yield prefix + name
        yield from _subgraph_paths(nested, f"{prefix}{name}/")


def _signal_addresses(card: AgentCard, prefix: str = "") -> Iterable[str]:
    """The addresses of its signals and of those of its subgraphs."""
    yield from (prefix + name for name in card.signals or ())
    for node, nested in card.subgraphs.items():
        yield from _signal_addresses(nested, f"{prefix}{node}/")


def _fields(schema: dict[str, Any]) -> str:
    """The properties of a JSON schema, `name: type`; a `?` marks those that may be left out."""
    properties = schema.get("properties")
    if not properties:
        return _type(schema)
    required = schema.get("required", ())
    return ", ".join(f"{name}: {_type(kind)}{'' if name in required else '?'}" for name, kind in properties.items())


def _type(schema: dict[str, Any]) -> str:
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " | ".join(dict.fromkeys(_type(choice) for choice in choices))
    name = schema.get("type") or schema.get("$ref", "any").rpartition("/")[2]
    inner = schema.get("items")
    # A message has a dozen alternatives, which tell a reader nothing.
    plain = isinstance(inner, dict) and not ({"oneOf", "anyOf"} & inner.keys())
    return f"{name} of {_type(inner)}" if plain and inner else str(name)


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return [terminal_text(f"{name:<{width}}  {text}".rstrip()) for name, text in rows]
