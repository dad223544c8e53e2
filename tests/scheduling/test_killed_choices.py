"""A process that is killed in a triggered node: the next one goes on with the choice that was made."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START

pytest.importorskip("langgraph.checkpoint.sqlite")

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from agentmatrix import CyclicGraph, Dag, any_of, get_activation
from tests.forked import Forked


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def graph(kind: str, kill: str, saver: Any, late: asyncio.Event) -> Any:
    async def early(state: State) -> State:
        return {"log": ["early"]}

    async def slow(state: State) -> State:
        await late.wait()
        return {"log": ["slow"]}

    async def t(state: State) -> State:
        if kill == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        late.set()
        return {"log": [f"t{get_activation().number} {sorted(get_activation().items)}"]}

    builder: Any = (Dag if kind == "dag" else CyclicGraph)(State)
    builder.add_node("slow", slow)
    builder.add_node("early", early)
    builder.add_edge(START, "slow")
    builder.add_edge(START, "early")
    builder.add_node("t", t)
    builder.add_trigger("t", any_of("slow", "early", cancel_rest=kind == "dag"))
    return builder.compile(checkpointer=saver)


def play(folder: Path, kind: str, kill: str) -> None:
    """To be run in a process of its own: begins, and is killed in the node that was triggered; or goes on."""

    async def main() -> Any:
        late = asyncio.Event()
        async with AsyncSqliteSaver.from_conn_string(str(folder / "db")) as saver:
            given: Any = {"log": []} if kill == "kill" else None
            config: Any = {"configurable": {"thread_id": "1"}}
            return await graph(kind, kill, saver, late).ainvoke(given, config, durability="sync")

    print(";".join(sorted(asyncio.run(main())["log"])))


@pytest.mark.parametrize(
    ("kind", "log"), [("dag", "early;t1 ['early']"), ("cyclic", "early;slow;t1 ['early'];t2 ['slow']")]
)
def test_the_choice_survives(tmp_path: Path, kind: str, log: str) -> None:
    with Forked(play, tmp_path, kind, "kill") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    with Forked(play, tmp_path, kind, "go on") as resumed:
        said, errors = resumed.communicate(60)
    assert said.strip() == log, errors
