"""A first graph to run, stream and serve: one agent plans, the next one writes. It needs no key: its model is scripted.

    agentmatrix example hello
    agentmatrix run graphs.hello:graph --input "Why is the sky green?"
    agentmatrix chat graphs.hello:careful
    agentmatrix serve graphs.hello:graph

`graph` goes straight through; `careful` pauses and asks between the two.
"""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langgraph.graph import MessagesState
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer, interrupt

from agentmatrix import Dag
from agentmatrix.testing import ScriptedChatModel

__all__ = ["INPUT", "approve", "build", "careful", "graph"]

INPUT = "Why is the sky blue?"
"""What `agentmatrix example` gives it."""


def approve(messages: list[AnyMessage]) -> HumanMessage:
    """Shows the plan to a person, whose answer the writer takes into account."""
    return HumanMessage(str(interrupt(f"{messages[-1].text} Shall I write it so?")), name="person")


def build(
    model: BaseChatModel | None = None, *, ask: bool = False, checkpointer: Checkpointer = None
) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        model: the chat model of both agents; by default a scripted one.
        ask: pause for a person's word after the plan.
        checkpointer: as in LangGraph; a pause needs one.
    """
    dag = Dag(MessagesState, name="hello")
    dag.add_node("plan", model or ScriptedChatModel(_plan, cycle=True))
    if ask:
        dag.add_node("approve", approve)
    dag.add_node("write", model or ScriptedChatModel(_write, cycle=True))
    dag.add_edge("plan", "approve" if ask else "write")
    if ask:
        dag.add_edge("approve", "write")
    graph: Pregel[Any, Any, Any, Any] = dag.compile(checkpointer=checkpointer)
    return graph


def _question(messages: list[BaseMessage]) -> str:
    asked = [message.text.strip() for message in messages if message.type == "human" and message.name != "person"]
    return asked[-1] if asked else "nothing"


def _plan(messages: list[BaseMessage]) -> str:
    return f"The question is: {_question(messages)} I plan to say what is known, then what is not."


def _write(messages: list[BaseMessage]) -> str:
    said = next((message.text for message in reversed(messages) if message.name == "person"), "")
    return (
        f"About {_question(messages)!r} "
        + (f"I was told {said!r}, and " if said else "")
        + "I have this to say: hello."
    )


graph = build()
careful = build(ask=True)
