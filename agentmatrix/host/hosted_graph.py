"""What a host makes of what it is given: graphs by name."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore

from agentmatrix.agent import as_agent
from agentmatrix.errors import NotAnAgentError
from agentmatrix.pregel.state_graph import schemas_of
from agentmatrix.wire.codec import types_of

__all__ = ["as_graph", "graph_types", "with_resources"]


def graph_types(graph: Any) -> set[type]:
    """The classes in the schemas of a graph and of its nested graphs: the types that callers may send it."""
    found = types_of(*schemas_of(graph))
    for _, nested in graph.get_subgraphs():
        if not getattr(type(nested), "is_remote", False):
            found |= graph_types(nested)
    return found


def as_graph(obj: Any, name: str | None) -> Pregel[Any, Any, Any, Any]:
    """A graph of anything that is an agent: a function or a model becomes the one node of a graph of messages."""
    agent = as_agent(obj, name=name)
    if isinstance(agent, Pregel):
        return agent
    builder: Any = StateGraph(MessagesState)
    node = name or getattr(obj, "__name__", None) or "agent"
    try:
        builder.add_node(node, agent).add_edge(START, node).add_edge(node, END)
    except (TypeError, ValueError) as error:
        raise NotAnAgentError(f"{obj!r} cannot be hosted: {error}") from error
    graph: Pregel[Any, Any, Any, Any] = builder.compile(name=node)
    return graph


def with_resources(
    graph: Pregel[Any, Any, Any, Any], checkpointer: BaseCheckpointSaver[Any] | None, store: BaseStore | None
) -> Pregel[Any, Any, Any, Any]:
    """A graph with the checkpointer and the store of its host, where it was compiled without."""
    if getattr(type(graph), "is_remote", False):
        return graph
    changes: dict[str, Any] = {}
    if checkpointer is not None and graph.checkpointer is None:
        changes["checkpointer"] = checkpointer
    if store is not None and graph.store is None:
        changes["store"] = store
    return graph.copy(changes) if changes else graph
