"""Graphs whose triggers take signals, and the functions of the processes that serve them or run one live."""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

from agentmatrix import CyclicGraph, Dag, Host, RemoteAgent, all_of, get_activation, signal


class State(TypedDict, total=False):
    heard: Annotated[list[Any], operator.add]
    folder: str


def audio() -> Any:
    """The value of the signal that started this node."""
    return get_activation().items["audio"]


def hear(state: State) -> State:
    return {"heard": [audio()]}


def listener(node: Callable[..., Any] = hear, *, concurrent: bool = False, **options: Any) -> Any:
    """A graph that starts its node `hear` once for each signal `audio`."""
    builder = CyclicGraph(State, name="listener").add_node("hear", node)
    return builder.add_trigger("hear", signal("audio"), concurrent=concurrent).compile(**options)


def above(nested: Any, **options: Any) -> Any:
    """A plain LangGraph graph whose node `panel` is the nested graph."""
    return StateGraph(State).add_node("panel", nested).add_edge(START, "panel").compile(name="above", **options)


def note(state: State) -> State:
    """Writes the signal to a file, one line for each run; the signal `die` kills the process."""
    said = audio()
    if said == "die" and not Path(state["folder"], "died").exists():
        Path(state["folder"], "died").touch()
        os.kill(os.getpid(), 9)
    with Path(state["folder"], "heard").open("a") as file:
        file.write(f"{said}\n")
    return {"heard": [said]}


async def anote(state: State) -> State:
    return note(state)


def waiter(**options: Any) -> Any:
    """A graph that starts its node once both of two signals have come."""
    builder = Dag(State, name="waiter")
    builder.add_node("pair", lambda state: {"heard": [dict(get_activation().items)]})
    return builder.add_trigger("pair", all_of(signal("left"), signal("right"))).compile(**options)


THREAD: Any = {"configurable": {"thread_id": "1"}}


def run_live(address: str, folder: str, way: str) -> None:
    """Runs a nested `listener` live over a sqlite saver, here or on the host at `address`; signals come by stdin."""
    node: Any = {"sync": note, "async": anote}[way]
    nested = RemoteAgent(f"{address}/{way}") if address != "local" else listener(node)
    first = not Path(folder, "db").exists()
    given: Any = {"heard": [], "folder": folder} if first else None

    def said(line: str) -> str:
        return line.strip()

    async def amain() -> Any:
        async with AsyncSqliteSaver.from_conn_string(f"{folder}/db") as saver:
            graph = above(nested, checkpointer=saver)
            async with _live(graph, given) as run:
                while line := await asyncio.to_thread(sys.stdin.readline):
                    await run.signal("panel/audio", said(line))
                    print("taken", said(line), flush=True)
            return await run.result()

    def main() -> Any:
        with SqliteSaver.from_conn_string(f"{folder}/db") as saver:
            graph = above(nested, checkpointer=saver)
            with _live(graph, given) as run:
                for line in sys.stdin:
                    run.signal("panel/audio", said(line))
                    print("taken", said(line), flush=True)
            return run.result()

    result = asyncio.run(amain()) if way == "async" else main()
    print("result", ",".join(result["heard"]), flush=True)


def _live(graph: Any, given: Any) -> Any:
    from agentmatrix.live import LiveRun

    return LiveRun(graph, given, THREAD, durability="sync")


def serve() -> None:
    """Serves a sync and an async `listener`, and prints the address."""
    with Host({"sync": listener(note), "async": listener(anote)}) as host:
        print(host.address, flush=True)
        threading.Event().wait()
