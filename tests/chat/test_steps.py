"""A turn is one step with one checkpoint, whoever chooses the next speaker. Before a function of the user or a model is
asked, the turn before it is saved."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.chat import ChatGroup
from agentmatrix.chat import group as group_module
from agentmatrix.compose import Dag
from agentmatrix.engine.channels import RUN
from agentmatrix.speakers import broadcast, mention, random, round_robin, selector
from agentmatrix.stops import max_turns, says, when
from agentmatrix.testing import ScriptedChatModel, loopback

SYNC = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
THREAD: Any = {"configurable": {"thread_id": "1"}}
GIVEN: Any = {"messages": "Go."}


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


def by_function(state: Any) -> str:
    return ["ann", "bob"][(len(state["messages"]) - 1) % 2]


def group(speaker: Any, **options: Any) -> Any:
    members = {"ann": model("a1", "a2"), "bob": model("b1", "b2")}
    made = ChatGroup(members, speaker=speaker, stop=options.pop("stop", max_turns(4)), reply="transcript")
    return made.compile(InMemorySaver(), **options)


async def run(graph: Any, given: Any, sync: bool, thread: Any = THREAD) -> Any:
    return graph.invoke(given, thread) if sync else await graph.ainvoke(given, thread)


def said(state: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in state["messages"]]


RULES: dict[str, Any] = {
    "round_robin": round_robin,
    "random": lambda: random("x"),
    "mention": lambda: mention(round_robin()),
    "function": lambda: by_function,
    "selector": lambda: selector(model("ann", "bob")),
}


@SYNC
@pytest.mark.parametrize("rule", RULES)
async def test_a_turn_has_one_checkpoint(rule: str, sync: bool) -> None:
    graph = group(RULES[rule](), stop=max_turns(4) | says("nothing"))
    result = await run(graph, GIVEN, sync)
    speakers = [message.name for message in result["messages"][1:]]
    found = [snapshot.next for snapshot in graph.get_state_history(THREAD)]
    # Where a function or a model chooses, START cannot.
    first = [("next_turn",)] if rule in ("function", "selector") else []
    assert found[::-1] == [("__start__",), *first, *((name,) for name in speakers), ()]


@SYNC
async def test_a_function_chooses_when_the_turn_is_saved(sync: bool) -> None:
    def broken(state: Any) -> str:
        if len(state["messages"]) == 3:
            raise ConnectionError("no line")
        return by_function(state)

    graph = group(broken)
    with pytest.raises(ConnectionError):
        await run(graph, GIVEN, sync)
    assert said(graph.get_state(THREAD).values) == [(None, "Go."), ("ann", "a1"), ("bob", "b1")]


@SYNC
@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["", "saved"])
@pytest.mark.parametrize("last", [None, "stop"])
async def test_functions_are_asked_once_for_each_turn(last: str | None, saver: Any, sync: bool) -> None:
    turns, asked = iter(["ann", ["ann", "bob"], "bob", ["team", "bob"], "bob", None]), iter(range(100))
    team = ChatGroup({"x": model("x")}, stop=max_turns(1)).compile()
    members = {"ann": model("a"), "bob": model("b"), "team": team}
    stop = when(lambda state: next(asked) == 5 and "enough") if last else None
    made = ChatGroup(members, speaker=lambda state: next(turns), stop=stop, reply="transcript")
    result = await run(made.compile(saver and saver()), GIVEN, sync)
    assert [name for name, _ in said(result)[1:]] == ["ann", "ann", "bob", "bob", "bob", "team", "bob"]
    assert result["stop_reason"] == (last and "enough" or "speaker chose nobody").replace("speaker", "<lambda>")


@SYNC
@pytest.mark.parametrize("where", ["here", "on a host", "in a dag"])
@pytest.mark.parametrize("speaker", [round_robin(), by_function], ids=["rule", "function"])
async def test_nobody_is_asked_again_after_a_failure(speaker: Any, where: str, sync: bool) -> None:
    bob = model(ConnectionError("no line"), "b1")
    ann = model("a1", "a2")
    made = ChatGroup({"ann": ann, "bob": bob}, speaker=speaker, stop=max_turns(3), reply="transcript")
    graph: Any = made.compile(InMemorySaver() if where == "here" else None)
    with loopback(graph) if where == "on a host" else nullcontext(graph) as at:
        outer = at if where == "here" else Dag().add_node("panel", at).compile(InMemorySaver())
        with pytest.raises(ConnectionError):
            await run(outer, GIVEN, sync)
        result = await run(outer, None, sync)
    assert said(result) == [(None, "Go."), ("ann", "a1"), ("bob", "b1"), ("ann", "a2")]
    assert (ann.calls, bob.calls) == (2, 2)


@SYNC
async def test_words_at_a_fork_are_heard_by_whoever_has_the_floor(sync: bool) -> None:
    graph = group(round_robin())
    await run(graph, GIVEN, sync)
    past = next(snapshot for snapshot in graph.get_state_history(THREAD) if snapshot.next == ("bob",))
    heard = len(past.values["messages"])
    fork = graph.update_state(past.config, {"messages": [("human", "Wait.")]})
    assert graph.get_state(fork).next == ("bob",)
    result = await run(graph, None, sync, fork)
    assert said(result)[heard][1] == "Wait." and said(result)[heard + 1][0] == "bob"
    assert len(result["messages"]) == 6


@SYNC
@pytest.mark.parametrize("speaker", [mention(round_robin()), round_robin()], ids=["mention", "round_robin"])
async def test_behind_a_breakpoint_the_words_that_were_added_choose(speaker: Any, sync: bool) -> None:
    graph = group(speaker, interrupt_after=["ann"])
    await run(graph, GIVEN, sync)
    graph.update_state(THREAD, {"messages": [("human", "@ann once more")]})
    result = await run(graph, None, sync)
    assert said(result)[3][0] == ("ann" if speaker.label == "mention" else "bob")


@SYNC
@pytest.mark.parametrize("is_earlier", [False, True], ids=["numbers", "whole"])
async def test_a_thread_between_two_turns_goes_on(is_earlier: bool, sync: bool, monkeypatch: Any) -> None:
    # Earlier versions kept there what is kept at a pause, with what the last turn had written in it.
    with monkeypatch.context() as earlier:
        if is_earlier:
            made = group_module._topology
            earlier.setattr(group_module, "_topology", lambda *given: replace(made(*given), reads_items=True))
        graph = group(round_robin())
    await run(graph, GIVEN, sync)
    saver = graph.checkpointer
    past = next(snapshot for snapshot in graph.get_state_history(THREAD) if snapshot.next == ("bob",))
    kept = saver.get_tuple(past.config).checkpoint["channel_values"][RUN]
    assert ("run" in kept) is is_earlier
    now = group(round_robin())
    now.checkpointer = saver
    result = await run(now, None, sync, past.config)
    assert [name for name, _ in said(result)[1:]] == ["ann", "bob", "ann", "bob"]


class Killed(BaseException):
    """Ends a run as a kill does: nobody puts a checkpoint."""


@SYNC
@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("at", ["the choice", "the turn"])
async def test_whoever_has_answered_is_not_asked_again_after_a_kill(at: str, durability: Any, sync: bool) -> None:
    chosen: list[str] = []

    def chooser(state: Any) -> str:
        chosen.append(by_function(state))
        if at == "the choice" and len(chosen) == 2:
            raise Killed
        return chosen[-1]

    def bob(state: Any) -> Any:
        if at == "the turn" and len(chosen) == 2:
            chosen.append("")
            raise Killed
        return "b1"

    ann = model("a1", "a2")
    made = ChatGroup({"ann": ann, "bob": bob}, speaker=chooser, stop=max_turns(3), reply="transcript")
    graph = made.compile(InMemorySaver())
    with pytest.raises(Killed):
        if sync:
            graph.invoke(GIVEN, THREAD, durability=durability)
        else:
            await graph.ainvoke(GIVEN, THREAD, durability=durability)
    result = await run(graph, None, sync)
    assert said(result) == [(None, "Go."), ("ann", "a1"), ("bob", "b1"), ("ann", "a2")]
    assert (ann.calls, [name for name in chosen if name]) == (
        2,
        ["ann", "bob", "bob", "ann"] if at == "the choice" else ["ann", "bob", "ann"],
    )


@SYNC
@pytest.mark.parametrize("speaker", [by_function, broadcast()], ids=["function", "broadcast"])
async def test_members_are_asked_again_from_a_checkpoint_of_the_past(speaker: Any, sync: bool) -> None:
    ann, bob = model("a1", "a2"), model("b1", "b2")
    made = ChatGroup({"ann": ann, "bob": bob}, speaker=speaker, stop=max_turns(2), reply="transcript")
    graph = made.compile(InMemorySaver())
    await run(graph, GIVEN, sync)
    calls = ann.calls + bob.calls
    past = next(snapshot for snapshot in graph.get_state_history(THREAD) if snapshot.next in (("bob",), ("together",)))
    await run(graph, None, sync, past.config)
    assert ann.calls + bob.calls > calls


class LosesACheckpoint(InMemorySaver):
    """Keeps what the first turn has written, and fails at the checkpoint behind it."""

    has_lost = False

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] == 1 and not self.has_lost:
            self.has_lost = True
            raise ConnectionError("the disk is gone")
        return super().put(config, checkpoint, metadata, new_versions)


@SYNC
@pytest.mark.parametrize("words", [None, "@ann Wait."])
async def test_a_turn_whose_checkpoint_was_lost_is_kept(words: str | None, sync: bool) -> None:
    ann, bob = model("a1 @bob", "a2"), model("b1", "b2")
    made = ChatGroup({"ann": ann, "bob": bob}, speaker=mention(round_robin()), stop=max_turns(2), reply="transcript")
    graph = made.compile(LosesACheckpoint())
    with pytest.raises(ConnectionError):
        await run(graph, GIVEN, sync)
    if words:
        graph.update_state(THREAD, {"messages": [("human", words)]})
    result = await run(graph, None, sync)
    assert [name for name, _ in said(result) if name] == ["ann", "bob"]
    assert ann.calls == 1
    assert words in (None, said(result)[2][1])
