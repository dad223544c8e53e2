"""What grows: with the turns of a conversation, in time and in what is kept, with the depth of nested calls; and what
an import costs.

    python tests/bench/bench_growth.py [turns] [depth]

One JSON line a row. CPU seconds of both processes where a ratio of times would be one of the machine's load.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import Dag, Host, RemoteAgent

TURNS, DEPTH = 600, 200
EARLY = 15
SERVED = """
from langgraph.graph import START, MessagesState, StateGraph

graph = StateGraph(MessagesState).add_node("node", lambda state: state).add_edge(START, "node").compile()
"""


class Depth(TypedDict, total=False):
    left: int
    address: str


async def reply(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage("y" * 200)]}


def answer(state: Any) -> dict[str, Any]:
    return {"messages": [AIMessage("y" * 200)]}


def extended(messages: list[Any], updates: list[list[Any]]) -> list[Any]:
    return [*messages, *chain.from_iterable(updates)]


class DeltaState(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(extended)]


async def deeper(state: Depth) -> Depth:
    if not state["left"]:
        raise ValueError("the innermost call fails")
    below = RemoteAgent(f"{state['address']}/deeper")
    return await below.ainvoke({"left": state["left"] - 1, "address": state["address"]})


def graph(state: Any, node: Any) -> Any:
    return StateGraph(state).add_node("node", node).add_edge(START, "node").compile()


def cpu_of(process: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def conversation(nested: Any, turns: int, process: int) -> tuple[float, float]:
    """CPU milliseconds of an early and of the last turns, in the mean, of both processes."""
    parent = StateGraph(MessagesState).add_node("nested", nested).add_edge(START, "nested")
    saved, config = parent.compile(checkpointer=InMemorySaver()), {"configurable": {"thread_id": "1"}}
    used, span = [], max(1, min(20, turns // 4))
    for turn in range(turns):
        if turn in (EARLY if turns > 4 * EARLY else 0, turns - span):
            used.append(time.process_time() + cpu_of(process))
        await saved.ainvoke({"messages": [HumanMessage("x" * 200)]}, config)  # type: ignore[arg-type]
        if turn in ((EARLY if turns > 4 * EARLY else 0) + span - 1, turns - 1):
            used.append(time.process_time() + cpu_of(process))
    return (used[1] - used[0]) / span * 1e3, (used[-1] - used[-2]) / span * 1e3


async def failure(address: str, depth: int) -> float:
    began = time.perf_counter()
    try:
        await RemoteAgent(f"{address}/deeper").ainvoke({"left": depth, "address": address})
    except ValueError:
        return time.perf_counter() - began
    raise AssertionError("it fails")


def kept(graph: Any, turns: int) -> float:
    """Kilobytes of a sqlite file after a conversation."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(f"{folder}/kept", check_same_thread=False)) as file,
    ):
        saved, config = graph.compile(checkpointer=SqliteSaver(file)), {"configurable": {"thread_id": "1"}}
        for _ in range(turns):
            saved.invoke({"messages": [HumanMessage("x" * 200)]}, config)
        file.commit()
        file.execute("vacuum")
        (pages,), (size,) = (file.execute(f"pragma page_{what}").fetchone() for what in ("count", "size"))
        return float(pages * size) / 1e3


def stores(address: str, turns: int) -> None:
    """Row 9: what a saver keeps of a conversation."""
    for named, state in (("add_messages", MessagesState), ("DeltaChannel", DeltaState)):
        of_graph, of_dag = (
            kept(one(state).add_node("node", answer).add_edge(START, "node"), turns) for one in (StateGraph, Dag)
        )
        say("9", f"{named}: a Dag's file after {turns} turns / a StateGraph's", of_dag / of_graph, dag_kb=of_dag)
    children = graph(MessagesState, answer), RemoteAgent(f"{address}/reply")
    local, remote = (kept(StateGraph(MessagesState).add_node("n", n).add_edge(START, "n"), turns) for n in children)
    say("9", f"a remote child's file after {turns} turns / a local one's", remote / local, remote_kb=remote)


def starts(rounds: int) -> None:
    """Row 10: CPU seconds of new processes until they have imported something, or serve.

    They take turns. Modules are compiled, as pip leaves them: in the first round, which does not count.
    """
    names = ["langgraph.graph import StateGraph", "agentmatrix import Dag", "agentmatrix import RemoteAgent"]
    names += ["agentmatrix import Host", "agentmatrix import Host, RemoteAgent"]
    taken: dict[str, list[float]] = {what: [] for what in [*names, "serve"]}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        served = Path(folder) / "served.py"
        served.write_text(SERVED)
        for _ in range(rounds + 1):
            for what in names:
                command = [sys.executable, "-c", f"from {what}; import time; print(time.process_time())"]
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
                taken[what].append(float(done.stdout))
            command = [sys.executable, "-m", "agentmatrix", "serve", f"{served}:graph", "--port", "0"]
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as process:
                assert process.stderr is not None and "serving" in process.stderr.readline()
                taken["serve"].append(cpu_of(process.pid))
                process.kill()
    base, *others, serving = (statistics.median(seconds[1:]) for seconds in taken.values())
    say("10", "a host until it serves, CPU / import langgraph.graph", serving / base, seconds=serving, langgraph_s=base)
    for what, seconds in zip(names[1:], others, strict=True):
        say("10", f"from {what} / import langgraph.graph", seconds / base, seconds=seconds, langgraph_s=base)


def say(row: str, what: str, ratio: float, **figures: float) -> None:
    rounded = {name: float(f"{value:.3g}") for name, value in figures.items()}
    print(json.dumps({"row": row, "what": what, "ratio": round(ratio, 2), **rounded}), flush=True)


async def main(turns: int, depth: int) -> None:
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        for name, nested in (("local", graph(MessagesState, reply)), ("remote", RemoteAgent(f"{address}/reply"))):
            early, late = await conversation(nested, turns, process.pid)
            what = f"{name} node under a memory saver: turn {turns} / turn {EARLY}, CPU of both processes"
            say("8", what, late / max(early, 0.1), early_ms=early, late_ms=late)
        await asyncio.to_thread(stores, address, min(turns, 150))
        short, long = await failure(address, depth // 2), await failure(address, depth)
        say("12", f"an error through {depth} nested remote calls / {depth // 2}", long / short, seconds=long)
        process.kill()
    starts(max(1, min(5, turns // 100)))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        with Host({"reply": graph(MessagesState, reply), "deeper": graph(Depth, deeper)}) as host:
            print(host.address, flush=True)
            host.wait()
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        asyncio.run(main(*(given or [TURNS, DEPTH])))
