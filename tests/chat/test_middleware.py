"""Middleware of a group: what is said passes it before it is kept and heard, here and on a host."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix import ChatGroup, Dag
from agentmatrix.errors import BuildError
from agentmatrix.middleware import Block
from agentmatrix.speakers import broadcast, free, human, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

WAYS = ["local", "remote"]
THREAD: Any = {"configurable": {"thread_id": "1"}}


def echo(messages: list[BaseMessage]) -> str:
    return f"I heard {messages[-1].text!r}."


def group(middleware: Any, members: dict[str, Any] | None = None, **options: Any) -> ChatGroup:
    spoken: dict[str, Any] = members or {
        "ann": ScriptedChatModel(["The code is 1234."], cycle=True),
        "bob": echo,
    }
    options = {"speaker": round_robin(), "stop": max_turns(2), "reply": "transcript", **options}
    return ChatGroup(spoken, middleware=middleware, **options)


def at(way: str, graph: Any) -> Any:
    return loopback(graph) if way == "remote" else graph


def said(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"][1:]]


def secrets(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
    return message.model_copy(update={"content": message.text.replace("1234", "****")})


def no_codes(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
    return Block("it has a code") if "1234" in message.text else message


@pytest.mark.parametrize("way", WAYS)
async def test_a_message_is_changed_before_anybody_hears_it(way: str) -> None:
    graph = at(way, group([secrets]).compile())
    for result in (graph.invoke({"messages": "go"}), await graph.ainvoke({"messages": "go"})):
        assert said(result) == [("ann", "The code is ****."), ("bob", "I heard 'The code is ****.'.")]


@pytest.mark.parametrize("way", WAYS)
async def test_a_blocked_message_is_silence(way: str, caplog: pytest.LogCaptureFixture) -> None:
    graph = at(way, group([no_codes]).compile())
    for result in (graph.invoke({"messages": "go"}), await graph.ainvoke({"messages": "go"})):
        assert said(result) == [("bob", "I heard 'go'.")]
    assert "no_codes has blocked a message of 'ann': it has a code" in caplog.text


def test_a_notice_stands_in_its_place() -> None:
    def notice(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
        return Block("a code", notice="(withheld)") if "1234" in message.text else message

    assert said(group([notice]).compile().invoke({"messages": "go"}))[0] == ("ann", "(withheld)")


def test_each_gets_what_those_before_have_let_pass_and_one_may_say_several_things() -> None:
    seen: list[tuple[str, str, list[str], int]] = []

    def twice(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
        return [message, AIMessage("And once more.")] if sender == "ann" else message

    def notes(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
        seen.append((message.text, sender, list(hearers), len(conversation.messages)))
        return None if "once more" in message.text and conversation.turns > 1 else message

    result = group([twice, notes]).compile().invoke({"messages": "go"})
    assert said(result)[:2] == [("ann", "The code is 1234."), ("ann", "And once more.")]
    assert len({message.id for message in result["messages"]}) == len(result["messages"])
    assert seen[:2] == [("The code is 1234.", "ann", ["bob"], 1), ("And once more.", "ann", ["bob"], 1)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", [ValueError("no judge"), "a text", 7])
def test_one_that_fails_lets_nothing_pass(way: str, fault: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
        if isinstance(fault, Exception):
            raise fault
        return fault

    with caplog.at_level(logging.WARNING):
        assert said(at(way, group([broken]).compile()).invoke({"messages": "go"})) == []
    assert "broken has blocked a message of 'ann'" in caplog.text
    assert ("no judge" in caplog.text) == isinstance(fault, Exception)


async def test_an_async_one_needs_an_async_run(caplog: pytest.LogCaptureFixture) -> None:
    async def judge(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
        return secrets(message, sender, hearers, conversation)

    graph = group([judge]).compile()
    assert said(await graph.ainvoke({"messages": "go"}))[0] == ("ann", "The code is ****.")
    assert said(graph.invoke({"messages": "go"})) == []
    assert "use ainvoke or astream" in caplog.text


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(BuildError, match="middleware= has 'secrets', which is no function"):
        group(["secrets"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()])
async def test_no_speaker_goes_round_it(way: str, speaker: Any) -> None:
    heard: list[str] = []

    def bob(messages: list[BaseMessage]) -> str:
        heard.extend(message.text for message in messages)
        return "" if len(messages) > 1 else "Hello."

    def ann(messages: list[BaseMessage]) -> str:
        return "The code is 1234." if len(messages) == 1 else ""

    members = {"ann": ann, "bob": bob}
    graph = at(way, group([secrets], members, speaker=speaker, stop=max_turns(3)).compile())
    result = await graph.ainvoke({"messages": "go"})
    assert ("ann", "The code is ****.") in said(result)
    assert "1234" not in str(heard)


@pytest.mark.parametrize("way", WAYS)
async def test_what_was_streamed_and_did_not_pass_is_withdrawn(way: str) -> None:
    graph = at(way, group([no_codes]).compile())
    parts: list[BaseMessage] = [p async for p, _ in graph.astream({"messages": "go"}, stream_mode="messages")]
    words = [part for part in parts if isinstance(part, AIMessageChunk)]
    removed = [part for part in parts if isinstance(part, RemoveMessage)]
    assert "".join(part.text for part in words) == "The code is 1234."
    assert [part.id for part in removed] == [words[0].id]
    assert parts.index(removed[0]) > parts.index(words[-1])


@pytest.mark.parametrize("way", WAYS)
async def test_what_was_streamed_and_changed_is_streamed_again(way: str) -> None:
    graph = at(way, group([secrets]).compile())
    parts: list[BaseMessage] = [p async for p, _ in graph.astream({"messages": "go"}, stream_mode="messages")]
    removed = next(index for index, part in enumerate(parts) if isinstance(part, RemoveMessage))
    assert (parts[removed + 1].id, parts[removed + 1].text) == (parts[removed].id, "The code is ****.")


@pytest.mark.parametrize("way", WAYS)
async def test_held_words_are_streamed_when_they_have_passed(way: str) -> None:
    for middleware, expected in ((secrets, "The code is ****."), (no_codes, None)):
        graph = at(way, group([middleware], hold=True).compile())
        parts: list[BaseMessage] = [p async for p, _ in graph.astream({"messages": "go"}, stream_mode="messages")]
        assert not [part for part in parts if isinstance(part, AIMessageChunk | RemoveMessage)]
        texts = [part.text for part in parts]
        assert (expected in texts) if expected else not [text for text in texts if text.startswith("The code")]


def test_who_may_hear_a_message_stays_as_it_was() -> None:
    def fresh(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
        return AIMessage("Changed.") if sender == "ann" else message

    heard: dict[str, list[str]] = {}

    def member(name: str) -> Any:
        def speaks(messages: list[BaseMessage]) -> str:
            heard[name] = [message.text for message in messages]
            return name

        return speaks

    members = {name: member(name) for name in ("ann", "bob", "eve")}
    graph = group([fresh], members, visible_to={"ann": ["bob"]}, stop=max_turns(3)).compile()
    graph.invoke({"messages": "go"})
    assert "Changed." in heard["bob"] and "Changed." not in heard["eve"]


@pytest.mark.parametrize("way", WAYS)
def test_a_verdict_is_kept_over_a_pause(way: str) -> None:
    asked: list[str] = []

    def judge(message: BaseMessage, sender: str, hearers: Any, conversation: Any) -> Any:
        asked.append(message.text)
        return secrets(message, sender, hearers, conversation)

    members = {"ann": ScriptedChatModel(["The code is 1234."]), "joe": human(prompt="And you?")}
    dag = Dag().add_node("talk", at(way, group([judge], members).compile()))
    graph = dag.compile(checkpointer=InMemorySaver())
    graph.invoke({"messages": "go"}, THREAD)
    result = graph.invoke(Command(resume="1234, is it?"), THREAD)
    assert asked == ["The code is 1234.", "1234, is it?"]
    assert said(result) == [("ann", "The code is ****."), ("joe", "****, is it?")]


async def test_words_into_a_run_pass_too() -> None:
    told = asyncio.Event()

    async def ann(messages: list[BaseMessage]) -> str:
        await told.wait()
        return "Well?"

    graph = group([secrets], {"ann": ann, "bob": echo}).compile()
    async with graph.live({"messages": "go"}) as run:
        await run.signal("messages", HumanMessage("It is 1234.", name="eve"))
        told.set()
        result = await run.result()
    assert "It is ****." in [message.text for message in result["messages"]]
    assert not [message for message in result["messages"] if "1234" in message.text]


def test_a_message_that_passes_as_a_copy_is_not_withdrawn() -> None:
    def copied(message: Any, sender: str, hearers: Any, conversation: Any) -> Any:
        return message.model_copy(update={"content": message.text.replace("1234", "****")})

    ann = ScriptedChatModel("I see.")
    group = ChatGroup({"ann": ann}, middleware=[copied], stop=max_turns(1)).compile()
    parts = [part for part, _ in group.stream({"messages": "Hello."}, stream_mode="messages")]
    assert not any(isinstance(part, RemoveMessage) for part in parts)
    assert "".join(part.text for part in parts) == "I see."
