"""A Dag without barriers in a process that is killed: what the saver has acknowledged does not run again."""

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
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from agentmatrix import Dag

folder, way, kill = sys.argv[1:]

class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]

def note(name):
    with open(os.path.join(folder, name), "a") as file:
        file.write("x")
    return {"log": [name]}

def dag(saver):
    graph = Dag(State)
    def node(name):
        def run(state):
            if name == "last" and kill == "kill":
                os.kill(os.getpid(), 9)
            return note(name)
        async def arun(state):
            return run(state)
        return arun if way == "async" else run
    for name in ("a", "b", "c", "d", "last"):
        graph.add_node(name, node(name))
    for edge in (("a", "b"), ("a", "c"), ("c", "d"), ("b", "last"), ("d", "last")):
        graph.add_edge(*edge)
    return graph.compile(checkpointer=saver)

config = {"configurable": {"thread_id": "1"}}
given = {"log": []} if kill == "kill" else None

async def main():
    async with AsyncSqliteSaver.from_conn_string(os.path.join(folder, "db")) as saver:
        return await dag(saver).ainvoke(given, config, durability="sync")

if way == "async":
    result = asyncio.run(main())
else:
    with SqliteSaver.from_conn_string(os.path.join(folder, "db")) as saver:
        result = dag(saver).invoke(given, config, durability="sync")
print(",".join(result["log"]))
"""


def run(folder: Path, way: str, kill: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), way, kill]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_acknowledged_nodes_do_not_run_again(tmp_path: Path, way: str) -> None:
    assert run(tmp_path, way, "kill").returncode == -signal.SIGKILL
    resumed = run(tmp_path, way, "go on")
    assert resumed.stdout.strip() == "a,b,c,d,last", resumed.stderr
    assert {name: (tmp_path / name).read_text() for name in ("a", "b", "c", "d", "last")} == dict.fromkeys(
        ("a", "b", "c", "d", "last"), "x"
    )
