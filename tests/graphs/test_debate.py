"""The debate: a panel in a Dag, with one side here or on another machine, and a person on it if there is one."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix import Host
from graphs import debate

QUESTION: dict[str, Any] = {"messages": "Close the bridge?"}
SAID = [
    "The motion: Close the bridge?",
    "VERDICT: in steps.",
    "After the debate (says('VERDICT')): VERDICT: in steps.",
]


@pytest.mark.parametrize("where", ["local", "remote"])
async def test_it_comes_to_a_verdict(where: str) -> None:
    with Host({"sceptic": debate.sceptic}) as host:
        graph = debate.build(f"{host.address}/sceptic") if where == "remote" else debate.graph
        for result in (graph.invoke(QUESTION), await graph.ainvoke(QUESTION)):
            assert [message.text for message in result["messages"][1:]] == SAID
            assert [message.name for message in result["messages"][1:]] == ["put", "panel", "report"]


def test_who_said_what_streams_from_the_panel() -> None:
    parts = debate.graph.stream(QUESTION, stream_mode="updates", subgraphs=True)
    said = [name for space, part in parts if space for name in part]
    assert said == ["advocate", "sceptic", "judge"] * 2


def test_a_person_on_the_panel_is_asked_and_heard() -> None:
    graph = debate.build(person=True, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    paused = graph.invoke(QUESTION, thread)
    assert [asked.value for asked in paused["__interrupt__"]] == ["Your word to the panel?"]
    graph.invoke(Command(resume="I walk there."), thread)
    result = graph.invoke(Command(resume=""), thread)
    assert [message.text for message in result["messages"][1:]] == SAID
