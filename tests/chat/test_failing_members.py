"""Members that fail: attempts, time limits, and what becomes of the turn, however the members take their turns."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeTimeoutError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, TimeoutPolicy, interrupt

from agentmatrix.chat import ChatGroup
from agentmatrix.errors import BuildError
from agentmatrix.speakers import broadcast, free, round_robin
from agentmatrix.stops import max_turns, silence
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
SPEAKERS = [round_robin(), broadcast(), free()]
POLICY = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=ConnectionError)
speakers = pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.label)
savers = pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["bare", "saved"])


class Flaky:
    """An agent that fails so many times before it answers, once."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self, messages: list[BaseMessage]) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"try {self.calls}")
        return "At last." if self.calls == self.failures + 1 else ""


def agent(flaky: Flaky, kind: str) -> Any:
    if kind == "graph":
        graph = StateGraph(MessagesState).add_node("n", lambda s: {"messages": [AIMessage(flaky(s["messages"]) or "")]})
        return graph.add_edge(START, "n").compile()
    return ScriptedChatModel(flaky, cycle=True) if kind == "model" else flaky


def talk(result: Any) -> set[tuple[str | None, str]]:
    return {(message.name, message.text) for message in result["messages"]}


def once(text: str) -> ScriptedChatModel:
    return ScriptedChatModel([text, *[""] * 9])


def group(speaker: Any, member: Any, **options: Any) -> ChatGroup:
    stop = silence() | max_turns(2) if speaker.is_free else max_turns(2)
    built = ChatGroup({"bob": once("Hi.")}, speaker=speaker, stop=stop, reply="transcript")
    return built.add_node("ann", member, **options)


async def run(graph: Any, sync: bool) -> Any:
    return await (
        asyncio.to_thread(graph.invoke, {"messages": "?"}, THREAD) if sync else graph.ainvoke({"messages": "?"}, THREAD)
    )


@speakers
@savers
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("kind", ["function", "model", "graph"])
async def test_a_member_is_tried_again(speaker: Any, saver: Any, sync: bool, kind: str) -> None:
    flaky = Flaky(2)
    graph = group(speaker, agent(flaky, kind), retry_policy=POLICY).compile(saver and InMemorySaver())
    assert ("ann", "At last.") in talk(await run(graph, sync))
    assert flaky.calls >= 3


@speakers
@pytest.mark.parametrize(("flaky", "calls"), [(Flaky(9), 3), (Flaky(9, KeyError), 1)], ids=["often", "other"])
async def test_the_last_attempt_raises(speaker: Any, flaky: Flaky, calls: int) -> None:
    flaky.calls = 0
    with pytest.raises(flaky.error, match=f"try {calls}"):
        await group(speaker, flaky, retry_policy=[POLICY]).compile().ainvoke({"messages": "?"})
    assert flaky.calls == calls


@speakers
@savers
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
async def test_a_failed_turn_is_skipped_or_said(
    speaker: Any, saver: Any, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="agentmatrix"):
        graph = group(speaker, Flaky(99), on_error="skip", retry_policy=POLICY).compile(saver and InMemorySaver())
        assert talk(await run(graph, sync)) >= {(None, "?"), ("bob", "Hi.")}
        assert "the member 'ann' has failed, and the conversation goes on: ConnectionError: try 3" in caplog.text
    graph = group(speaker, Flaky(1), on_error="say").compile(saver and InMemorySaver())
    assert ("ann", "I cannot answer: ConnectionError: try 1") in talk(await run(graph, sync))


@speakers
async def test_an_attempt_has_a_time_limit(speaker: Any) -> None:
    started: list[int] = []

    async def slow(messages: list[BaseMessage]) -> str:
        started.append(1)
        if len(started) < 3:
            await asyncio.Event().wait()
        return "" if any(message.text == "In time." for message in messages) else "In time."

    # A busy machine may cut off an attempt that would have answered: then the next one does.
    policy = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=50, retry_on=NodeTimeoutError)
    graph = group(speaker, slow, timeout=0.05, retry_policy=policy).compile()
    assert ("ann", "In time.") in talk(await graph.ainvoke({"messages": "?"}))

    async def never(messages: list[BaseMessage]) -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises(NodeTimeoutError, match="ann"):
        await group(speaker, never, timeout=TimeoutPolicy(run_timeout=0.05)).compile().ainvoke({"messages": "?"})
    skipped = group(speaker, never, timeout=0.05, on_error="skip").compile()
    assert ("bob", "Hi.") in talk(await skipped.ainvoke({"messages": "?"}))
    with pytest.raises(BuildError, match="'ann' has timeout=, and a sync run cannot cut it off: use ainvoke"):
        group(speaker, never, timeout=1, on_error="skip").compile().invoke({"messages": "?"})


@speakers
async def test_a_remote_member_is_retried_limited_and_skipped_as_a_local_one(speaker: Any) -> None:
    async def flaky(state: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("once")
        return {"messages": [AIMessage("At last." if len(calls) == 2 else "")]}

    async def never(state: Any) -> Any:
        await asyncio.Event().wait()

    graphs = [StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile() for node in (flaky, never)]
    with loopback(graphs[0]) as remote_flaky, loopback(graphs[1]) as remote_never:
        for first, second in (graphs, (remote_flaky, remote_never)):
            calls: list[int] = []
            result = await group(speaker, first, retry_policy=POLICY).compile().ainvoke({"messages": "?"})
            assert ("ann", "At last.") in talk(result)
            result = await group(speaker, second, timeout=0.2, on_error="say").compile().ainvoke({"messages": "?"})
            assert any(name == "ann" and "NodeTimeoutError" in text for name, text in talk(result))


def test_a_question_is_no_error() -> None:
    def asks(messages: list[BaseMessage]) -> str:
        return f"You say {interrupt('Which day?')}."

    for speaker in (round_robin(), broadcast()):
        graph = group(speaker, asks, on_error="skip", retry_policy=POLICY).compile(InMemorySaver())
        assert graph.invoke({"messages": "?"}, THREAD)["__interrupt__"][0].value == "Which day?"
        result = graph.invoke(Command(resume="Tuesday"), THREAD)
        assert ("ann", "You say Tuesday.") in talk(result)


def test_a_command_out_of_an_agent_with_attempts_hands_over() -> None:
    def leaves(state: Any) -> Command[Any]:
        return Command(goto="eve", graph=Command.PARENT, update={"messages": [AIMessage("To eve.")]})

    ann = StateGraph(MessagesState).add_node("n", leaves).add_edge(START, "n").compile()
    built = ChatGroup({"eve": once("Here.")}, stop=max_turns(2), speaker=lambda state: "ann", reply="transcript")
    result = built.add_node("ann", ann, retry_policy=POLICY).compile().invoke({"messages": "?"})
    assert [message.text for message in result["messages"]] == ["?", "To eve.", "Here."]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"on_error": "ignore"}, "on_error='ignore' of the member 'ann' is unknown: choose 'raise', 'skip' or 'say'"),
        ({"retry_policy": 3}, "retry_policy="),
        ({"retry_policy": [3]}, "retry_policy=3 of the member 'ann' is no RetryPolicy of langgraph.types"),
        ({"timeout": -1}, "timeout=-1 of the member 'ann'"),
        ({"timeout": "soon"}, "timeout='soon' of the member 'ann'"),
    ],
)
def test_what_is_no_option_is_refused(options: Any, sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence):
        ChatGroup({"bob": once("x")}).add_node("ann", once("y"), **options)
