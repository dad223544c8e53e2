"""`update_state(as_node=member)` is a turn of the member: its words are signed, and the talk goes on behind it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from langchain_core.messages import RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END
from langgraph.types import Command

from agentmatrix.chat import ChatGroup
from agentmatrix.speakers import handoff, human, mention, random, round_robin
from agentmatrix.stops import max_turns, says
from agentmatrix.testing import ScriptedChatModel, loopback

SYNC = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
THREAD: Any = {"configurable": {"thread_id": "1"}}
GIVEN: Any = {"messages": "Go."}


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


async def run(graph: Any, given: Any, sync: bool) -> Any:
    return graph.invoke(given, THREAD) if sync else await graph.ainvoke(given, THREAD)


async def write_as(graph: Any, member: str, words: str, sync: bool) -> None:
    values = {"messages": [("ai", words)]}
    if sync:
        graph.update_state(THREAD, values, as_node=member)
    else:
        await graph.aupdate_state(THREAD, values, as_node=member)


def said(state: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in state["messages"]]


def by_function(state: Any) -> str:
    return ["ann", "bob", "cy"][(len(state["messages"]) - 1) % 3]


@SYNC
@pytest.mark.parametrize("speaker", [round_robin(), mention(round_robin()), by_function], ids=["rule", "mention", "fn"])
async def test_whoever_has_the_floor_has_spoken_then(speaker: Any, sync: bool) -> None:
    names = ["ann", "bob", "cy"]
    made = ChatGroup(
        {name: model(f"{name} says") for name in names}, speaker=speaker, stop=max_turns(5), reply="transcript"
    )
    graph = made.compile(InMemorySaver(), interrupt_before=names)
    result = await run(graph, GIVEN, sync)
    for turn in range(5):
        (name,) = graph.get_state(THREAD).next
        if turn % 2:
            await write_as(graph, name, f"I am {name}.", sync)
            assert graph.get_state(THREAD).next == ("next_turn",)
        result = await run(graph, None, sync)
    words = [("ann", "ann says"), ("bob", "I am bob."), ("cy", "cy says"), ("ann", "I am ann."), ("bob", "bob says")]
    assert (said(result)[1:], result["stop_reason"]) == (words, "max_turns(5)")


@SYNC
@pytest.mark.parametrize("speaker", [round_robin(), random("x"), by_function], ids=["rule", "random", "fn"])
async def test_a_failed_member_is_stood_in_for(speaker: Any, sync: bool) -> None:
    broken = model(ConnectionError("no line"))
    members = {"ann": broken, "bob": broken, "cy": broken}
    graph = ChatGroup(members, speaker=speaker, stop=says("DONE"), reply="transcript").compile(InMemorySaver())
    with pytest.raises(ConnectionError):
        await run(graph, GIVEN, sync)
    (name,) = graph.get_state(THREAD).next
    await write_as(graph, name, "DONE", sync)
    result = await run(graph, None, sync)
    assert (said(result)[-1], result["stop_reason"], broken.calls) == ((name, "DONE"), "says('DONE')", 1)


@SYNC
@pytest.mark.parametrize("hosted", [False, True], ids=["here", "remote"])
async def test_a_person_is_stood_in_for(hosted: bool, sync: bool) -> None:
    bob = model("b1", "b2")
    with loopback(bob) if hosted else nullcontext(bob) as at:
        graph = ChatGroup({"joe": human(), "bob": at}, stop=max_turns(3), reply="transcript").compile(InMemorySaver())
        await run(graph, GIVEN, sync)
        await write_as(graph, "joe", "Tuesday.", sync)
        paused = await run(graph, None, sync)
        assert paused["__interrupt__"][0].value == "bob: b1"
        result = await run(graph, Command(resume="Fine."), sync)
    assert said(result)[1:] == [("joe", "Tuesday."), ("bob", "b1"), ("joe", "Fine.")]


@SYNC
async def test_a_thread_may_be_begun_so(sync: bool) -> None:
    graph = ChatGroup({"ann": model("a"), "bob": model("b")}, stop=max_turns(2), reply="transcript").compile(
        InMemorySaver()
    )
    graph.update_state(THREAD, {"messages": [("human", "Go.")]}, as_node="__start__")
    await write_as(graph, "ann", "I am ann.", sync)
    assert said(await run(graph, None, sync)) == [(None, "Go."), ("ann", "I am ann."), ("bob", "b")]


@SYNC
async def test_without_a_handoff_a_swarm_ends_behind_it(sync: bool) -> None:
    graph = ChatGroup({"ann": model("a"), "bob": model("b")}, speaker=handoff(), reply="transcript").compile(
        InMemorySaver(), interrupt_before=["ann"]
    )
    await run(graph, GIVEN, sync)
    await write_as(graph, "ann", "I am ann.", sync)
    result = await run(graph, None, sync)
    assert (said(result)[1:], result["stop_reason"]) == ([("ann", "I am ann.")], "handoff chose nobody")


@SYNC
@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (Command(update={"messages": [("ai", "Over to cy.")]}, goto="cy"), ["ann", "bob", "cy", "ann"]),
        (Command(update={"messages": [("ai", "That is all.")]}, goto=END), ["ann", "bob"]),
        (None, ["ann", "cy", "ann"]),
    ],
    ids=["handoff", "end", "silence"],
)
async def test_all_that_a_member_may_answer_is_its_turn(answer: Any, names: list[str], sync: bool) -> None:
    members = {"ann": model("a"), "bob": model("b"), "ed": model("e"), "cy": model("c")}
    if answer is None:
        del members["ed"]
    graph = ChatGroup(members, stop=max_turns(4), reply="transcript").compile(InMemorySaver(), interrupt_before=["bob"])
    await run(graph, GIVEN, sync)
    if sync:
        graph.update_state(THREAD, answer, as_node="bob")
    else:
        await graph.aupdate_state(THREAD, answer, as_node="bob")
    assert graph.get_state(THREAD).next == ("next_turn",)
    assert [name for name, _ in said(await run(graph, None, sync))[1:]] == names


@SYNC
@pytest.mark.parametrize("removed", [False, True], ids=["edited", "removed"])
async def test_what_was_said_is_edited_in_its_speakers_name(removed: bool, sync: bool) -> None:
    graph = ChatGroup({"ann": model("a"), "bob": model("b")}, stop=max_turns(2), reply="transcript").compile(
        InMemorySaver(), interrupt_after=["ann"]
    )
    await run(graph, GIVEN, sync)
    last = graph.get_state(THREAD).values["messages"][-1]
    edit = RemoveMessage(last.id) if removed else last.model_copy(update={"content": "A better one."})
    graph.update_state(THREAD, {"messages": [edit]}, as_node="ann")
    words = [] if removed else [("ann", "A better one.")]
    assert said(await run(graph, None, sync)) == [(None, "Go."), *words, ("bob", "b")]


@SYNC
@pytest.mark.parametrize("speaker", [round_robin, mention, handoff])
async def test_a_person_who_was_asked_first_keeps_the_floor(speaker: Any, sync: bool) -> None:
    group = ChatGroup({"joe": human(), "bob": model("b1")}, speaker=speaker(), stop=max_turns(2), reply="transcript")
    graph = group.compile(InMemorySaver())
    await run(graph, {"messages": "Which day, @joe?"}, sync)
    await write_as(graph, "bob", "Not Monday.", sync)
    assert set(graph.get_state(THREAD).next) == {"next_turn", "joe"}
    result = await run(graph, Command(resume="Tuesday."), sync)
    assert said(result)[:3] == [(None, "Which day, @joe?"), ("bob", "Not Monday."), ("joe", "Tuesday.")]
