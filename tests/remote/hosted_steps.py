"""A graph of three nodes on a host in a process of its own. Files say how far its runs have come, and hold them up."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from agentmatrix import Dag, Host
from tests.live.triggered_graphs import listener

__all__ = ["Steps", "serve_listener", "serve_steps", "steps_graph"]


class Steps(TypedDict, total=False):
    folder: str
    key: str
    log: Annotated[list[str], operator.add]


def note(state: Steps, name: str) -> None:
    """A line for each run of a node: `key`, node, process."""
    line = f"{state['key']} {name} {os.getpid()}\n"
    file = os.open(Path(state["folder"], "nodes"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, line.encode())
    os.close(file)


def is_held(state: Steps, name: str) -> bool:
    return Path(state["folder"], f"hold-{name}").exists()


async def first(state: Steps) -> Steps:
    note(state, "first")
    return {"log": ["first"]}


async def second(state: Steps, runtime: Runtime[Any]) -> Steps:
    note(state, "second")
    control = runtime.control
    while is_held(state, "second") and not (control is not None and control.drain_requested):
        await asyncio.sleep(0.01)
    return {"log": ["second"]}


async def third(state: Steps) -> Steps:
    note(state, "third")
    return {"log": ["third"]}


def second_in_a_thread(state: Steps) -> Steps:
    note(state, "second")
    while is_held(state, "second"):
        time.sleep(0.01)
    return {"log": ["second"]}


def steps_graph(build: Any = StateGraph, *, is_sync: bool = False, **options: Any) -> Any:
    """first, second, third."""
    builder = build(Steps, **({"name": "steps"} if build is Dag else {}))
    nodes = {"first": first, "second": second_in_a_thread if is_sync else second, "third": third}
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    return builder.compile(**options)


def serve_steps(port: int = 0, checkpointer: str | None = None) -> None:
    """Serve it, print the address, and stop in good order on SIGTERM."""
    graphs = {
        "steps": steps_graph(),
        "dag": steps_graph(Dag),
        "sync": steps_graph(is_sync=True),
        "memory": steps_graph(checkpointer=True),
    }
    _serve(Host(graphs, address=f"127.0.0.1:{port}", checkpointer=checkpointer))


def serve_listener() -> None:
    """The same with a graph that hears signals."""
    _serve(Host({"listener": listener()}))


def _serve(host: Host) -> None:
    host.start()
    signal.signal(signal.SIGTERM, lambda *_: host.drain(30, grace=0.2))
    print(host.address, flush=True)
    host.wait()
