"""A process that is killed in a triggered node: the next one goes on with the choice that was made."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

SCRIPT = """
import asyncio, operator, os, sys
from typing import Annotated, TypedDict
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from agentmatrix import Dag, CyclicGraph, any_of, get_activation
from langgraph.graph import START

folder, kind, kill = sys.argv[1:]

class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]

def graph(saver, late):
    graph = (Dag if kind == "dag" else CyclicGraph)(State)
    async def early(state):
        return {"log": ["early"]}
    async def slow(state):
        await late.wait()
        return {"log": ["slow"]}
    async def t(state):
        if kill == "kill":
            os.kill(os.getpid(), 9)
        late.set()
        return {"log": [f"t{get_activation().number} {sorted(get_activation().items)}"]}
    graph.add_node("slow", slow)
    graph.add_node("early", early)
    graph.add_edge(START, "slow")
    graph.add_edge(START, "early")
    graph.add_node("t", t)
    graph.add_trigger("t", any_of("slow", "early", cancel_rest=kind == "dag"))
    return graph.compile(checkpointer=saver)

async def main():
    late = asyncio.Event()
    async with AsyncSqliteSaver.from_conn_string(os.path.join(folder, "db")) as saver:
        given = {"log": []} if kill == "kill" else None
        config = {"configurable": {"thread_id": "1"}}
        return await graph(saver, late).ainvoke(given, config, durability="sync")

print(";".join(sorted(asyncio.run(main())["log"])))
"""


def run(folder: Path, kind: str, kill: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), kind, kill]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("kind", "log"), [("dag", "early;t1 ['early']"), ("cyclic", "early;slow;t1 ['early'];t2 ['slow']")]
)
def test_the_choice_survives(tmp_path: Path, kind: str, log: str) -> None:
    assert run(tmp_path, kind, "kill").returncode == -signal.SIGKILL
    resumed = run(tmp_path, kind, "go on")
    assert resumed.stdout.strip() == log, resumed.stderr
