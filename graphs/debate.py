"""A panel debates a question inside a Dag: the question is put, two sides and a judge argue, the verdict is written up.

    agentmatrix example debate
    agentmatrix run graphs.debate:graph --input "Should the school be moved?"
    agentmatrix serve graphs.debate:sceptic

`build(address="gpu-box:50051/sceptic")` has the other side speak from another machine. No key: its models are scripted.
"""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage
from langgraph.graph import MessagesState
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer

from agentmatrix import ChatGroup, Dag, RemoteAgent, as_agent
from agentmatrix.speakers import human, round_robin
from agentmatrix.stops import budget, max_turns, says
from agentmatrix.testing import ScriptedChatModel

__all__ = ["INPUT", "build", "graph", "sceptic"]

INPUT = "Should the bridge be closed?"
"""What `agentmatrix example` gives it."""

ROUNDS = 2


def put(messages: list[AnyMessage]) -> str:
    """Puts the question to the panel."""
    return f"The motion: {messages[-1].text}"


def report(messages: list[AnyMessage]) -> str:
    """Writes up how the panel ended."""
    verdict = messages[-1]
    return f"After the debate ({verdict.response_metadata['stop_reason']}): {verdict.text}"


def build(
    address: str | None = None,
    model: BaseChatModel | None = None,
    *,
    person: bool = False,
    checkpointer: Checkpointer = None,
) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        address: where the sceptic is served, `"gpu-box:50051/sceptic"`; by default it is here.
        model: the chat model of the advocate and the judge; by default scripted ones.
        person: whether a person has a seat on the panel.
        checkpointer: as in LangGraph; a person needs one.
    """
    members: dict[str, Any] = {
        "advocate": model or ScriptedChatModel(_advocate, cycle=True),
        "sceptic": RemoteAgent(address) if address else as_agent(sceptic, name="sceptic"),
    }
    if person:
        members["person"] = human(prompt="Your word to the panel?")
    members["judge"] = model or ScriptedChatModel(_judge, cycle=True)
    stop = says("VERDICT", by="judge") | max_turns(20) | budget(calls=40)
    dag = Dag(MessagesState, name="debate")
    dag.add_node("put", put)
    dag.add_node("panel", ChatGroup(members, speaker=round_robin(), stop=stop))
    dag.add_node("report", report)
    dag.add_edge("put", "panel")
    dag.add_edge("panel", "report")
    graph: Pregel[Any, Any, Any, Any] = dag.compile(checkpointer=checkpointer)
    return graph


def _turns(messages: list[BaseMessage], name: str) -> int:
    return sum(message.name == name for message in messages)


def _advocate(messages: list[BaseMessage]) -> str:
    first, then = "Yes: what it costs is known, and small.", "Then take it in steps, and stop when it hurts."
    return then if _turns(messages, "advocate") else first


def _sceptic(messages: list[BaseMessage]) -> str:
    return "In steps I could live with it." if _turns(messages, "sceptic") else "No: what it breaks is not known."


def _judge(messages: list[BaseMessage]) -> str:
    if _turns(messages, "judge") + 1 < ROUNDS:
        return "I have heard both sides. Another round."
    return "VERDICT: in steps."


sceptic = ScriptedChatModel(_sceptic, cycle=True)
graph = build()
