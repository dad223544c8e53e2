"""Broadcasts in one task: what comes of them is what comes of a task for each member."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState
from langgraph.types import Command, interrupt

from agentmatrix.chat import ChatGroup
from agentmatrix.speakers import broadcast
from agentmatrix.stops import max_turns, when
from agentmatrix.testing import loopback
from agentmatrix.testing.scripted import ScriptedChatModel
from tests.chat.scripted_groups import THREAD, in_graph, once, talk, whole
from tests.conftest import Verbs


@pytest.mark.parametrize("saver", [None, True])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_broadcast_in_one_task_is_that_of_many(saver: Any, is_async: bool) -> None:
    members = {f"m{i}": ScriptedChatModel(f"said {i}", cycle=True) for i in range(12)}
    group = whole(members, speaker=broadcast(), stop=max_turns(2)).compile(
        checkpointer=InMemorySaver() if saver else None
    )
    result = await group.ainvoke({"messages": "hi"}, THREAD) if is_async else group.invoke({"messages": "hi"}, THREAD)
    order = [(name, f"said {name[1:]}") for name in sorted(members)]
    assert talk(result)[1:] == order * 2
    for name, model in members.items():
        # Whose own words are the last is told to go on.
        assert [len(prompt) for prompt in model.prompts] == [1, 14 if name == max(members) else 13]


@pytest.mark.parametrize("saver", [None, True])
def test_an_error_in_a_broadcast_is_the_members(saver: Any) -> None:
    def fails(state: Any) -> Any:
        raise KeyError("mine")

    group = whole({"ann": once("a"), "fails": fails}, speaker=broadcast())
    with pytest.raises(KeyError, match="mine"):
        group.compile(checkpointer=InMemorySaver() if saver else None).invoke({"messages": "hi"}, THREAD)


@pytest.mark.parametrize(
    "place", [lambda agent: agent, lambda agent: loopback(in_graph(agent))], ids=["local", "remote"]
)
async def test_a_pause_in_a_broadcast_asks_nobody_twice(place: Any) -> None:
    def person(state: Any) -> Any:
        return {"messages": [HumanMessage(interrupt("your word?"))]}

    def bob(state: Any) -> Any:
        return {"messages": [AIMessage("bob")]}

    ann = ScriptedChatModel("ann", cycle=True)
    group = whole({"ann": ann, "bob": place(bob), "person": place(person)}, speaker=broadcast(), stop=max_turns(1))
    compiled = group.compile(checkpointer=InMemorySaver())
    await compiled.ainvoke({"messages": "hi"}, THREAD)
    result = await compiled.ainvoke(Command(resume="me"), THREAD)
    assert sorted(talk(result)[1:]) == [("ann", "ann"), ("bob", "bob"), ("person", "me")]
    assert ann.calls == 1


class Counted(MessagesState):
    count: Annotated[int, operator.add]


@pytest.mark.parametrize("is_async", [True, False])
async def test_members_write_other_keys_than_messages(is_async: bool) -> None:
    def talker(state: Counted) -> Any:
        return {"messages": [AIMessage("here")], "count": 1}

    members, counted = {"ann": talker, "bob": talker}, when(lambda state: "both" if state["count"] == 2 else None)
    group = ChatGroup(members, speaker=broadcast(), state_schema=Counted, stop=counted | max_turns(9)).compile()
    start: Any = {"messages": "hi", "count": 0}
    result = await group.ainvoke(start) if is_async else group.invoke(start)
    assert result["stop_reason"] == "both"


async def test_a_command_to_a_member_while_a_broadcast_is_at_work(verbs: Verbs) -> None:
    ann, bob = ScriptedChatModel("a", cycle=True), ScriptedChatModel("b", cycle=True)
    graph = ChatGroup({"ann": ann, "bob": bob}, speaker=broadcast(), stop=max_turns(2)).compile(InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    await verbs.invoke(graph, {"messages": "Go."}, thread)
    begun = [snapshot.config for snapshot in graph.get_state_history(thread) if snapshot.next == ("together",)]
    for config in begun:
        result = await verbs.invoke(graph, Command(goto="bob"), config)
        assert result["stop_reason"] == "max_turns(2)"
