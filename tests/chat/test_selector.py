"""A model that chooses who speaks: among candidates, several at once, by a schema; and what is said where it cannot."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.chat import ChatGroup
from agentmatrix.chat.conversation import EVENT_LOG
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.speakers import random, selector
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
SYNC = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])


def chooser(*answers: Any, structured: bool = False) -> ScriptedChatModel:
    profile: Any = {"structured_output": True} if structured else None
    return ScriptedChatModel(list(answers), cycle=True, profile=profile)


def chosen(next: Any) -> dict[str, Any]:
    """The answer of a model that keeps to the schema."""
    return {"name": "NextSpeaker", "args": {"next": next}}


def group(rule: Any, turns: int = 2, names: str = "ann bob eve") -> ChatGroup:
    members = {name: ScriptedChatModel(name, cycle=True) for name in names.split()}
    return ChatGroup(members, speaker=rule, stop=max_turns(turns), reply="transcript")


async def speakers(graph: Any, sync: bool) -> list[str]:
    given: Any = {"messages": "Go."}
    result = graph.invoke(given) if sync else await graph.ainvoke(given)
    return [message.text for message in result["messages"][1:]]


# by a schema


@SYNC
@pytest.mark.parametrize("told", [True, None], ids=["told", "by its profile"])
async def test_a_model_answers_by_a_schema(told: Any, sync: bool) -> None:
    model = chooser(chosen("bob"), chosen("ann"), structured=told is None)
    assert await speakers(group(selector(model, structured=told)).compile(), sync) == ["bob", "ann"]
    assert model.calls == 2


@SYNC
async def test_several_may_be_chosen_by_a_schema(sync: bool) -> None:
    model = chooser(chosen(["eve", "ann"]), chosen(["bob"]))
    rule = selector(model, structured=True, several=True)
    assert await speakers(group(rule).compile(), sync) == ["ann", "eve", "bob"]


@SYNC
@pytest.mark.parametrize("bad", [chosen("zoe"), chosen(None), "no call", ""], ids=["unknown", "none", "words", "empty"])
async def test_an_answer_that_does_not_keep_to_it_is_asked_for_again(bad: Any, sync: bool) -> None:
    model = chooser(bad, chosen("eve"))
    assert await speakers(group(selector(model, structured=True), turns=1).compile(), sync) == ["eve"]
    assert model.calls == 2
    assert model.prompts[1][-1].text == "Answer with exactly one of these names: ann, bob, eve"
    assert all(message.text.strip() for message in model.prompts[1])


def test_a_schema_needs_a_chat_model() -> None:
    with pytest.raises(BuildError, match=r"structured=True\): .*is no chat model"):
        selector(chooser("ann").bind(stop=["."]), structured=True)
    assert selector(chooser("ann").bind(stop=["."])).label == "selector"


# among whom


@SYNC
@pytest.mark.parametrize("structured", [False, True], ids=["text", "structured"])
async def test_candidates_are_those_of_the_list_or_of_the_function(structured: bool, sync: bool) -> None:
    def answer(name: str) -> Any:
        return chosen(name) if structured else name

    model = chooser(answer("bob"), answer("eve"), answer("bob"))
    rule = selector(model, candidates=["bob", "eve"], structured=structured)
    assert await speakers(group(rule, 3).compile(), sync) == ["bob", "eve", "bob"]
    assert "- ann" not in model.prompts[0][0].text and "- bob" in model.prompts[0][0].text

    def who(state: Any) -> list[str]:
        return ["ann", "eve"] if len(state["messages"]) == 1 else ["bob"] if len(state["messages"]) == 2 else []

    model = chooser(answer("eve"))
    graph = group(selector(model, candidates=who, structured=structured), 9).compile()
    assert await speakers(graph, sync) == ["eve", "bob"]
    assert model.calls == 1  # One alone is not asked for, and of nobody the conversation ends.


@SYNC
async def test_a_name_that_is_no_candidate_does_not_count(sync: bool) -> None:
    model = chooser("ann", "eve")
    rule = selector(model, candidates=["bob", "eve"])
    assert await speakers(group(rule, 1).compile(), sync) == ["eve"]


def test_candidates_that_are_not_in_the_group_are_named() -> None:
    with pytest.raises(BuildError, match="'zoe', who is not in the group"):
        group(selector(chooser("ann"), candidates=["ann", "zoe"])).compile()
    graph = group(selector(chooser("ann"), candidates=lambda state: ["zoe", "ann"])).compile()
    with pytest.raises(SpeakerError, match="gives 'zoe', who is not in the group: name some of ann, bob, eve"):
        graph.invoke({"messages": "Go."})


@SYNC
async def test_nobody_speaks_twice_in_a_row_where_that_is_not_allowed(sync: bool) -> None:
    model = chooser("ann", "ann", "bob")
    assert await speakers(group(selector(model, allow_repeat=False), 2).compile(), sync) == ["ann", "bob"]
    model = chooser("ann")
    assert (
        await speakers(group(selector(model, allow_repeat=False), 4, "ann bob").compile(), sync) == ["ann", "bob"] * 2
    )
    assert model.calls == 1


@SYNC
async def test_several_may_be_chosen_in_words(sync: bool) -> None:
    model = chooser("Let **eve** and Ann speak.", "bob")
    assert await speakers(group(selector(model, several=True)).compile(), sync) == ["ann", "eve", "bob"]
    # Who may choose one only has not chosen with two names.
    model = chooser("ann and bob", "bob")
    assert await speakers(group(selector(model), 1).compile(), sync) == ["bob"]


# where the model cannot choose


@SYNC
@pytest.mark.parametrize("structured", [False, True], ids=["text", "structured"])
@pytest.mark.parametrize("hosted", [False, True], ids=["here", "on a host"])
async def test_a_fallback_is_told(structured: bool, hosted: bool, sync: bool, caplog: Any) -> None:
    model = chooser("Zoe!", structured=structured)
    rule = selector(model, retries=1, fallback=random(1), candidates=["ann", "bob"])
    graph = group(rule, 1).compile()
    with loopback(graph) as remote, caplog.at_level(logging.WARNING, "agentmatrix.chat.selector"):
        at = remote if hosted else graph
        given: Any = {"messages": "Go."}
        if sync:
            parts = list(at.stream(given, stream_mode="custom"))
        else:
            parts = [part async for part in at.astream(given, stream_mode="custom")]
    assert model.calls == 2
    (part,) = parts
    assert part["speaker"] == "selector" and part["next"] in (["ann"], ["bob"])
    assert part["fallback"].startswith("the model named no member of ann, bob (") and "random chose" in part["fallback"]
    assert [record.getMessage() for record in caplog.records] == [f"selector: {part['fallback']}"]


def test_a_fallback_is_in_the_log_of_events() -> None:
    saver = InMemorySaver()
    graph = group(selector(chooser("nobody", "nobody", "bob"), retries=1), 2).compile(saver)
    graph.invoke({"messages": "Go."}, THREAD)
    saved = saver.get_tuple(THREAD)
    assert saved
    events = [event for event in saved.checkpoint["channel_values"][EVENT_LOG] if event.get("speakers")]
    assert [("fallback" in event, event["speakers"]) for event in events] == [(True, ["ann"]), (False, ["bob"])]
    assert "round_robin chose" in events[0]["fallback"]


def test_a_choice_is_no_news() -> None:
    graph = group(selector(chooser("bob")), 1).compile()
    assert list(graph.stream({"messages": "Go."}, stream_mode="custom")) == []


def test_a_question_can_be_sent_also_after_a_call_of_a_tool() -> None:
    call = AIMessage("", tool_calls=[{"name": "x", "args": {}, "id": "1"}])
    model = chooser(call, "bob")
    group(selector(model), 1).compile().invoke({"messages": "Go."})
    assert [type(message) for message in model.prompts[1]].count(SystemMessage) == 1
    assert not any(getattr(message, "tool_calls", None) for message in model.prompts[1])
