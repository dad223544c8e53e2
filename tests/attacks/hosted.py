"""The graphs that the attacked hosts serve, and the function of a host's process."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from agentmatrix import Host
from tests.attacks.internals import io_tasks, runs_of
from tests.attacks.kit import note, rss

__all__ = ["State", "chain", "one", "ordinary", "process_stats", "released", "serve", "telling"]

_host: list[Host] = []


class State(TypedDict, total=False):
    """
    Attributes:
        log: path of the log of the nodes.
        naps: seconds that a node takes.
        size: how many parts a node streams.
        done: the numbers of the nodes that have run.
        text: what a graph says.
    """

    log: str
    naps: float
    size: int
    done: Annotated[list[int], operator.add]
    text: Any


def one(node: Any, *, name: str = "node", checkpointer: Any = None) -> Any:
    """A graph of one node."""
    return StateGraph(State).add_node(name, node).add_edge(START, name).compile(checkpointer=checkpointer)


def chain(length: int = 5, *, is_async: bool = False) -> Any:
    """Nodes in a row; each logs its start and its end and adds its number to `done`."""
    graph = StateGraph(State)
    for number in range(length):
        node: Any = _async_link(number) if is_async else _link(number)
        graph.add_node(f"n{number}", node)
        graph.add_edge(f"n{number - 1}" if number else START, f"n{number}")
    return graph.compile()


def _link(number: int) -> Callable[[State], State]:
    def work(state: State) -> State:
        note(state["log"], "start", number)
        time.sleep(state.get("naps", 0.02))
        note(state["log"], "end", number)
        return {"done": [number]}

    return work


def _async_link(number: int) -> Callable[[State], Any]:
    async def work(state: State) -> State:
        note(state["log"], "start", number)
        await asyncio.sleep(state.get("naps", 0.02))
        note(state["log"], "end", number)
        return {"done": [number]}

    return work


async def _asleep(state: State) -> State:
    await asyncio.sleep(state.get("naps", 1.0))
    return {"text": "ok"}


def _sleep(state: State) -> State:
    time.sleep(state.get("naps", 1.0))
    return {"text": "ok"}


def _held(state: State) -> State:
    note(state["log"], "start", 0)
    while not os.path.exists(released(state["log"])):
        time.sleep(0.02)
    return {"text": "ok"}


def released(log: str) -> str:
    """The file that ends the nodes `held` of this log."""
    return f"{log}.released"


def _quick(state: State) -> State:
    return {"text": "ok"}


async def _async_quick(state: State) -> State:
    return {"text": "ok"}


def _echo(state: State) -> State:
    return {"text": state.get("text")}


def _stats(state: State) -> State:
    gc.collect()
    return {"text": process_stats()}


def _flood(state: State) -> State:
    write = get_stream_writer()
    for _ in range(state.get("size", 1000)):
        write("x" * 100_000)
    return {"text": "flooded"}


def _fail(state: State) -> State:
    raise ValueError("it fails by intention")


def _tell(state: State, config: RunnableConfig, runtime: Runtime[Any]) -> State:
    configurable = config["configurable"]
    planted = [key for key in ("__pregel_store", "__pregel_task_id") if configurable.get(key) in ("evil", 1)]
    told = {"user": configurable.get("langgraph_auth_user"), "server_info": runtime.server_info, "planted": planted}
    return {"text": {key: repr(value) for key, value in told.items() if value}}


def ordinary() -> dict[str, Any]:
    """The graphs of most hosts."""
    nodes = {
        "asleep": _asleep,
        "sleep": _sleep,
        "held": _held,
        "quick": _quick,
        "aquick": _async_quick,
        "echo": _echo,
        "stats": _stats,
        "flood": _flood,
        "fail": _fail,
    }
    return {"chain": chain(), "achain": chain(is_async=True), **{name: one(node) for name, node in nodes.items()}}


def telling() -> dict[str, Any]:
    """A graph that tells what langgraph says of its caller; all keys are empty where nothing was spoofed."""
    return {"tell": one(_tell), "quick": one(_quick), "stats": one(_stats)}


def process_stats() -> dict[str, int]:
    """Memory in MB, file descriptors, threads, tasks, and runs of the host in this process."""
    return {
        "rss_mb": rss(),
        "fds": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "io_tasks": io_tasks(),
        "runs": sum(map(runs_of, _host)),
    }


def serve(graphs: Callable[[], dict[str, Any]], address: str, options: dict[str, Any]) -> None:
    """A host, for a process of its own. It prints its address and its process id, and drains at SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    host = Host(graphs(), address=address, **options).start()
    _host.append(host)
    print(host.address, os.getpid())
    ended.wait()
    host.drain(60.0)
