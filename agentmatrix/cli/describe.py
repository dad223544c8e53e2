"""`describe` and `draw`: what an agent is and looks like."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agentmatrix.card import AgentCard
from agentmatrix.card import describe as describe_graph
from agentmatrix.cli.resolve import Connection, reach
from agentmatrix.cli.targets import is_remote
from agentmatrix.transport import parse_target

__all__ = ["describe", "draw"]


def draw(target: str, connection: Connection, format: str) -> None:
    """`agentmatrix draw`: the graph as text, ASCII, Mermaid or SVG on stdout."""
    from agentmatrix.display import draw_mermaid, draw_svg, draw_text

    graph = reach(target, connection)
    if format == "mermaid":
        print(draw_mermaid(graph))
    elif format == "svg":
        print(draw_svg(graph))
    else:
        print(draw_text(graph, ascii=format == "ascii"))


def describe(target: str, connection: Connection, as_json: bool) -> None:
    """`agentmatrix describe`: the card of one agent, or the names of all that a host has."""
    if is_remote(target) and not parse_target(target).agent:
        agents = connection.agents(target)
        print(json.dumps(agents) if as_json else "\n".join(_columns(agents.items())))
        return
    graph = reach(target, connection)
    remote = is_remote(target)
    card: AgentCard = graph.card if remote else AgentCard.unpack(describe_graph(graph, lambda saver: ""))
    where = f"at {parse_target(target).url}" if remote else "in this process"
    print(json.dumps(_facts(card, where), indent=2) if as_json else "\n".join(_columns(_rows(card, where))))


def _facts(card: AgentCard, where: str) -> dict[str, Any]:
    return {
        "name": card.name,
        "description": card.description,
        "runs": where,
        "schemas": dict(card.schemas),
        "without_schema": dict(card.unmade),
        "checkpointer": card.checkpointer,
        "subgraphs": sorted(card.subgraphs),
        "signals": sorted(_signals(card)),
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
        yield "subgraphs", ", ".join(_names(card))
    if signals := sorted(_signals(card)):
        yield "signals", ", ".join(signals)


def _names(card: AgentCard, above: str = "") -> Iterable[str]:
    for name, nested in card.subgraphs.items():
        yield above + name
        yield from _names(nested, f"{above}{name}/")


def _signals(card: AgentCard, above: str = "") -> Iterable[str]:
    """The addresses of its signals, with those of nested graphs."""
    yield from (above + name for name in card.signals or ())
    for node, nested in card.subgraphs.items():
        yield from _signals(nested, f"{above}{node}/")


def _fields(schema: dict[str, Any]) -> str:
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
    # A message has a dozen shapes, which tell a reader nothing.
    plain = isinstance(inner, dict) and not ({"oneOf", "anyOf"} & inner.keys())
    return f"{name} of {_type(inner)}" if plain and inner else str(name)


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {text}".rstrip() for name, text in rows]
