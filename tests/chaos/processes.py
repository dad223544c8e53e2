"""What the chaos suite runs in processes of its own: replicas of a graph, and a parent with its threads in a file."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
import random
import signal
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

from agentmatrix import Dag, Host, RemoteAgent
from tests.forked import Forked

__all__ = ["NODES", "Log", "Replica", "count_entries", "nodes_of", "parent_of", "run_parent", "serve_replica"]

NODES = ("first", "second", "third", "fourth")


class Log(TypedDict, total=False):
    folder: str
    key: str
    log: Annotated[list[str], operator.add]


def _node(name: str) -> Any:
    async def node(state: Log) -> Log:
        # One write a line: it is whole, or not there, whatever is killed.
        file = os.open(Path(state["folder"], "nodes"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(file, f"{state['key']} {name} {os.getpid()}\n".encode())
        os.close(file)
        while Path(state["folder"], "hold").exists():
            await asyncio.sleep(0.01)
        await asyncio.sleep(random.uniform(0, 0.02))
        return {"log": [name]}

    return node


def chain(builder: Any) -> Any:
    """All nodes, one after the other."""
    before = START
    for name in NODES:
        builder.add_node(name, _node(name))
        builder.add_edge(before, name)
        before = name
    return builder.compile()


class Entries(TypedDict, total=False):
    entries: int


def count_entries() -> int:
    """The entries of all collections of this process; those that the garbage collector does not track among them."""
    gc.collect()
    lengths: dict[int, int] = {}
    for found in gc.get_objects():
        for each in (found, *gc.get_referents(found)):
            if isinstance(each, dict | list | set | deque):
                lengths[id(each)] = len(each)
    return sum(lengths.values())


def serve_replica(port: int) -> None:
    """Serve the graphs, say where, and drain on SIGTERM."""
    graphs = {
        "dag": chain(Dag(Log, name="chain")),
        "stategraph": chain(StateGraph(Log)),
        "entries": Dag(Entries).add_node("count", lambda state: {"entries": count_entries()}).compile(),
    }
    # A cut line is taken up again however slow the machine is.
    with Host(graphs, address=f"127.0.0.1:{port}", linger=300) as host:
        signal.signal(signal.SIGTERM, lambda *_: host.drain(30, grace=0.1))
        print(host.address, flush=True)
        host.wait()


class Replica:
    """A host in a process of its own, which keeps its address when it is started again."""

    def __init__(self) -> None:
        self._port = 0
        self._process: Forked | None = None
        self.start()

    def start(self) -> None:
        process = self._process = Forked(serve_replica, self._port)
        self.address = process.stdout.readline().strip()
        assert self.address, process.stderr.read()
        self._port = int(self.address.rpartition(":")[2])

    @property
    def pid(self) -> int:
        assert self._process is not None and self._process._process.pid is not None
        return self._process._process.pid

    def kill(self) -> None:
        """End it as a power cut does, and start it again."""
        self.stop()
        self.start()

    def restart(self) -> None:
        """End it in good order, and start it again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.__exit__()


def parent_of(remote: RemoteAgent, saver: Any) -> Any:
    """A graph around the replicas."""
    return StateGraph(Log).add_node("far", remote).add_edge(START, "far").compile(checkpointer=saver)


def nodes_of(folder: Path) -> dict[str, list[str]]:
    """The nodes that have begun, by key, in their order."""
    found = defaultdict(list)
    for line in (folder / "nodes").read_text().splitlines():
        key, node, _ = line.split()
        found[key].append(node)
    return found


def run_parent(folder: str, addresses: list[str], agent: str, count: int) -> None:
    """Runs `count` threads to their ends, as far as they are not there yet, and writes what came of each once."""

    async def one(graph: Any, key: str) -> None:
        config: Any = {"configurable": {"thread_id": key}}
        state = await graph.aget_state(config)
        given: Any = None if state.values else {"folder": folder, "key": key}
        if state.next or not state.values:
            await graph.ainvoke(given, config, durability="sync")
        print(key, flush=True)

    async def main() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(Path(folder, "parent.db"))) as saver:
            graph = parent_of(RemoteAgent([f"{address}/{agent}" for address in addresses]), saver)
            async with asyncio.TaskGroup() as tasks:
                for key in _keys(count):
                    tasks.create_task(one(graph, key))
            print("end", flush=True)

    asyncio.run(main())


def _keys(count: int) -> Iterator[str]:
    return (str(number) for number in range(count))
