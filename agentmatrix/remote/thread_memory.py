"""A checkpointer in memory for a graph that has none, so that it can pause and be resumed."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

__all__ = ["with_memory"]


def with_memory(graph: Any, state: type[Any] = dict, *, name: str) -> Any:
    """The graph with a checkpointer in memory where it has none.

    A remote graph uses its parent's checkpointer, so it is made the only node of a graph with this state.

    Args:
        graph: a compiled graph or a remote agent.
        state: of the graph around a remote one.
        name: of that graph.
    """
    if graph.checkpointer:
        return graph
    if not getattr(graph, "is_remote", False):
        return graph.copy({"checkpointer": InMemorySaver()})
    node = graph.get_name()
    return StateGraph(state).add_node(node, graph).add_edge(START, node).compile(InMemorySaver(), name=name)
