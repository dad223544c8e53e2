"""How a compiled graph is changed before its first run: its nodes, channels, writers and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.graph import Graph as DrawnGraph
from langgraph._internal._constants import CONF, CONFIG_KEY_SEND, NS_END, NS_SEP, TASKS
from langgraph.constants import END, START, TAG_HIDDEN
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.pregel._write import ChannelWrite, ChannelWriteTupleEntry
from langgraph.pregel.protocol import PregelProtocol

__all__ = [
    "ERROR_HANDLER",
    "HIDDEN",
    "MEMBERS",
    "NS_SEP",
    "RESERVED_CHARACTERS",
    "TASKS",
    "AnyGraph",
    "Coerce",
    "Compiled",
    "Graph",
    "Mapper",
    "PregelProtocol",
    "add_answer_mapper",
    "add_hidden_node",
    "answer_mappers",
    "as_class",
    "branch_channel",
    "branch_target",
    "coercions_of",
    "hide_node",
    "input_writer",
    "mark_hidden",
    "remove_edges",
    "set_node_runnable",
    "set_stream_channels",
    "set_stream_eager",
    "set_subgraphs",
    "share_writers",
    "write_channel",
]

Mapper = Callable[[Any], Sequence[tuple[str, Any]] | None]
Coerce = Callable[[Any], Any]
Graph = Pregel[Any, Any, Any, Any]
AnyGraph = PregelProtocol[Any, Any, Any, Any]
Compiled = TypeVar("Compiled", bound=Graph)

# What the names of the nodes that LangGraph makes of error handlers have in common.
ERROR_HANDLER = "error_handler__"
RESERVED_CHARACTERS = (NS_SEP, NS_END)

HIDDEN = "__hidden"
"""The key in the metadata of a drawn node which says that streams do not show the node."""
MEMBERS = "__members"
"""The key in the metadata of a drawn node which says that it stands for so many."""

_BRANCH = "branch:to:"


def branch_channel(node: str) -> str:
    """The channel by which an edge, a router or a command starts a node."""
    return _BRANCH + node


def branch_target(channel: str) -> str | None:
    """The node that a write to this channel starts, or None for any other channel."""
    return channel[len(_BRANCH) :] if channel.startswith(_BRANCH) else None


def as_class(graph: Graph, kind: type[Compiled]) -> Compiled:
    """The same compiled graph as an object of another class, with nodes and channels of its own."""
    other = kind.__new__(kind)
    other.__dict__.update(graph.__dict__)
    other.nodes = {name: node.copy({}) for name, node in graph.nodes.items()}
    other.channels = dict(graph.channels)
    return other


def write_channel(graph: Graph, node: str, channel: str, value: Any) -> None:
    """Let `node` write `value` to `channel` each time it runs, besides its own writes."""
    writer = ChannelWrite((ChannelWriteTupleEntry(lambda _: ((channel, value),)),))
    graph.nodes[node] = graph.nodes[node].copy({"writers": [writer, *graph.nodes[node].writers]})


def add_answer_mapper(graph: Graph, node: str, mapper: Mapper) -> None:
    """Let `node` write what `mapper` makes of its answer, pairs of channel and value, besides its own writes."""
    writer = ChannelWrite((ChannelWriteTupleEntry(mapper),))
    graph.nodes[node] = graph.nodes[node].copy({"writers": [*graph.nodes[node].writers, writer]})


def hide_node(graph: Graph, node: str) -> None:
    """Keep the updates and tasks of `node` out of the graph's streams, as those of START are."""
    graph.nodes[node].tags = [*(graph.nodes[node].tags or ()), TAG_HIDDEN]


def mark_hidden(drawn: DrawnGraph, nodes: Mapping[str, Any]) -> DrawnGraph:
    """The drawing of a graph, with a mark in the metadata of the nodes that its streams keep out.

    Args:
        drawn: the drawing; it is changed.
        nodes: of the graph, by name.
    """
    for name, node in drawn.nodes.items():
        if name not in (START, END) and TAG_HIDDEN in (getattr(nodes.get(name), "tags", None) or ()):
            drawn.nodes[name] = node._replace(metadata={**(node.metadata or {}), HIDDEN: True})
    return drawn


def add_hidden_node(
    graph: CompiledStateGraph[Any, Any, Any, Any], node: str, agent: Runnable[Any, Any], input_schema: Any
) -> None:
    """Add a node to a compiled graph and to its builder, which no drawing made before shows.

    Args:
        graph: the compiled graph; nothing leads to the node but a command.
        node: its name.
        agent: what it runs.
        input_schema: the schema that it reads.
    """
    builder = graph.builder
    builder.compiled = False  # Otherwise LangGraph warns that the compiled graph has not got the node.
    builder.add_node(node, agent, input_schema=input_schema)
    graph.attach_node(node, builder.nodes[node])
    graph.validate()
    hide_node(graph, node)


def set_node_runnable(graph: Graph, node: str, runnable: Runnable[Any, Any]) -> None:
    """Give `node` another Runnable; the graphs that run inside the node stay known."""
    spec = graph.nodes[node]
    graph.nodes[node] = spec.copy({"bound": runnable, "subgraphs": list(spec.subgraphs)})


def set_subgraphs(graph: Graph, node: str, subgraphs: Sequence[AnyGraph]) -> None:
    """Say which graphs run inside `node`, where LangGraph cannot find them in its Runnable."""
    graph.nodes[node] = graph.nodes[node].copy({"subgraphs": list(subgraphs)})


def set_stream_channels(graph: Graph, channels: Sequence[str]) -> None:
    """Show only these channels in streams and snapshots."""
    graph.stream_channels = list(channels)


def set_stream_eager(graph: Graph) -> None:
    """Show what a node streams at once, also where only values or updates are asked for."""
    graph.stream_eager = True


def coercions_of(graph: CompiledStateGraph[Any, Any, Any, Any]) -> Mapping[type[Any], Coerce | None]:
    """By schema, what makes an object of it of the values of its keys; None where a dict will do."""
    return graph.schema_to_mapper


def answer_mappers(graph: Graph, node: str) -> tuple[Mapper, Mapper]:
    """How LangGraph reads what `node` returns: as pairs of key and value, and as commands to go somewhere."""
    writer = next(w for w in graph.nodes[node].writers if isinstance(w, ChannelWrite))
    update, control = (entry.mapper for entry in writer.writes if isinstance(entry, ChannelWriteTupleEntry))
    return update, control


def input_writer(graph: Graph) -> Callable[[Any], list[tuple[str, Any]]] | None:
    """What START writes of a run's input, as a function; None where it has routers to run, as any node may."""
    writers = graph.nodes[START].flat_writers if START in graph.nodes else []
    if not writers or not all(isinstance(writer, ChannelWrite) for writer in writers):
        return None

    def write(given: Any) -> list[tuple[str, Any]]:
        written: list[tuple[str, Any]] = []
        config: RunnableConfig = {CONF: {CONFIG_KEY_SEND: written.extend}}
        for writer in writers:
            writer.invoke(given, config)
        return written

    return write


def remove_edges(graph: Graph, edges: Iterable[tuple[str, str]]) -> None:
    """Take these edges out of a compiled graph, not out of its drawing: their sources start their targets no more."""
    for source, target in edges:
        node, channel = graph.nodes[source], branch_channel(target)
        writers = [writer for writer in node.writers if not _writes_only(writer, channel)]
        graph.nodes[source] = node.copy({"writers": writers})


def share_writers(graph: Graph, nodes: Sequence[str], targets: Callable[[Any], Iterable[str]], otherwise: str) -> None:
    """Let `nodes`, which write alike, lead to what `targets` names for an answer, nodes or END, and to nothing else;
    where it names none, to `otherwise`. All of them have the same writers then: those of 10,000 take time and
    memory."""
    channel, first = branch_channel(otherwise), graph.nodes[nodes[0]]

    def mapper(answer: Any) -> list[tuple[str, Any]]:
        return [(branch_channel(name), None) for name in [*targets(answer)] or [otherwise] if name != END]

    writers = [writer for writer in first.writers if not _writes_only(writer, channel)]
    leads_on = ChannelWrite((ChannelWriteTupleEntry(mapper),))
    shared = first.copy({"writers": [*writers, leads_on]}).flat_writers
    for name in nodes:
        graph.nodes[name].writers = shared


def _writes_only(writer: Any, channel: str) -> bool:
    return isinstance(writer, ChannelWrite) and all(
        getattr(entry, "channel", None) == channel for entry in writer.writes
    )
