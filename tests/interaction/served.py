"""Graphs that tests serve from a second process."""

from __future__ import annotations

import operator
import os
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from agentmatrix import Host


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    folder: str


def _count(state: Log, name: str) -> None:
    """One line a run of the node, in a file: what ran twice can be counted from outside."""
    with Path(state["folder"], name).open("a") as file:
        file.write(f"{os.getpid()}\n")


def first(state: Log) -> Log:
    _count(state, "first")
    return {"log": ["first"]}


def second(state: Log) -> Log:
    _count(state, "second")
    return {"log": ["second"]}


def ask(state: Log) -> Log:
    return {"log": [f"asked: {interrupt('go on?')}"]}


def last(state: Log) -> Log:
    _count(state, "last")
    return {"log": ["last"]}


def crash_once(state: Log) -> Log:
    """Ends its process with no goodbye, the first time."""
    marker = Path(state["folder"], "crashed")
    if not marker.exists():
        marker.touch()
        os._exit(9)
    return {"log": ["survived"]}


def chain(*nodes: Any, **options: Any) -> Any:
    builder = StateGraph(Log)
    builder.add_sequence(list(nodes))
    builder.add_edge(START, nodes[0].__name__)
    return builder.compile(**options)


def block(state: Log) -> Log:
    """Works for as long as there is no file `release`, in the manner of sync code that cannot be interrupted."""
    get_stream_writer()("blocked")
    while not Path(state["folder"], "release").exists():
        time.sleep(0.02)
    return {"log": ["released"]}


blocking = chain(block, last)
keeping = chain(first, ask, checkpointer=InMemorySaver())
asking = chain(first, second, ask, last)
crashing = chain(first, second, crash_once, last)

GRAPHS = {"asking": asking, "blocking": blocking, "crashing": crashing, "keeping": keeping}


def serve(address: str = "127.0.0.1:0") -> None:
    """Serves them, and prints its address."""
    with Host(GRAPHS, address=address) as host:
        print(host.address, flush=True)
        host.wait()
