"""`@task` in members who speak freely: kept, cached and shown as in a node, here and on a host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_stream_writer
from langgraph.func import task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import push_message
from langgraph.types import CachePolicy, Command, interrupt

from agentmatrix.chat import ChatGroup
from agentmatrix.pregel.task_config import node_of
from agentmatrix.speakers import free
from agentmatrix.testing import loopback

PLACES = pytest.mark.parametrize("hosted", [False, True], ids=["local", "hosted"])
KINDS = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def talk(result: Any) -> list[tuple[str | None, str]]:
    return sorted((message.name, message.text) for message in result["messages"][1:])


def once(speak: Callable[..., Any]) -> Any:
    """A member that speaks until it is heard; of a coroutine function an async one."""

    def is_heard(messages: list[BaseMessage]) -> bool:
        return any(message.name == node_of(get_config()) for message in messages)

    if asyncio.iscoroutinefunction(speak):

        async def aturn(messages: list[BaseMessage]) -> Any:
            return "" if is_heard(messages) else await speak(messages)

        return aturn

    def turn(messages: list[BaseMessage]) -> Any:
        return "" if is_heard(messages) else speak(messages)

    return turn


class Run:
    """A graph around a group, on one thread."""

    def __init__(self, members: dict[str, Any], hosted: bool, is_async: bool, **options: Any) -> None:
        group = ChatGroup(members, speaker=free(), reply="transcript").compile(**options)
        made = StateGraph(MessagesState).add_node("group", loopback(group) if hosted else group)
        self.graph = made.add_edge(START, "group").compile(InMemorySaver())
        self.is_async = is_async

    async def __call__(self, given: Any, thread: str = "1") -> Any:
        config: Any = {"configurable": {"thread_id": thread}}
        if self.is_async:
            return await self.graph.ainvoke(given, config, durability="sync")
        return await asyncio.to_thread(self.graph.invoke, given, config, durability="sync")

    async def stream(self, *modes: Any) -> list[tuple[str, Any]]:
        config: Any = {"configurable": {"thread_id": "1"}}
        options: Any = {"stream_mode": list(modes), "subgraphs": True}
        given: Any = {"messages": "hi"}
        if self.is_async:
            return [part[1:] async for part in self.graph.astream(given, config, **options)]
        return [part[1:] for part in self.graph.stream(given, config, **options)]


@PLACES
@KINDS
async def test_results_are_kept_over_a_pause(hosted: bool, is_async: bool) -> None:
    worked: list[str] = []

    @task
    def work(word: str) -> str:
        worked.append(word)
        return word.upper()

    @once
    def ann(messages: list[BaseMessage]) -> str:
        words = [work(word) for word in ("one", "two")]
        first = interrupt("first?")
        third = work("three")
        second = interrupt("second?")
        return " ".join([words[0].result(), words[1].result(), first, third.result(), second])

    @once
    async def aann(messages: list[BaseMessage]) -> str:
        words = await asyncio.gather(work("one"), work("two"))
        first = interrupt("first?")
        third = await work("three")
        second = interrupt("second?")
        return f"{words[0]} {words[1]} {first} {third} {second}"

    # Whoever speaks in between is not heard by a turn that goes on.
    run = Run({"ann": aann if is_async else ann, "bob": once(lambda messages: "bob")}, hosted, is_async)
    assert (await run({"messages": "hi"}))["__interrupt__"][0].value == "first?"
    assert (await run(Command(resume="a")))["__interrupt__"][0].value == "second?"
    result = await run(Command(resume="b"))
    assert ("ann", "ONE TWO a THREE b") in talk(result)
    assert sorted(worked) == ["one", "three", "two"]


@PLACES
async def test_a_turn_that_was_killed_calls_nothing_again_and_hears_what_it_heard(hosted: bool) -> None:
    """Others have spoken, and their turns are saved, while this one is at work."""
    worked: list[str] = []
    heard: list[list[str]] = []
    # The members of a hosted group are on the loop of the host.
    kept, killed = asyncio.Event(), threading.Event()
    is_alive = [True]

    @task
    def work(word: str) -> str:
        worked.append(word)
        return word.upper()

    @once
    async def ann(messages: list[BaseMessage]) -> str:
        heard.append([message.text for message in messages])
        word = await work(f"heard {len(messages)}")
        kept.set()
        if is_alive[0]:
            await asyncio.Event().wait()
        return word

    def talks(name: str) -> Any:
        async def speak(messages: list[BaseMessage]) -> str:
            await kept.wait()
            said = [message.name for message in messages]
            if said.count(name) == 2:
                if said.count("bob") == said.count("eve") == 2:
                    killed.set()
                return ""
            return f"{name} {said.count(name)}"

        return speak

    run = Run({"ann": ann, "bob": talks("bob"), "eve": talks("eve")}, hosted, is_async=True)
    running = asyncio.create_task(run({"messages": "hi"}))
    await asyncio.to_thread(killed.wait)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    is_alive[0] = False
    result = await run(None)
    assert talk(result) == [("ann", "HEARD 1"), ("bob", "bob 0"), ("bob", "bob 1"), ("eve", "eve 0"), ("eve", "eve 1")]
    assert (worked, heard) == (["heard 1"], [["hi"], ["hi"]])


@PLACES
@KINDS
@pytest.mark.parametrize("others", ["silent", "speak"])
async def test_results_are_kept_over_a_failure(others: str, hosted: bool, is_async: bool) -> None:
    worked: list[str] = []
    broken = [True]

    @task
    def inner() -> str:
        worked.append("inner")
        return "inner"

    @task
    def outer() -> str:
        word = inner().result()
        worked.append("outer")
        if broken[0]:
            raise ValueError("broken")
        return f"{word} outer"

    @once
    def ann(messages: list[BaseMessage]) -> str:
        return outer().result()

    run = Run({"ann": ann, "bob": once(lambda messages: "bob" if others == "speak" else "")}, hosted, is_async)
    with pytest.raises(ValueError, match="broken"):
        await run({"messages": "hi"})
    broken[0] = False
    assert ("ann", "inner outer") in talk(await run(None))
    assert worked == ["inner", "outer", "outer"]


@PLACES
@KINDS
async def test_a_new_turn_calls_anew(hosted: bool, is_async: bool) -> None:
    worked: list[str] = []

    @task
    def work(word: str) -> str:
        worked.append(word)
        return word.upper()

    def ann(messages: list[BaseMessage]) -> str:
        own = [message for message in messages if message.name == "ann"]
        return work(f"turn {len(own)}").result() if len(own) < 2 else ""

    def bob(messages: list[BaseMessage]) -> str:
        own = [message for message in messages if message.name == "bob"]
        return f"word {len(own)}" if len(own) < 2 else ""

    run = Run({"ann": ann, "bob": bob}, hosted, is_async)
    assert [text for name, text in talk(await run({"messages": "hi"})) if name == "ann"] == ["TURN 0", "TURN 1"]
    assert worked == ["turn 0", "turn 1"]


@PLACES
@KINDS
async def test_results_are_cached(hosted: bool, is_async: bool) -> None:
    worked: list[str] = []

    @task(cache_policy=CachePolicy())
    def work(word: str) -> str:
        worked.append(word)
        return word.upper()

    @once
    def ann(messages: list[BaseMessage]) -> str:
        return work("done").result()

    cache = InMemoryCache()
    run = Run({"ann": ann, "bob": once(lambda messages: "bob")}, hosted, is_async, cache=cache)
    for thread in ("1", "2"):
        assert ("ann", "DONE") in talk(await run({"messages": "hi"}, thread))
    assert worked == ["done"]
    await work.aclear_cache(cache)
    await run({"messages": "hi"}, "3")
    assert worked == ["done", "done"]


@PLACES
@KINDS
async def test_streams_show_them_as_those_of_a_node(hosted: bool, is_async: bool) -> None:
    @task
    def inner(word: str) -> str:
        get_stream_writer()(f"at {word}")
        return word.upper()

    @task
    def work(word: str) -> str:
        return inner(word).result() + "!"

    @once
    def ann(messages: list[BaseMessage]) -> str:
        return work("done").result()

    def node(state: Any) -> Any:
        return {"messages": [AIMessage(work("done").result(), name="ann")]}

    def shown(parts: list[tuple[str, Any]]) -> list[Any]:
        called = ("inner", "work")
        found: list[Any] = []
        for mode, payload in parts:
            if mode == "custom" or (mode == "updates" and set(payload) <= {*called}):
                found.append((mode, payload))
            elif mode == "tasks" and payload["name"] in called:
                found.append((mode, {key: value for key, value in payload.items() if key != "id"}))
            elif mode == "debug" and payload["payload"].get("name") in called:
                found.append((mode, payload["type"], payload["payload"]["name"]))
        return found

    run = Run({"ann": ann, "bob": once(lambda messages: "")}, hosted, is_async)
    inside = StateGraph(MessagesState).add_node("ann", node).add_edge(START, "ann").compile()
    plain = Run({"ann": ann}, False, is_async)
    plain.graph = StateGraph(MessagesState).add_node("n", inside).add_edge(START, "n").compile(InMemorySaver())
    modes = ("tasks", "updates", "custom", "debug")
    assert shown(await run.stream(*modes)) == shown(await plain.stream(*modes)) != []


@PLACES
@KINDS
async def test_a_task_may_ask_a_person_and_say_something_and_then_does_so_again(hosted: bool, is_async: bool) -> None:
    asked: list[str] = []

    @task
    def ask(question: str) -> str:
        answer = interrupt(question)
        asked.append(question)
        return str(answer)

    @task
    def say(word: str) -> str:
        push_message(AIMessage(word, id=word))
        return word

    @once
    def ann(messages: list[BaseMessage]) -> str:
        said = say("pushed").result()
        return f"{said} {ask('first?').result()} {interrupt('second?')}"

    run = Run({"ann": ann, "bob": once(lambda messages: "bob")}, hosted, is_async)
    for answer, question in ((None, "first?"), ("a", "second?")):
        given = {"messages": "hi"} if answer is None else Command(resume={waiting.id: answer})  # noqa: F821
        paused = await run(given)
        (waiting,) = paused["__interrupt__"]
        assert waiting.value == question
    result = await run(Command(resume={waiting.id: "b"}))
    assert talk(result).count(("ann", "pushed")) == 1
    assert ("ann", "pushed a b") in talk(result)


@KINDS
async def test_many_turns_that_call_at_once(is_async: bool) -> None:
    names = [f"m{number}" for number in range(40)]

    @task
    def work(word: str) -> str:
        return word.upper()

    @once
    def speak(messages: list[BaseMessage]) -> str:
        name = str(node_of(get_config()))
        return "".join(call.result() for call in [work(name), work("x")])

    @once
    async def aspeak(messages: list[BaseMessage]) -> str:
        return "".join(await asyncio.gather(work(str(node_of(get_config()))), work("x")))

    run = Run(dict.fromkeys(names, aspeak if is_async else speak), False, is_async)
    assert talk(await run({"messages": "hi"})) == sorted((name, name.upper() + "X") for name in names)
