"""Free conversation: members who act at the same time."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix.chat import ChatGroup
from agentmatrix.chat.workers import MemberPool
from agentmatrix.compose import Dag
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import budget, max_turns, says
from agentmatrix.testing import loopback
from agentmatrix.testing.scripted import ScriptedChatModel
from tests.chat.scripted_groups import THREAD, in_graph, once, talk, whole


def all_pools() -> list[MemberPool]:
    return [known for known in gc.get_objects() if isinstance(known, MemberPool)]


def speaks(script: Callable[[list[BaseMessage]], str]) -> Any:
    return in_graph(lambda state: {"messages": [AIMessage(script(state["messages"]))]})


@pytest.mark.parametrize("is_async", [True, False])
async def test_everybody_hears_everything_until_nobody_has_more_to_say(is_async: bool) -> None:
    members = {name: once(f"I am {name}") for name in ("ann", "bob", "eve")}
    group = whole(members, speaker=free(), include_agent_name=None).compile()
    result = await group.ainvoke({"messages": "hi"}) if is_async else group.invoke({"messages": "hi"})
    assert sorted(talk(result)[1:]) == [(name, f"I am {name}") for name in members]
    assert (result["stop_reason"], result["last_speaker"]) == ("silence", result["messages"][-1].name)
    for name, model in members.items():
        heard = {message.text for prompt in model.prompts for message in prompt} - {"Go on."}
        assert heard | {f"I am {name}"} == {"hi", *(f"I am {other}" for other in members)}
        assert all(isinstance(m, AIMessage) for m in model.prompts[-1] if m.name == name)


@pytest.mark.parametrize("is_async", [True, False])
async def test_members_who_begin_together_hear_the_same_however_many_there_are(is_async: bool) -> None:
    members = {f"m{i}": once("hello") for i in range(150)}
    group = whole(members, speaker=free()).compile()
    result = await group.ainvoke({"messages": "hi"}) if is_async else group.invoke({"messages": "hi"})
    assert len(result["messages"]) == 151
    assert {tuple(message.text for message in model.prompts[0]) for model in members.values()} == {("hi",)}


@pytest.mark.parametrize("is_async", [True, False])
async def test_who_waits_for_the_limit_hears_what_is_said_meanwhile(is_async: bool) -> None:
    members = {name: once(f"I am {name}") for name in ("ann", "bob", "eve")}
    group, one_by_one = whole(members, speaker=free(), include_agent_name=None).compile(), {"max_concurrency": 1}
    if is_async:
        await group.ainvoke({"messages": "hi"}, one_by_one)
    else:
        group.invoke({"messages": "hi"}, one_by_one)
    firsts = [[message.text for message in model.prompts[0]] for model in members.values()]
    assert firsts == [["hi"], ["hi", "I am ann"], ["hi", "I am ann", "I am bob"]]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_run_that_has_ended_does_not_wait_for_the_garbage_collector(is_async: bool) -> None:
    group = whole({"ann": once("hello"), "bob": once("hello")}, speaker=free()).compile()

    async def run() -> Any:
        return await group.ainvoke({"messages": "hi"}) if is_async else group.invoke({"messages": "hi"})

    threads, pools = threading.enumerate(), all_pools()
    gc.disable()
    try:
        await run()
        for thread in threading.enumerate():
            if thread.name == "chat-member" and thread not in threads:
                thread.join()
        assert all(pool in pools for pool in all_pools())
    finally:
        gc.enable()


async def test_nobody_waits_for_a_slow_member() -> None:
    others_are_done = asyncio.Event()

    async def slow(messages: list[BaseMessage]) -> str:
        if any(m.name == "slow" for m in messages):
            return ""
        await others_are_done.wait()
        return "at last"

    async def quick(messages: list[BaseMessage]) -> str:
        count = sum(m.name == "quick" for m in messages)
        if any(m.name == "echo" and m.text == "echo 3" for m in messages):
            others_are_done.set()
        return f"quick {count + 1}" if count < 3 and sum(m.name == "echo" for m in messages) >= count else ""

    async def echo(messages: list[BaseMessage]) -> str:
        count = sum(m.name == "echo" for m in messages)
        return f"echo {count + 1}" if sum(m.name == "quick" for m in messages) > count else ""

    group = whole({"slow": slow, "quick": quick, "echo": echo}, speaker=free()).compile()
    said = [text for _, text in talk(await group.ainvoke({"messages": "go"}))[1:]]
    assert said == ["quick 1", "echo 1", "quick 2", "echo 2", "quick 3", "echo 3", "at last"]


def test_nobody_waits_for_a_slow_thread() -> None:
    heard = threading.Event()

    def slow(messages: list[BaseMessage]) -> str:
        if any(m.name == "slow" for m in messages):
            return ""
        return "at last" if heard.wait(60) else "nobody spoke"

    def quick(messages: list[BaseMessage]) -> str:
        count = sum(m.name in ("quick", "echo") for m in messages)
        if count >= 4:
            heard.set()
        return f"quick {count}" if count % 2 == 0 and count < 4 else ""

    def echo(messages: list[BaseMessage]) -> str:
        count = sum(m.name in ("quick", "echo") for m in messages)
        return f"echo {count}" if count % 2 else ""

    result = whole({"slow": slow, "quick": quick, "echo": echo}, speaker=free()).compile().invoke({"messages": "go"})
    assert [text for _, text in talk(result)[1:]] == ["quick 0", "echo 1", "quick 2", "echo 3", "at last"]


async def test_a_stop_cuts_off_whoever_is_at_work() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs(messages: list[BaseMessage]) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    async def ends(messages: list[BaseMessage]) -> str:
        await begun.wait()
        return "DONE"

    group = whole({"hangs": hangs, "ends": ends}, speaker=free(), stop=says("DONE")).compile()
    result = await group.ainvoke({"messages": "go"})
    assert (talk(result)[1:], result["stop_reason"]) == ([("ends", "DONE")], "says('DONE')")
    assert cancelled.is_set()


async def test_a_budget_of_seconds_ends_a_conversation_that_hangs() -> None:
    async def hangs(messages: list[BaseMessage]) -> str:
        await asyncio.Event().wait()
        return "never"

    group = whole({"hangs": hangs}, speaker=free(), stop=budget(seconds=0.05) | says("x")).compile()
    assert (await group.ainvoke({"messages": "go"}))["stop_reason"] == "budget(seconds=0.05)"


async def test_talkers_without_end_meet_the_bound() -> None:
    chatty = {name: ScriptedChatModel("more", cycle=True) for name in ("ann", "bob")}
    for options, reason in (({"max_turns": 4}, "max_turns bound (4)"), ({"stop": max_turns(3)}, "max_turns(3)")):
        result = await whole(chatty, speaker=free(), **options).compile().ainvoke({"messages": "go"})
        assert result["stop_reason"] == reason and len(result["messages"]) <= 1 + 2 * 4


async def test_an_error_ends_it_and_loses_nothing_that_was_said() -> None:
    broken = [True]
    failed = asyncio.Event()

    async def fails(messages: list[BaseMessage]) -> str:
        if any(m.name == "ann" for m in messages) and broken[0]:
            failed.set()
            raise ValueError("broken")
        return ""

    ann = once("first")
    group = whole({"fails": fails, "ann": ann}, speaker=free()).compile(checkpointer=InMemorySaver())
    with pytest.raises(ValueError, match="broken"):
        await group.ainvoke({"messages": "go"}, THREAD)
    broken[0] = False
    result = await group.ainvoke(None, THREAD)
    assert (talk(result)[1:], result["stop_reason"]) == ([("ann", "first")], "silence")


@pytest.mark.parametrize("where", ["function", "graph", "remote"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_question_to_a_person_pauses_it_and_nobody_speaks_twice(where: str, is_async: bool) -> None:
    asked: list[str] = []

    def person(state: Any) -> Any:
        messages = state["messages"]
        if any(m.name == "person" for m in messages) or not any(m.name == "ann" for m in messages):
            return {"messages": []}
        answer = interrupt("your word?")
        asked.append(answer)
        return {"messages": [HumanMessage(answer)]}

    def before(state: Any) -> Any:
        asked.append("before")
        return {}

    agent: Any = person
    if where != "function":
        inner = StateGraph(MessagesState).add_node("before", before).add_node("inner", person)
        agent = inner.add_edge(START, "before").add_edge("before", "inner").compile()
    if where == "remote":
        agent = loopback(agent)
    ann, bob = once("ann speaks"), once("bob speaks")
    group = whole({"ann": ann, "bob": bob, "person": agent}, speaker=free()).compile(checkpointer=InMemorySaver())

    async def run(given: Any) -> Any:
        return await group.ainvoke(given, THREAD) if is_async else group.invoke(given, THREAD)

    await run({"messages": "go"})
    state = group.get_state(THREAD)
    assert (state.next, [i.value for i in state.interrupts]) == (("person",), ["your word?"])
    before_resume = asked.count("before")
    result = await run(Command(resume="mine"))
    assert sorted(talk(result)[1:]) == [("ann", "ann speaks"), ("bob", "bob speaks"), ("person", "mine")]
    assert isinstance(next(m for m in result["messages"] if m.name == "person"), HumanMessage)
    assert (asked.count("mine"), result["stop_reason"]) == (1, "silence")
    # One more run of its graph heard the others' answer to the person, none was for the resume.
    assert where == "function" or asked.count("before") <= before_resume + 1


async def test_it_goes_on_after_a_kill_where_it_was() -> None:
    saver, gate = InMemorySaver(), asyncio.Event()

    async def waits(messages: list[BaseMessage]) -> str:
        if not any(m.name == "ann" for m in messages):
            return ""
        if not gate.is_set():
            killed.set()
            await asyncio.Event().wait()
        return "" if any(m.name == "waits" for m in messages) else "here"

    killed = asyncio.Event()
    ann = once("ann speaks")
    group = whole({"ann": ann, "waits": waits}, speaker=free()).compile(checkpointer=saver)
    run = asyncio.create_task(group.ainvoke({"messages": "go"}, THREAD, durability="sync"))
    await killed.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    gate.set()
    result = await group.ainvoke(None, THREAD)
    assert talk(result)[1:] == [("ann", "ann speaks"), ("waits", "here")]


async def test_a_handoff_calls_and_ends() -> None:
    def ann(messages: list[BaseMessage]) -> Any:
        return Command(goto="bob") if len(messages) == 1 else Command(goto=END, update={"messages": [AIMessage("bye")]})

    calls: list[int] = []

    def bob(messages: list[BaseMessage]) -> str:
        calls.append(len(messages))
        return "" if len(calls) == 1 else "called"

    result = await whole({"ann": ann, "bob": bob}, speaker=free()).compile().ainvoke({"messages": "go"})
    assert talk(result)[1:] == [("bob", "called"), ("ann", "bye")]
    assert (calls[:2], result["stop_reason"]) == ([1, 1], "ann ended it")


class Names(BaseCallbackHandler):
    run_inline = True

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        if "langsmith:hidden" not in (kwargs.get("tags") or ()):
            self.names.append(kwargs["name"])


@pytest.mark.parametrize("speaker", [free(), broadcast()])
async def test_streams_and_callbacks_are_the_members(speaker: Any) -> None:
    def group() -> Any:
        return whole({"ann": once("a b"), "bob": once("c d")}, speaker=speaker, stop=max_turns(1)).compile()

    parts = [part async for part in group().astream({"messages": "hi"}, stream_mode="messages")]
    words = {(meta["langgraph_node"], chunk.content) for chunk, meta in parts if chunk.content}
    assert words == {("ann", "a "), ("ann", "b"), ("bob", "c "), ("bob", "d")}
    updates = [part async for part in group().astream({"messages": "hi"}, stream_mode="updates")]
    assert sorted(name for part in updates for name in part) == ["ann", "bob"]
    assert updates[0]["ann"]["messages"][0].text == "a b"
    tasks = [part async for part in group().astream({"messages": "hi"}, stream_mode="tasks")]
    assert sorted(part["name"] for part in tasks) == ["ann", "ann", "bob", "bob"]
    names = Names()
    await group().ainvoke({"messages": "hi"}, {"callbacks": [names]})
    assert {"ann", "bob"} < set(names.names)


async def test_a_graph_in_free_conversation_streams_under_its_own_namespace() -> None:
    group = whole({"ann": speaks(lambda messages: "x" if len(messages) == 1 else ""), "bob": once("y")}, speaker=free())
    stream = group.compile().astream({"messages": "hi"}, stream_mode="updates", subgraphs=True)
    spaces = {space[0].split(":")[0] for space, part in [item async for item in stream] if space}
    assert spaces == {"ann"}


async def test_at_most_so_many_are_at_work() -> None:
    at_work, most = [0], [0]

    async def works(state: Any) -> str:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        await asyncio.sleep(0)
        at_work[0] -= 1
        return "done"

    members = {f"m{i}": works for i in range(9)}
    for speaker in (broadcast(), free()):
        group = whole(members, speaker=speaker, stop=max_turns(1)).compile()
        await group.ainvoke({"messages": "hi"}, {"max_concurrency": 2})
        assert most[0] == 2
    result = whole({f"m{i}": once("x") for i in range(5)}, speaker=free()).compile()
    assert len(result.invoke({"messages": "hi"}, {"max_concurrency": 1})["messages"]) == 6


async def test_a_free_group_in_a_dag_beside_another_one() -> None:
    dag = Dag()
    dag.add_node("left", ChatGroup({"ann": once("l")}, speaker=free()).compile())
    dag.add_node("right", ChatGroup({"ann": once("r")}, speaker=free(), stop=says("r")).compile())
    result = await dag.compile(checkpointer=InMemorySaver()).ainvoke({"messages": "hi"}, THREAD)
    assert talk(result)[1:] == [("left", "l"), ("right", "r")]
    reasons = [message.response_metadata["stop_reason"] for message in result["messages"][1:]]
    assert reasons == ["silence", "says('r')"]


def test_free_speech_has_no_breakpoints() -> None:
    with pytest.raises(BuildError, match="no turns"):
        ChatGroup({"ann": once("x")}, speaker=free()).compile(interrupt_before=["ann"])
    with pytest.raises(BuildError, match="no turns"):
        ChatGroup({"ann": once("x")}, speaker=free()).compile().invoke({"messages": "hi"}, interrupt_before=["ann"])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_the_order_nothing_is_lost(data: Any) -> None:
    """The test decides who finishes when; each message is said once, and heard by all before the end."""
    names = ["ann", "bob", "eve", "joe"]
    says_so_often = {name: data.draw(st.integers(0, 3), label=name) for name in names}
    heard: dict[str, set[str]] = {name: set() for name in names}
    waiting: list[asyncio.Future[None]] = []

    def member(name: str) -> Any:
        async def speak(messages: list[BaseMessage]) -> str:
            heard[name] |= {m.text for m in messages}
            future = asyncio.get_running_loop().create_future()
            waiting.append(future)
            await future
            said = sum(m.name == name for m in messages)
            return f"{name} {said}" if said < says_so_often[name] else ""

        return speak

    async def conduct(run: asyncio.Task[Any]) -> Any:
        while not run.done():
            if waiting:
                waiting.pop(data.draw(st.integers(0, len(waiting) - 1))).set_result(None)
            await asyncio.wait([run], timeout=0)
        return run.result()

    async def main() -> Any:
        group = whole({name: member(name) for name in names}, speaker=free()).compile()
        return await conduct(asyncio.create_task(group.ainvoke({"messages": "go"})))

    result = asyncio.run(main())
    texts = [text for _, text in talk(result)]
    alone = [name for name in names if says_so_often[name]]
    assert len(texts) == len(set(texts)) and result["stop_reason"] == "silence"
    for name in alone:
        mine = [text for text in texts if text.startswith(name)]
        assert mine == [f"{name} {k}" for k in range(len(mine))] and mine
    for name in names:
        assert {text for text in texts if not text.startswith(name)} <= heard[name]


def test_a_wrong_answer_of_a_speaker_is_said() -> None:
    with pytest.raises(SpeakerError, match="chose 5.*no name"):
        whole({"ann": once("x")}, speaker=lambda state: 5).compile().invoke({"messages": "go"})
