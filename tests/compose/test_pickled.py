"""Compiled graphs in pickles, as Ray and its like send them: they run in the other process as here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import ChatGroup, CyclicGraph, Dag
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel

ROOT = Path(__file__).parents[2]
THERE = """
import pickle, sys
graph = pickle.loads(sys.stdin.buffer.read())
print([message.text for message in graph.invoke({"messages": "hi"})["messages"]])
"""


def with_nodes(builder: Any) -> Any:
    builder.add_node("ann", ScriptedChatModel("I am ann", cycle=True))
    inner = StateGraph(MessagesState).add_node("say", lambda state: {"messages": [("ai", "inside")]})
    builder.add_node("inner", inner.add_edge(START, "say").compile())
    builder.add_edge(START, "ann")
    builder.add_edge("ann", "inner")
    return builder.compile()


def group(speaker: Any) -> Any:
    members = {name: ScriptedChatModel(f"I am {name}", cycle=True) for name in ("ann", "bob")}
    return ChatGroup(members, speaker=speaker, stop=max_turns(3), reply="transcript").compile()


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_nodes(Dag(MessagesState)),
        lambda: with_nodes(CyclicGraph(MessagesState)),
        lambda: group(broadcast()),
        lambda: group(free()),
    ],
    ids=["dag", "cyclic", "broadcast", "free"],
)
def test_it_runs_in_another_process_as_here(make: Any) -> None:
    graph = make()
    ran = subprocess.run(
        [sys.executable, "-c", THERE], input=cloudpickle.dumps(graph), capture_output=True, timeout=100, cwd=ROOT
    )
    here = [message.text for message in graph.invoke({"messages": "hi"})["messages"]]
    assert ran.stdout.decode().strip() == str(here), ran.stderr.decode()
