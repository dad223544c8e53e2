"""A panel debates a question inside a Dag: the question is put, two sides and a judge argue, the verdict is written up.

    agentmatrix example debate
    agentmatrix run graphs.debate:graph --input "Should the school be moved?"
    agentmatrix run graphs.debate:real --input "Should the school be moved?"    # a real model, without a key
    agentmatrix serve graphs.debate:sceptic

The panel is a model with three instructions. No key: by default its words are scripted, and `real` is a small model in
this process (extra `local`). `build(address="gpu-box:50051/sceptic")` has one side speak from another machine.
"""

from __future__ import annotations

from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langgraph.graph import MessagesState
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer

from agentmatrix import ChatGroup, Dag, RemoteAgent, as_agent
from agentmatrix.speakers import human, round_robin
from agentmatrix.stops import budget, max_turns, says
from agentmatrix.testing import ScriptedChatModel, local_model

__all__ = ["INPUT", "INSTRUCTIONS", "build", "graph", "sceptic"]

INPUT = "Should the bridge be closed?"
"""What `agentmatrix example` gives it."""

INSTRUCTIONS: Final = {
    "advocate": "You speak for the motion. Say in one sentence why it should pass, and answer the sceptic.",
    "sceptic": "You speak against the motion. Say in one sentence what could go wrong, and answer the advocate.",
    "judge": "You judge the debate. Ask for another round, until both sides have spoken twice. Then give your verdict "
    "in one sentence that begins with VERDICT.",
}

_SCRIPTS: Final = {
    "advocate": ["Yes: what it costs is known, and small.", "Then take it in steps, and stop when it hurts."],
    "sceptic": ["No: what it breaks is not known.", "In steps I could live with it."],
    "judge": ["I have heard both sides. Another round.", "VERDICT: in steps."],
}


def seat(name: str, model: BaseChatModel | None = None) -> Any:
    """A member of the panel: a chat model with its instructions, by default a scripted one."""
    speaks = model or ScriptedChatModel(_SCRIPTS[name], cycle=True)
    return as_agent(speaks, name=name, system_prompt=INSTRUCTIONS[name])


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
        model: the chat model of the panel, but for a sceptic elsewhere; by default scripted ones.
        person: whether a person has a seat on the panel.
        checkpointer: as in LangGraph; a person needs one.
    """
    members: dict[str, Any] = {"advocate": seat("advocate", model)}
    members["sceptic"] = RemoteAgent(address) if address else seat("sceptic", model)
    if person:
        members["person"] = human(prompt="Your word to the panel?")
    members["judge"] = seat("judge", model)
    stop = says("VERDICT", by="judge") | max_turns(20) | budget(calls=40)
    dag = Dag(MessagesState, name="debate")
    dag.add_node("put", put)
    dag.add_node("panel", ChatGroup(members, speaker=round_robin(), stop=stop))
    dag.add_node("report", report)
    dag.add_edge("put", "panel")
    dag.add_edge("panel", "report")
    graph: Pregel[Any, Any, Any, Any] = dag.compile(checkpointer=checkpointer)
    return graph


def __getattr__(name: str) -> Any:
    if name == "real":
        return build(model=local_model())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sceptic = seat("sceptic")
graph = build()
