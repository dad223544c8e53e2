"""Rows that fail, leave nothing and become three, for a process that is killed while it runs them."""

from __future__ import annotations

import asyncio
import json
import operator
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import RetryPolicy

from agentmatrix import Dag, arefine, refine

__all__ = ["AT_ONCE", "go_on_in_the_middle", "lines_of", "run_rows", "write_rows"]

AT_ONCE = 32


def write_rows(folder: Path, count: int) -> None:
    """The input."""
    with (folder / "in.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": f"r{number}", "number": number}) + "\n" for number in range(count))


def lines_of(number: int) -> int:
    """How many lines a row leaves; it fails where it is none and not one that is dropped."""
    if number % 97 == 5:
        return 0
    return 0 if number % 13 == 1 else 3 if number % 11 == 2 else 1


def run_rows(folder: Path, order: str = "done") -> None:
    """In a process of its own: run all rows, and say what became of them."""
    calls = os.open(folder / "calls", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        os.write(calls, f"{columns['id']}\n".encode())
        await asyncio.sleep(0.002 + columns["number"] % 7 / 1000)
        if columns["number"] % 97 == 5:
            raise ValueError(f"{columns['id']} cannot be answered")
        return {"answer": columns["number"] * 2}

    def result(columns: dict[str, Any], state: dict[str, Any]) -> Any:
        records = [{"id": columns["id"], "part": part, **state} for part in range(lines_of(columns["number"]))]
        return records or None

    report = refine(
        answer,
        folder / "in.jsonl",
        folder / "out.jsonl",
        result=result,
        order=order,
        max_concurrency=AT_ONCE,
        retry=RetryPolicy(max_attempts=1),
    )
    print(json.dumps({"done": report.done, "failed": report.failed, "left": report.left, "total": report.total}))


class State(TypedDict, total=False):
    id: str
    log: Annotated[list[str], operator.add]


def go_on_in_the_middle(folder: Path) -> None:
    """In a process of its own: rows of three nodes with a checkpointer, each of which says that it has begun."""
    calls = os.open(folder / "calls", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def node(name: str, is_last: bool) -> Any:
        async def run(state: State) -> State:
            os.write(calls, f"begun {state['id']} {name}\n".encode())
            # Until it is killed, or told to end.
            while is_last and not (folder / "go").exists():
                await asyncio.sleep(0.01)
            return {"log": [name]}

        return run

    async def main() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "threads.db")) as saver:
            dag = Dag(State)
            for name in "abc":
                dag.add_node(name, node(name, name == "c"))
            dag.add_edge("a", "b")
            dag.add_edge("b", "c")
            graph = dag.compile(checkpointer=saver)
            await arefine(graph, folder / "in.jsonl", folder / "out.jsonl", max_concurrency=4, max_crashes=9)

    asyncio.run(main())
