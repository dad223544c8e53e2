"""Graphs for hosts whose lines are cut, and the function of such a host's process."""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from tests.live.triggered_graphs import anote, listener, note

PARTS = 60


class State(TypedDict, total=False):
    """
    Attributes:
        done: what has run.
        folder: where each node writes a line when it begins, and looks for its leave to end.
        text: what is handed on.
    """

    done: Annotated[list[str], operator.add]
    folder: str
    text: str


def begin(state: State, name: str) -> Path:
    """Notes that a node has begun; returns the file that lets it end."""
    with Path(state["folder"], "begun").open("a") as file:
        file.write(f"{name}\n")
    return Path(state["folder"], f"{name}.end")


def begun(folder: Path) -> list[str]:
    """The nodes that have begun, in order."""
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def held(name: str, *, is_async: bool) -> Any:
    """A node that ends when it may."""

    def work(state: State) -> State:
        end = begin(state, name)
        while not end.exists():
            time.sleep(0.01)
        return {"done": [name]}

    async def awork(state: State) -> State:
        end = begin(state, name)
        while not end.exists():
            await asyncio.sleep(0.01)
        return {"done": [name]}

    return awork if is_async else work


def steps(*, is_async: bool = False) -> Any:
    """Three nodes in a row."""
    builder = StateGraph(State)
    for name, before in (("one", START), ("two", "one"), ("three", "two")):
        builder.add_node(name, held(name, is_async=is_async)).add_edge(before, name)
    return builder.compile()


def talk(state: State) -> State:
    """Says one part after the other."""
    write = get_stream_writer()
    for number in range(PARTS):
        write(number)
        time.sleep(0.01)
    return {"done": ["talked"], "text": state.get("text", "")}


async def atalk(state: State) -> State:
    write = get_stream_writer()
    for number in range(PARTS):
        write(number)
        await asyncio.sleep(0.01)
    return {"done": ["talked"], "text": state.get("text", "")}


def one(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile()


def serve(inner: str, options: dict[str, Any]) -> None:
    """Serves them, and prints the address; `outer` has in it the `steps` of the host at `inner`. It ends with stdin."""
    graphs = {
        "steps": steps(),
        "asteps": steps(is_async=True),
        "talk": one(talk),
        "atalk": one(atalk),
        "sync": listener(note),
        "async": listener(anote),
    }
    if inner:
        graphs["outer"] = one(RemoteAgent(f"{inner}/steps"))
    with Host(graphs, **options) as host:
        print(host.address, os.getpid(), flush=True)
        sys.stdin.read()
