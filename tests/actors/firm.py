"""A firm of three levels, scripted: each manager hires, hears from whom it has hired, and reports. In any process."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, Send

from agentmatrix import CyclicGraph, get_activation

THREAD: Any = {"configurable": {"thread_id": "1"}, "max_concurrency": 8}


class Firm(TypedDict, total=False):
    reports: Annotated[list[str], operator.add]


class Employee(TypedDict, total=False):
    word: str
    heard: Annotated[list[str], operator.add]
    team: int


def employee(state: Employee) -> Any:
    """Told to start, it hires its team; once all of the team is done, it says so to whoever has hired it."""
    me, team = get_activation(), state["team"]
    count = state["heard"].count("done") if "heard" in state else 0
    count += state["word"] == "done"
    heard: Any = {"heard": [state["word"]]}
    if state["word"] == "start" and team:
        return Command(update=heard, goto=[Send(f"staff/{me.key}.{i}", {"word": "start"}) for i in range(team)])
    if count == team:
        boss = me.hired_by if me.key != "boss" else None
        if boss is None:
            return Command(update=heard, goto=Send("office", {"reports": ["done"]}))
        me.send(boss, {"word": "done"})
    return heard


def team_of(admins: int, workers: int) -> Any:
    """How many each key hires; `workers` in all."""

    def make(key: str, message: Any) -> Any:
        level = key.count(".")
        if level == 0:
            return {"team": admins}
        place = int(key.rpartition(".")[2])
        return {"team": workers // admins + (place < workers % admins) if level == 1 else 0}

    return make


def firm(admins: int, workers: int, node: Any = employee, saver: Any = None, **options: Any) -> Any:
    """A compiled firm of a boss, its admins and their workers."""
    graph = CyclicGraph(Firm, name="firm", max_rounds=100)
    graph.add_node("begin", lambda state: Command(goto=Send("staff/boss", {"word": "start"})))
    graph.add_node("office", lambda state: {"reports": state["reports"]})
    graph.add_actors("staff", node, make=team_of(admins, workers), state=Employee, destinations=("office",), **options)
    graph.add_edge("__start__", "begin")
    return graph.compile(checkpointer=saver)


def journal(folder: Path, kill_at: int) -> Any:
    """An employee that writes down that it was asked, and kills the process at some point."""
    asked = Counter[str]()

    def node(state: Employee) -> Any:
        with (folder / "asked").open("a") as file:
            file.write(f"{get_activation().key}\n")
        asked["all"] += 1
        if asked["all"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return employee(state)

    return node


def play(folder: Path, way: str, kill_at: int, admins: int, workers: int, durability: str) -> None:
    """To be run in a process of its own: begins, or goes on where another one was killed."""
    given: Any = None if (folder / "asked").exists() else {"reports": []}

    async def main() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "db")) as saver:
            graph = firm(admins, workers, journal(folder, kill_at), saver)
            return await graph.ainvoke(given, THREAD, durability=durability), await graph.aactors(THREAD)

    if way == "async":
        result, staff = asyncio.run(main())
    else:
        with SqliteSaver.from_conn_string(str(folder / "db")) as saver:
            graph = firm(admins, workers, journal(folder, kill_at), saver)
            result, staff = graph.invoke(given, THREAD, durability=durability), graph.actors(THREAD)
    print(",".join(result["reports"]))
    for path, actor in staff.items():
        print(path, actor.count, len(actor.unread), ",".join(actor.values["heard"]))
