"""The card of an agent: everything that LangGraph asks of a graph without running it.

It is made on the host, from the graph, and fetched once. Then the caller answers from it without a network: schemas,
drawings, subgraphs, and the attributes of a graph that LangGraph reads.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

import typing_extensions
from langchain_core.runnables import Runnable
from langchain_core.runnables.graph import Edge, Graph, Node
from langgraph.checkpoint.base import BaseCheckpointSaver
from pydantic import BaseModel

from agentmatrix.errors import HostUnreachable, ProtocolError
from agentmatrix.pregel.state_graph import input_keys_of

__all__ = ["AgentCard", "class_kind", "describe", "description_of", "pack_drawing", "unpack_drawing"]

_KINDS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("name", "description", "langgraph"), str),
    **dict.fromkeys(("schemas", "classes", "types", "unmade", "drawings", "channels", "subgraphs"), dict),
}
"""The types of a card's fields, for a host that is not to be trusted."""

MAX_XRAY: Final = 8
"""Up to which depth a card has a drawing of its own; besides it has the one of all levels."""


@dataclass(frozen=True)
class AgentCard:
    """The description of a graph on a host.

    Attributes:
        name: the graph's name.
        description: a sentence, from the graph's metadata or docstring; may be empty.
        checkpointer: "own" for a checkpointer of its own, else None, True or False as in `compile(checkpointer=)`.
        saver: the description of its own checkpointer, for the proxy on the other side.
        schemas: JSON schemas by kind: "input", "output", "context", "config"; where they differ, "input_model" and
            "output_model" of what `get_input_schema` and `get_output_schema` return. What cannot be made is left out.
        classes: what makes "input" and "output": "model", "typed_dict", "dataclass"; empty for anything else.
        types: of the classes in these schemas, by name: the name on the wire, "model", "dataclass" or "enum", and the
            members of an enum.
        unmade: the reason, for each schema that was left out.
        drawings: packed drawings by depth of xray; -1 is all levels.
        channels: the graph's attributes that LangGraph reads: input, output and stream channels, modes, breakpoints.
        input_keys: the keys of the state that it takes of its input; None where its input is no such state.
        signals: the signals that the graph itself declares; None where that is not known.
        subgraphs: the cards of its nested graphs by node.
        langgraph: the version that it runs on.
    """

    name: str
    description: str = ""
    checkpointer: Any = None
    saver: Any = None
    schemas: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, tuple[str, str, Mapping[str, Any] | None]] = field(default_factory=dict)
    unmade: Mapping[str, str] = field(default_factory=dict)
    drawings: Mapping[int, Any] = field(default_factory=dict)
    channels: Mapping[str, Any] = field(default_factory=dict)
    input_keys: frozenset[str] | None = None
    signals: frozenset[str] | None = None
    subgraphs: Mapping[str, AgentCard] = field(default_factory=dict)
    langgraph: str = ""

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> AgentCard:
        """The card of the plain data that `describe` returns. What it does not know comes from a later version.

        Raises:
            ProtocolError: it is no card.
        """
        if not isinstance(packed, Mapping):
            raise ProtocolError(f"the host's card is no card but a {type(packed).__name__}")
        known = {field.name: packed[field.name] for field in fields(cls) if field.name in packed}
        for name, kind in _KINDS.items():
            if not isinstance(known.get(name, kind()), kind):
                raise ProtocolError(f"the host's card is no card: its {name} is a {type(known[name]).__name__}")
        known["subgraphs"] = {str(name): cls.unpack(card) for name, card in known.get("subgraphs", {}).items()}
        for name in ("input_keys", "signals"):
            known[name] = None if known.get(name) is None else frozenset(map(str, known[name]))
        return cls(**{"name": "agent", **known})

    @property
    def input_schema(self) -> Any:
        """The JSON schema of the input, or None."""
        return self.schemas.get("input")

    @property
    def output_schema(self) -> Any:
        """The JSON schema of the output, or None."""
        return self.schemas.get("output")

    def drawing(self, xray: int | bool) -> Graph:
        """The drawing of the graph.

        Args:
            xray: how many levels of subgraphs to open; True for all. As in `get_graph`.
        """
        depth = -1 if xray is True else min(int(xray), MAX_XRAY)
        return unpack_drawing(self.drawings.get(depth) or self.drawings[0])


def describe(
    graph: Any,
    describe_saver: Callable[[BaseCheckpointSaver[Any]], Any],
    describe_types: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]],
) -> dict[str, Any]:
    """The card of a graph as plain data. Never fails for a graph that runs.

    Args:
        graph: the exported graph.
        describe_saver: returns the description of a checkpointer, for the proxy on the other side.
        describe_types: returns what a caller must know of the classes in the schemas of a graph.
    """
    saver = getattr(graph, "checkpointer", None)
    owns = isinstance(saver, BaseCheckpointSaver)
    schemas, unmade = _schemas(graph)
    return {
        "name": graph.get_name(),
        "description": description_of(graph),
        "checkpointer": "own" if owns else saver,
        "saver": describe_saver(saver) if isinstance(saver, BaseCheckpointSaver) else None,
        "schemas": schemas,
        "classes": {kind: class_kind(getattr(graph, f"{kind.title()}Type", None)) for kind in ("input", "output")},
        "types": describe_types(graph, schemas),
        "unmade": unmade,
        "drawings": _drawings(graph),
        "channels": {
            "input_channels": graph.input_channels,
            "output_channels": graph.output_channels,
            "stream_channels": graph.stream_channels,
            "stream_mode": graph.stream_mode,
            "interrupt_before_nodes": _names(graph.interrupt_before_nodes),
            "interrupt_after_nodes": _names(graph.interrupt_after_nodes),
        },
        "input_keys": _sorted(input_keys_of(graph)),
        "signals": _sorted(getattr(graph, "signals", ())),
        "subgraphs": {name: describe(nested, describe_saver, describe_types) for name, nested in _subgraphs(graph)},
    }


def _names(names: Any) -> Any:
    return names if isinstance(names, str) else list(names)


def _sorted(names: Iterable[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def description_of(graph: Any) -> str:
    """What a graph says of itself, in a sentence; empty where it says nothing."""
    config: Mapping[str, Any] = getattr(graph, "config", None) or {}
    description = getattr(graph, "description", None) or (config.get("metadata") or {}).get("description") or ""
    return str(description)


def _subgraphs(graph: Any) -> list[tuple[str, Any]]:
    try:
        return list(graph.get_subgraphs())
    except HostUnreachable:  # a subgraph on another host that is down: the card does without it
        return []


def _schemas(graph: Any) -> tuple[dict[str, Any], dict[str, str]]:
    made: dict[str, Any] = {}
    unmade: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangGraph's schema of the config is deprecated
        for kind in ("input", "output", "context", "config"):
            try:
                made[kind] = getattr(graph, f"get_{kind}_jsonschema")()
                if kind == "output" or (kind == "input" and class_kind(graph.InputType) == "dataclass"):
                    made[f"{kind}_model"] = getattr(graph, f"get_{kind}_schema")().model_json_schema()
            except Exception as error:  # a graph without a JSON schema runs all the same
                unmade[kind] = f"{type(error).__name__}: {error}"
    return made, unmade


def class_kind(cls: Any) -> str:
    """What a class is: `"model"`, `"typed_dict"`, `"dataclass"`; empty for anything else."""
    if not isinstance(cls, type):
        return ""
    if typing_extensions.is_typeddict(cls):
        return "typed_dict"
    return "model" if issubclass(cls, BaseModel) else "dataclass" if dataclasses.is_dataclass(cls) else ""


def _drawings(graph: Any) -> dict[int, Any]:
    drawings: dict[int, Any] = {}
    try:
        drawings[0] = pack_drawing(graph.get_graph())
        drawings[-1] = pack_drawing(graph.get_graph(xray=True))
        for depth in range(1, MAX_XRAY + 1):
            drawings[depth] = pack_drawing(graph.get_graph(xray=depth))
            if drawings[depth] == drawings[-1]:
                break
    except Exception:  # a graph that cannot be drawn runs all the same
        drawings.setdefault(0, {"nodes": [], "edges": []})
    return drawings


class DrawnNode(Runnable[Any, Any]):
    """The placeholder of a remote runnable in a drawing: its name and the path of its class, which LangGraph prints."""

    def __init__(self, class_path: tuple[str, str], name: str) -> None:
        self.name = name
        self.class_path = class_path

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return self.name or ""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError("this node only stands in a drawing; its graph runs on another host")


def _drawn_node(class_path: tuple[str, str], name: str) -> DrawnNode:
    # A class of the remote one's name: LangGraph prints the class of a node.
    module, qualname = class_path
    cls = type(qualname, (DrawnNode,), {"__module__": module})
    node: DrawnNode = cls(class_path, name)
    return node


def pack_drawing(graph: Graph) -> dict[str, Any]:
    """A drawing as plain data: a runnable becomes its class path and its name."""
    nodes = []
    for node in graph.nodes.values():
        data = node.data
        drawn: Any = None
        if isinstance(data, DrawnNode):
            drawn = (*data.class_path, data.name)
        elif isinstance(data, Runnable):
            drawn = (type(data).__module__, type(data).__name__, data.get_name())
        nodes.append((node.id, node.name, drawn, node.metadata))
    edges = [(edge.source, edge.target, edge.data, edge.conditional) for edge in graph.edges]
    return {"nodes": nodes, "edges": edges}


def unpack_drawing(packed: Mapping[str, Any]) -> Graph:
    """The drawing of the data that `pack_drawing` returned."""
    nodes = {}
    for number, name, drawn, metadata in packed["nodes"]:
        data: Any = None if drawn is None else _drawn_node((drawn[0], drawn[1]), drawn[2])
        nodes[number] = Node(id=number, name=name, data=data, metadata=metadata)
    return Graph(nodes=nodes, edges=[Edge(*edge) for edge in packed["edges"]])
