"""What follows a group sees each member: runs of models are children of their member, and what a member pushes while it
works is said once, in the order in which it was pushed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import push_message

from agentmatrix.agent import as_agent
from agentmatrix.chat import ChatGroup
from agentmatrix.compose import Dag
from agentmatrix.speakers import broadcast, free, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
SPEAKERS = pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=lambda speaker: speaker.label)
SYNC = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])


class Tracer(BaseCallbackHandler):
    """Notes the runs, and which is inside which."""

    def __init__(self) -> None:
        self.runs: dict[Any, tuple[str, Any]] = {}

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None, name: Any = None, **kwargs: Any
    ) -> None:
        self.runs[run_id] = (name, parent_run_id)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: Any, parent_run_id: Any = None, **kwargs: Any
    ) -> None:
        self.runs[run_id] = ("model", parent_run_id)

    def paths_of_models(self) -> set[tuple[str, ...]]:
        return {self._path(run_id) for run_id, (name, _) in self.runs.items() if name == "model"}

    def _path(self, run_id: Any) -> tuple[str, ...]:
        if run_id not in self.runs:
            return ()
        name, parent = self.runs[run_id]
        return (*self._path(parent), name)


def model(name: str) -> Any:
    return ScriptedChatModel(f"{name} talks", cycle=True)


def a_graph(name: str) -> Any:
    speaks = model(name)

    def ask(state: Any) -> Any:
        return {"messages": [speaks.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile(name="inner")


def a_function(name: str) -> Any:
    speaks = model(name)
    return lambda state: speaks.invoke(state["messages"])


KINDS: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "scripted": (model, ()),
    "fake": (lambda name: GenericFakeChatModel(messages=iter([AIMessage(f"{name} {n}") for n in range(5)])), ()),
    "instructed": (lambda name: as_agent(model(name), system_prompt="Be brief."), ()),
    "function": (a_function, ()),
    "graph": (a_graph, ("inner", "ask")),
    "team": (lambda name: ChatGroup({"x": model(name)}, stop=max_turns(1), name="team").compile(), ("team", "x")),
}


@SYNC
@SPEAKERS
@pytest.mark.parametrize(
    ("place", "saved"),
    [("here", False), ("here", True), ("on a host", False), ("in a dag", True)],
    ids=["here", "saved", "on a host", "in a dag, saved"],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_runs_of_models_are_children_of_their_member(
    kind: str, place: str, saved: bool, speaker: Any, sync: bool
) -> None:
    make, inside = KINDS[kind]
    group = ChatGroup({name: make(name) for name in ("ann", "bob")}, speaker=speaker, stop=max_turns(2)).compile()
    tracer = Tracer()
    config: Any = {**THREAD, "callbacks": [tracer]}
    with loopback(group) if place == "on a host" else nullcontext(group) as graph:
        if place == "in a dag":
            graph = Dag(name="dag").add_node("panel", group).compile()
        graph = graph.copy({"checkpointer": InMemorySaver()}) if saved else graph
        given: Any = {"messages": "Go."}
        if sync:
            graph.invoke(given, config)
        else:
            await graph.ainvoke(given, config)
    around = ("dag", "panel", "ChatGroup") if place == "in a dag" else ("ChatGroup",)
    assert tracer.paths_of_models() == {(*around, name, *inside, "model") for name in ("ann", "bob")}


@SYNC
@SPEAKERS
@pytest.mark.parametrize("saved", [False, True], ids=["", "saved"])
@pytest.mark.parametrize("returned", ["nothing", "the same", "more"])
async def test_what_a_member_pushes_is_said_once(returned: str, saved: bool, speaker: Any, sync: bool) -> None:
    def ann(messages: list[AnyMessage]) -> Any:
        push_message(AIMessage("working", id="1"))
        if len(messages) > 2:
            return []
        return {"nothing": [], "the same": [AIMessage("done", id="1")], "more": [AIMessage("done", id="2")]}[returned]

    def bob(messages: list[AnyMessage]) -> str:
        return ""

    group = ChatGroup({"ann": ann, "bob": bob}, speaker=speaker, stop=max_turns(1), reply="transcript")
    graph = group.compile(InMemorySaver() if saved else None)
    given: Any = {"messages": "Go."}
    result = graph.invoke(given, THREAD) if sync else await graph.ainvoke(given, THREAD)
    said = [(message.name, message.text) for message in result["messages"][1:]]
    expected = {"nothing": ["working"], "the same": ["done"], "more": ["working", "done"]}[returned]
    assert said == [("ann", text) for text in expected]
