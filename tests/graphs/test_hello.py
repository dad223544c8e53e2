"""The first graph that a newcomer runs: it streams, asks, and does the same on a host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix.testing import ScriptedChatModel, loopback
from graphs import hello

QUESTION: dict[str, Any] = {"messages": [("user", "Why is the sky blue?")]}


@pytest.fixture(params=["local", "remote"])
def graph(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "local":
        yield hello.graph
        return
    with loopback(hello.graph) as remote:
        yield remote


def test_one_agent_plans_and_the_next_one_writes(graph: Any) -> None:
    _, plan, text = graph.invoke(QUESTION)["messages"]
    assert (plan.name, plan.text) == (
        "plan",
        "The question is: Why is the sky blue? I plan to say what is known, then what is not.",
    )
    assert (text.name, text.text) == ("write", "About 'Why is the sky blue?' I have this to say: hello.")


def test_its_words_come_one_by_one(graph: Any) -> None:
    parts = [part for part in graph.stream(QUESTION, stream_mode="messages") if isinstance(part[0], AIMessageChunk)]
    words = [message.text for message, metadata in parts if metadata["langgraph_node"] == "write"]
    assert len(words) > 5
    assert "".join(words) == "About 'Why is the sky blue?' I have this to say: hello."


def test_it_can_be_asked_again(graph: Any) -> None:
    assert graph.invoke(QUESTION)["messages"][-1].text == graph.invoke(QUESTION)["messages"][-1].text


def test_the_careful_one_asks_before_it_writes() -> None:
    careful = hello.build(ask=True, checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    asked = careful.invoke(QUESTION, config)["__interrupt__"][0].value
    assert asked.endswith("Shall I write it so?")
    text = careful.invoke(Command(resume="Yes, but be short."), config)["messages"][-1].text
    assert text == "About 'Why is the sky blue?' I was told 'Yes, but be short.', and I have this to say: hello."


def test_any_chat_model_takes_the_seats() -> None:
    model = ScriptedChatModel(["First.", "Then."])
    assert [m.text for m in hello.build(model).invoke(QUESTION)["messages"][1:]] == ["First.", "Then."]
