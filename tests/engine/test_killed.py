"""A Dag without barriers in a process that is killed: what the saver has acknowledged does not run again."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from agentmatrix import Dag
from tests.forked import Forked


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def dag(folder: Path, way: str, kill: str, saver: Any) -> Any:
    def node(name: str) -> Any:
        def run(state: State) -> State:
            if name == "last" and kill == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            with (folder / name).open("a") as file:
                file.write("x")
            return {"log": [name]}

        async def arun(state: State) -> State:
            return run(state)

        return arun if way == "async" else run

    graph = Dag(State)
    for name in ("a", "b", "c", "d", "last"):
        graph.add_node(name, node(name))
    for edge in (("a", "b"), ("a", "c"), ("c", "d"), ("b", "last"), ("d", "last")):
        graph.add_edge(*edge)
    return graph.compile(checkpointer=saver)


def play(folder: Path, way: str, kill: str) -> None:
    """To be run in a process of its own: begins, and is killed in the last node; or goes on."""
    config: Any = {"configurable": {"thread_id": "1"}}
    given: Any = {"log": []} if kill == "kill" else None

    async def main() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "db")) as saver:
            return await dag(folder, way, kill, saver).ainvoke(given, config, durability="sync")

    if way == "async":
        result = asyncio.run(main())
    else:
        with SqliteSaver.from_conn_string(str(folder / "db")) as saver:
            result = dag(folder, way, kill, saver).invoke(given, config, durability="sync")
    print(",".join(result["log"]))


@pytest.mark.parametrize("way", ["sync", "async"])
def test_acknowledged_nodes_do_not_run_again(tmp_path: Path, way: str) -> None:
    with Forked(play, tmp_path, way, "kill") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    with Forked(play, tmp_path, way, "go on") as resumed:
        said, errors = resumed.communicate(60)
    assert said.strip() == "a,b,c,d,last", errors
    assert {name: (tmp_path / name).read_text() for name in ("a", "b", "c", "d", "last")} == dict.fromkeys(
        ("a", "b", "c", "d", "last"), "x"
    )
