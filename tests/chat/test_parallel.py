"""Many members in one task: what is answered in a broadcast is saved, pauses and failures are the members' own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import task
from langgraph.types import Command, RetryPolicy, interrupt
from pydantic import PrivateAttr

from agentmatrix.agent import AgentSpec, as_agent
from agentmatrix.chat import ChatGroup
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import max_turns
from agentmatrix.testing import loopback
from agentmatrix.testing.scripted import ScriptedChatModel

THREAD: Any = {"configurable": {"thread_id": "1"}}


def talk(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]][1:]


def round_of(members: Any, saver: Any) -> Any:
    group = ChatGroup(members, speaker=broadcast(), stop=max_turns(1), reply="transcript")
    return group.compile(checkpointer=saver)


class Watched(InMemorySaver):
    """Says when something is saved beside a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.saved = asyncio.Event()

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await super().aput_writes(config, writes, task_id, task_path)
        if any(isinstance(value, dict) and "messages" in value for _, value in writes):
            self.saved.set()


class Waits(ScriptedChatModel):
    """A model that answers when it may."""

    _goes_on: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

    async def ainvoke(self, *args: Any, **kwargs: Any) -> AIMessage:
        await self._goes_on.wait()
        return await super().ainvoke(*args, **kwargs)


INSTRUCTED: dict[str, Callable[[ScriptedChatModel], Any]] = {
    "model": lambda model: model,
    "instructed": lambda model: as_agent(model, system_prompt="Be brief."),
    "bound": lambda model: model.bind(stop=["."]),
    "fallbacks": lambda model: as_agent(model.with_fallbacks([model]), system_prompt="Be brief."),
    "data": lambda model: AgentSpec(name="m", model="model", system_prompt="Be brief.").compile({"model": model}, None),
}


@pytest.mark.parametrize("kind", [*INSTRUCTED, "function"])
async def test_models_share_a_task_with_a_checkpointer_with_instructions_too(kind: str) -> None:
    make = INSTRUCTED.get(kind, lambda model: lambda state: model.invoke(state["messages"]))
    models = {name: ScriptedChatModel(name) for name in ("ann", "bob")}
    graph = round_of({name: make(model) for name, model in models.items()}, InMemorySaver())
    assert talk(await graph.ainvoke({"messages": "Go."}, THREAD)) == [("ann", "ann"), ("bob", "bob")]
    steps = [snapshot.next async for snapshot in graph.aget_state_history(THREAD)]
    assert (("ann", "bob") in steps) == (kind == "function")


async def test_a_kill_in_the_middle_of_a_broadcast_asks_nobody_twice() -> None:
    saver, ann, bob = Watched(), ScriptedChatModel("ann"), Waits("bob")
    group = round_of({"ann": ann, "bob": bob}, saver)
    run = asyncio.create_task(group.ainvoke({"messages": "hi"}, THREAD))
    await saver.saved.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    bob._goes_on.set()
    result = await group.ainvoke(None, THREAD)
    assert (talk(result), ann.calls) == ([("ann", "ann"), ("bob", "bob")], 1)


@pytest.mark.parametrize("is_async", [True, False])
async def test_after_an_error_only_those_are_asked_who_have_not_answered(is_async: bool) -> None:
    ann, fails = ScriptedChatModel("ann"), ScriptedChatModel([ValueError("broken"), "mended"])
    group = round_of({"ann": ann, "fails": fails}, InMemorySaver())

    async def run(given: Any) -> Any:
        return await group.ainvoke(given, THREAD) if is_async else group.invoke(given, THREAD)

    with pytest.raises(ValueError, match="broken"):
        await run({"messages": "hi"})
    assert "fails" in group.get_state(THREAD).next and set(group.get_state(THREAD).next) <= {"ann", "fails"}
    assert talk(await run(None)) == [("ann", "ann"), ("fails", "mended")]
    assert (ann.calls, fails.calls) == (1, 2)


@pytest.mark.parametrize("is_async", [True, False])
async def test_whoever_pauses_in_a_broadcast_is_the_one_that_is_next_and_hears_what_all_heard(is_async: bool) -> None:
    ann, zoe = ScriptedChatModel("ann"), ScriptedChatModel("zoe")
    person = ScriptedChatModel(lambda messages: interrupt("your word?"), cycle=True)
    group = round_of({"ann": ann, "person": person, "zoe": zoe}, InMemorySaver())

    async def run(given: Any) -> Any:
        return await group.ainvoke(given, THREAD) if is_async else group.invoke(given, THREAD)

    paused = await run({"messages": "hi"})
    assert [asked.value for asked in paused["__interrupt__"]] == ["your word?"]
    assert group.get_state(THREAD).next == ("person",)
    assert talk(await run(Command(resume="me"))) == [("ann", "ann"), ("person", "me"), ("zoe", "zoe")]
    assert [[message.text for message in prompt] for prompt in person.prompts] == [["hi"], ["hi"]]
    assert (ann.calls, zoe.calls) == (1, 1)


@pytest.mark.parametrize("is_async", [True, False])
async def test_results_of_tasks_inside_a_member_are_kept_over_a_pause(is_async: bool) -> None:
    worked: list[str] = []

    @task
    def work() -> str:
        worked.append("work")
        return "worked"

    def asks(messages: list[BaseMessage]) -> str:
        done = work().result()
        return f"{done} {interrupt('your word?')}"

    async def aasks(messages: list[BaseMessage]) -> str:
        done = await work()
        return f"{done} {interrupt('your word?')}"

    group = round_of({"ann": ScriptedChatModel("ann"), "asks": aasks if is_async else asks}, InMemorySaver())
    for given in ({"messages": "hi"}, Command(resume="me")):
        result = await group.ainvoke(given, THREAD) if is_async else group.invoke(given, THREAD)
    assert (talk(result), worked) == ([("ann", "ann"), ("asks", "worked me")], ["work"])


@pytest.mark.parametrize("is_async", [True, False])
async def test_members_who_speak_freely_have_tasks(is_async: bool) -> None:
    worked: list[str] = []

    @task
    def work(name: str) -> str:
        worked.append(name)
        return f"{name} worked"

    def member(name: str) -> Any:
        def speaks(messages: list[BaseMessage]) -> str:
            return "" if any(message.name == name for message in messages) else work(name).result()

        async def aspeaks(messages: list[BaseMessage]) -> str:
            return "" if any(message.name == name for message in messages) else await work(name)

        return aspeaks if is_async else speaks

    group = ChatGroup({name: member(name) for name in ("ann", "bob", "eve")}, speaker=free(), reply="transcript")
    compiled = group.compile(checkpointer=InMemorySaver())
    given: Any = {"messages": "hi"}
    result = await compiled.ainvoke(given, THREAD) if is_async else compiled.invoke(given, THREAD)
    assert sorted(talk(result)) == [(name, f"{name} worked") for name in ("ann", "bob", "eve")]
    assert sorted(worked) == ["ann", "bob", "eve"]


@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["unsaved", "saved"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_turn_that_goes_on_while_others_have_spoken_has_tasks(is_async: bool, saver: Any) -> None:
    tried: list[str] = []
    others_went_on = threading.Event()

    @task
    def inner(word: str) -> str:
        return word.upper()

    @task
    async def ainner(word: str) -> str:
        return word.upper()

    @task(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=KeyError))
    def work(word: str) -> str:
        tried.append(word)
        if len(tried) == 1:
            raise KeyError(word)
        return inner(word).result()

    @task(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=KeyError))
    async def awork(word: str) -> str:
        tried.append(word)
        if len(tried) == 1:
            raise KeyError(word)
        return await ainner(word)

    def has_spoken(name: str, messages: list[BaseMessage]) -> bool:
        return any(message.name == name for message in messages)

    def slow(messages: list[BaseMessage]) -> str:
        if has_spoken("slow", messages):
            return ""
        assert others_went_on.wait(60)
        return work("done").result()

    async def aslow(messages: list[BaseMessage]) -> str:
        if has_spoken("slow", messages):
            return ""
        assert await asyncio.to_thread(others_went_on.wait, 60)
        return await awork("done")

    def talks(name: str) -> Any:
        def talk(messages: list[BaseMessage]) -> str:
            if not has_spoken(name, messages):
                return "hello"
            # The second turn of whoever spoke first: the task of LangGraph's that all of them began in is over.
            others_went_on.set()
            return ""

        return talk

    members = {"slow": aslow if is_async else slow, "quick": talks("quick"), "echo": talks("echo")}
    group = ChatGroup(members, speaker=free(), reply="transcript").compile(saver)
    thread: Any = {"configurable": {"thread_id": f"{is_async}"}}
    result = await group.ainvoke({"messages": "hi"}, thread) if is_async else group.invoke({"messages": "hi"}, thread)
    assert sorted(talk(result)) == [("echo", "hello"), ("quick", "hello"), ("slow", "DONE")]
    assert tried == ["done", "done"]


def test_threads_that_all_wait_for_the_last_one_do_not_block_it() -> None:
    said = threading.Event()

    def waits(messages: list[BaseMessage]) -> str:
        said.wait(60)
        return ""

    def last(messages: list[BaseMessage]) -> AIMessage:
        said.set()
        return AIMessage("go" if len(messages) == 1 else "")

    members = {**{f"m{index}": waits for index in range(40)}, "last": last}
    result = ChatGroup(members, speaker=free(), reply="transcript").compile().invoke({"messages": "hi"})
    assert talk(result) == [("last", "go")]


async def test_who_speaks_freely_in_one_go_hears_the_same() -> None:
    ann, bob = ScriptedChatModel(["ann", ""]), ScriptedChatModel(["bob", ""])
    group = ChatGroup({"ann": ann, "bob": bob}, speaker=free(), reply="transcript").compile()
    await group.ainvoke({"messages": "hi"})
    # Bob, whose own words are the last, is told to go on.
    assert [len(prompt) for model in (ann, bob) for prompt in model.prompts] == [1, 3, 1, 4]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("where", [lambda graph: graph, loopback], ids=["local", "hosted"])
@pytest.mark.parametrize("speaker", [broadcast(), free()], ids=["broadcast", "free"])
async def test_a_thousand_members_all_speak_and_hear_each_other(speaker: Any, where: Any, is_async: bool) -> None:
    words = {f"m{index}": f"I am number {index}" for index in range(1000)}
    members = {name: ScriptedChatModel([text] + [""] * 20) for name, text in words.items()}
    stop = None if speaker.is_free else max_turns(1)
    group = ChatGroup(members, speaker=speaker, stop=stop, reply="transcript", include_agent_name=None)
    group = where(group.compile())
    result = await group.ainvoke({"messages": "hi"}) if is_async else group.invoke({"messages": "hi"})
    assert sorted(talk(result)) == sorted(words.items())
    heard = {name: {message.content for message in members[name].prompts[-1]} for name in words}
    if speaker.is_free:
        # Who speaks last of all need not be asked again, and has then not seen its own words. Whose own words are the
        # last that it sees is told to go on.
        assert result["stop_reason"] == "silence"
        assert all((heard[name] | {text}) - {"Go on."} == {"hi", *words.values()} for name, text in words.items())
    else:
        assert all(contents == {"hi"} for contents in heard.values())


async def test_what_a_member_had_in_its_context_goes_when_it_has_answered() -> None:
    class Book:
        pass

    reads: ContextVar[Book] = ContextVar("reads")
    books: list[ref[Book]] = []

    async def ann(messages: list[BaseMessage]) -> str:
        reads.set(book := Book())
        books.append(ref(book))
        return "ann has read it"

    async def bob(messages: list[BaseMessage]) -> str:
        while not (books and books[0]() is None):
            await asyncio.sleep(0)
        return "and it is gone"

    async with asyncio.timeout(100):
        result = await round_of({"ann": ann, "bob": bob}, None).ainvoke({"messages": "hi"})
    assert talk(result) == [("ann", "ann has read it"), ("bob", "and it is gone")]
