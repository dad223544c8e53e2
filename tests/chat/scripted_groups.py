"""What the tests of people, broadcasts and free conversation have in common."""

from __future__ import annotations

from typing import Any

from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix.chat import ChatGroup
from agentmatrix.testing.scripted import ScriptedChatModel

THREAD: Any = {"configurable": {"thread_id": "1"}}


def talk(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]]


def whole(members: Any, **options: Any) -> Any:
    return ChatGroup(members, reply="transcript", **options)


def once(text: str) -> ScriptedChatModel:
    """Says one thing, then keeps silent."""
    return ScriptedChatModel([text] + [""] * 20)


def in_graph(agent: Any, **options: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("inner", agent)
    graph.add_edge(START, "inner")
    return graph.compile(**options)
