"""What is drawn of a group: its members, or, where they are too many for a picture, one box with their number."""

from __future__ import annotations

from typing import Any, Final

from langgraph.graph import END, START, MessagesState, StateGraph

from agentmatrix.chat.compiled_group import NEXT_TURN
from agentmatrix.pregel.compiled_graph import MEMBERS, Graph

__all__ = ["MAX_DRAWN", "large_group"]

MAX_DRAWN: Final = 60
"""How many members a picture has room for."""


def large_group(members: int, name: str) -> Graph:
    """The graph that is drawn for a group of more than `MAX_DRAWN` members.

    Args:
        members: how many there are.
        name: of the group.
    """
    everyone = f"{members:,} members"
    builder: Any = StateGraph(MessagesState)
    builder.add_node(NEXT_TURN, _nothing, destinations=(everyone, END))
    builder.add_node(everyone, _nothing, metadata={MEMBERS: members})
    builder.add_edge(START, NEXT_TURN)
    builder.add_edge(everyone, NEXT_TURN)
    graph: Graph = builder.compile(name=name)
    return graph


def _nothing(state: MessagesState) -> None:
    """Never runs."""
