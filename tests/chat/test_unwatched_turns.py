"""Whether the next speaker is chosen in the task of a turn or in one of its own: nobody sees a difference."""

from __future__ import annotations

import operator
from contextlib import nullcontext
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.graph import MessagesState
from langgraph.types import RetryPolicy

from agentmatrix.agent import as_agent
from agentmatrix.chat import ChatGroup
from agentmatrix.compose import Dag
from agentmatrix.speakers import handoff, mention, random, round_robin, selector
from agentmatrix.stops import budget, max_turns, says
from agentmatrix.testing import ScriptedChatModel, loopback

SYNC = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
GIVEN: Any = {
    "messages": [
        (
            "human",
            "Go.",
        )
    ]
}


class Watches(BaseCallbackHandler):
    """Has functions and models choose in a task of their own."""


class State(MessagesState):
    count: Annotated[int, operator.add]


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


SPEAKERS: dict[str, Any] = {
    "round_robin": round_robin,
    "random": lambda: random(3),
    "mention": lambda: mention(round_robin()),
    "selector": lambda: selector(model("bob", "eve", "nobody")),
    "handoff": lambda: handoff("bob"),
    "function": lambda: lambda state: ["ann", "eve"][len(state["messages"]) % 2],
}


def group(speaker: str, stop: Any = None) -> Any:
    members = {
        "ann": model("a1", "a2 @eve", "a3"),
        "bob": as_agent(model("b1", ""), system_prompt="Be brief."),
        "eve": model("e1 @bob", "", "e2"),
    }
    stops = stop or says("a3") | max_turns(7) | budget(calls=50)
    return ChatGroup(members, speaker=SPEAKERS[speaker](), stop=stops, state_schema=State, reply="transcript")


def shown(mode: str, payload: Any) -> Any:
    """A part of a stream without what differs from run to run."""
    if mode == "updates":
        return [
            (node, [(m.name, m.text) for m in (update or {}).get("messages", [])]) for node, update in payload.items()
        ]
    if mode == "values":
        return [(m.name, m.text) for m in payload["messages"]], payload.get("stop_reason")
    return payload


async def parts(graph: Any, modes: Any, sync: bool, config: Any) -> list[Any]:
    if sync:
        return [(mode, shown(mode, part)) for mode, part in graph.stream(GIVEN, config, stream_mode=modes)]
    return [(mode, shown(mode, part)) async for mode, part in graph.astream(GIVEN, config, stream_mode=modes)]


@SYNC
@pytest.mark.parametrize("modes", [["values"], ["updates"], ["values", "updates"]], ids="-".join)
@pytest.mark.parametrize("place", ["here", "in a dag", "on a host"])
@pytest.mark.parametrize("speaker", SPEAKERS)
async def test_streams_are_the_same(speaker: str, place: str, modes: list[str], sync: bool) -> None:
    seen = []
    for config in ({}, {"callbacks": [Watches()]}):
        graph: Any = group(speaker).compile()
        graph = Dag(State).add_node("panel", graph).compile() if place == "in a dag" else graph
        with loopback(graph) if place == "on a host" else nullcontext(graph) as at:
            seen.append(await parts(at, modes, sync, config))
    assert seen[0] and seen[0] == seen[1]


@SYNC
@pytest.mark.parametrize("watch", [[], [Watches()]], ids=["", "watched"])
async def test_an_error_names_the_member(watch: Any, sync: bool) -> None:
    members = {"ann": model("a"), "bob": model(ConnectionError("no line"))}
    graph = ChatGroup(members).compile()
    with pytest.raises(ConnectionError) as caught:
        if sync:
            graph.invoke(GIVEN, {"callbacks": watch})
        else:
            await graph.ainvoke(GIVEN, {"callbacks": watch})
    assert any("'bob'" in note for note in caught.value.__notes__)


@SYNC
async def test_options_of_members_count(sync: bool) -> None:
    bob = model(ConnectionError("no line"), ConnectionError("no line"), "b")
    chatty = ChatGroup({"ann": model("a")}, stop=max_turns(4), reply="transcript")
    policy = RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False)
    graph = chatty.add_node("bob", bob, retry_policy=policy, on_error="say").compile()
    result = graph.invoke(GIVEN) if sync else await graph.ainvoke(GIVEN)
    said = [message.text for message in result["messages"][1:]]
    assert said == ["a", "I cannot answer: ConnectionError: no line", "a", "b"]


@SYNC
async def test_a_budget_is_counted(sync: bool) -> None:
    graph = group("round_robin", budget(calls=4)).compile()
    result = graph.invoke(GIVEN) if sync else await graph.ainvoke(GIVEN)
    assert result["stop_reason"] == "budget(calls=4)"


def test_a_bound_of_steps_is_langgraphs() -> None:
    graph = group("round_robin", max_turns(5)).compile()
    assert graph.invoke(GIVEN, {"recursion_limit": 20})["stop_reason"] == "max_turns(5)"
