"""`kill -9` of a host in the middle of its runs; another host goes on. No result may be lost or doubled."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiosqlite
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

from agentmatrix import RemoteAgent
from tests.attacks.hosted import State
from tests.attacks.kit import Attacks, Figures, Outcome, brief, read_log, within, workplace
from tests.attacks.processes import HostProcess

attacks = Attacks(__doc__)
GONE_WRONG = {"wrong result", "first hung", "resume hung", "resume error", "finished node ran again after a successor"}


class Parent:
    """A graph with a saver in this process, one node of which is on a host.

    Args:
        agent: the remote graph, `"chain"` or `"achain"`; the latter is called and saved async.
        durability: of the runs.
    """

    def __init__(self, agent: str, durability: str) -> None:
        self.agent, self._durability = agent, durability
        database = str(workplace() / f"kill-{agent}-{durability}-{time.monotonic_ns()}.db")
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.saver: Any = (
            self._await(_async_saver(database))
            if agent == "achain"
            else SqliteSaver(sqlite3.connect(database, check_same_thread=False))
        )

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def run(self, address: str, given: Any, thread: str) -> Outcome:
        """One run, or the rest of one, with the host at this address."""
        remote = RemoteAgent(f"{address}/{self.agent}", connect_timeout=20)
        graph = StateGraph(State).add_node("far", remote).add_edge(START, "far").compile(checkpointer=self.saver)
        config: Any = {"configurable": {"thread_id": thread}}
        options: Any = {"durability": self._durability}

        def call() -> Any:
            if self.agent == "achain":
                return self._await(graph.ainvoke(given, config, **options))
            return graph.invoke(given, config, **options)

        return within(90, call)

    def has_begun(self, thread: str) -> bool:
        return self.saver.get_tuple({"configurable": {"thread_id": thread}}) is not None

    def close(self) -> None:
        if self.agent == "achain":
            self._await(self.saver.conn.close())
        self._loop.call_soon_threadsafe(self._loop.stop)


async def _async_saver(database: str) -> AsyncSqliteSaver:
    saver = AsyncSqliteSaver(await aiosqlite.connect(database))
    await saver.setup()
    return saver


@dataclass
class Score:
    """What became of the runs."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, stage: str, outcome: Outcome) -> None:
        self.counts[f"{stage} {outcome.kind}"] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        if outcome.kind == "error":
            self.errors[f"{stage} {brief(outcome.value, 90)}"] += 1

    def add_reruns(self, log: str, killed_at: float) -> None:
        """Count the nodes that had ended before the kill and ran again."""
        before = [entry for entry in read_log(log) if entry[0] <= killed_at]
        ended = {number for _, event, number in before if event == "end"}
        begun = {number for _, event, number in before if event == "start"}
        for at, event, number in read_log(log):
            if at > killed_at and event == "start" and number in ended:
                after = " after a successor" if any(other > number for other in begun) else ""
                self.counts[f"finished node ran again{after}"] += 1


@attacks.add("kill -9 of a host, sync graph", limit=3600, short={"kills": 1})
def sync_graph(kills: int = 100) -> Figures:
    return _killed("chain", "async", kills)


@attacks.add("kill -9 of a host, sync graph, durability sync", limit=3600, short={"kills": 2})
def durable_graph(kills: int = 60) -> Figures:
    return _killed("chain", "sync", kills)


@attacks.add("kill -9 of a host, async graph", limit=3600, short={"kills": 2})
def async_graph(kills: int = 40) -> Figures:
    return _killed("achain", "async", kills)


def _killed(agent: str, durability: str, kills: int) -> Figures:
    """Every second time the next host serves on the port of the one that was killed."""
    rng, score, parent = random.Random(7), Score(), Parent(agent, durability)
    host = HostProcess()
    try:
        for number in range(kills):
            host = _kill_once(parent, host, number, rng.uniform(0.005, 0.28), score)
    finally:
        host.kill()
        parent.close()
    figures = {"kills": kills, "counts": score.counts, "errors": score.errors, "slowest_s": round(score.slowest, 2)}
    # With durability "async" the last moment before a kill may be lost, as LangGraph says.
    wrong = GONE_WRONG if durability == "sync" else GONE_WRONG - {"finished node ran again after a successor"}
    return {"holds": not wrong & score.counts.keys(), **figures}


def _kill_once(parent: Parent, host: HostProcess, number: int, after: float, score: Score) -> HostProcess:
    """One run whose host is killed `after` seconds. Returns the next host."""
    spare = HostProcess() if number % 2 else None
    log, thread = str(workplace() / f"{parent.agent}-{time.monotonic_ns()}.log"), f"t{number}"
    given = {"log": log, "naps": 0.03, "done": []}
    killed_at: list[float] = []

    def kill() -> None:
        time.sleep(after)
        host.kill()
        killed_at.append(time.time())

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = parent.run(host.address, given, thread)
    score.add("first", outcome)
    killer.join()
    host = spare or HostProcess(port=host.port)
    if outcome.kind == "error":
        outcome = parent.run(host.address, None if parent.has_begun(thread) else given, thread)
        score.add("resume", outcome)
    if outcome.is_value and outcome.value["done"] != [0, 1, 2, 3, 4]:
        score.counts["wrong result"] += 1
    score.add_reruns(log, killed_at[0])
    return host


if __name__ == "__main__":
    attacks.main()
