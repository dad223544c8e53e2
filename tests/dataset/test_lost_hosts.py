"""Hosts that are killed under load: no row is lost, none doubled; of rows that kill theirs no other suffers."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import RetryPolicy

from agentmatrix import Dag, Host, RemoteAgent, arefine
from agentmatrix.dataset.progress_display import PeriodicDisplay
from tests.dataset.hosted_rows import State, serve_rows
from tests.forked import Forked

QUICK = RetryPolicy(initial_interval=0.01, jitter=False)


def agent_of(process: Forked) -> RemoteAgent:
    return RemoteAgent(f"{process.stdout.readline().strip()}/answer")


def calls(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.calls"
    return path.read_text().split() if path.exists() else []


def is_over(run: asyncio.Task[Any], host: Forked) -> bool:
    return run.done() or not host._process.is_alive()


async def until(condition: Any) -> None:
    async with asyncio.timeout(100):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_of_two_hosts_is_killed(tmp_path: Path) -> None:
    rows = [{"id": n} for n in range(300)]
    with Forked(serve_rows, tmp_path, "a") as first, Forked(serve_rows, tmp_path, "b") as second:
        agents = [agent_of(first), agent_of(second)]
        run = asyncio.create_task(
            arefine(
                agents, rows, tmp_path / "out.jsonl", max_concurrency=32, retry=QUICK, result=lambda _, state: state
            )
        )
        await until(lambda: len(calls(tmp_path, "a")) > 30)
        first.send_signal(signal.SIGKILL)
        report = await run
    assert (report.done, report.total) == (300, 300)
    found = (tmp_path / "out.jsonl").read_text().splitlines()
    assert sorted(found) == sorted(f'{{"id": {n}, "answer": {2 * n}}}' for n in range(300))
    begun = Counter(calls(tmp_path, "a") + calls(tmp_path, "b"))
    assert len(begun) == 300
    # What the killed one had in hand, and no more.
    assert sum(begun.values()) - 300 <= 32
    assert len(calls(tmp_path, "b")) > len(calls(tmp_path, "a")) > 0


async def test_both_hosts_are_killed_and_one_comes_back(tmp_path: Path) -> None:
    rows = [{"id": n} for n in range(200)]
    with Forked(serve_rows, tmp_path, "a") as first, Forked(serve_rows, tmp_path, "b") as second:
        agents = [agent_of(first), agent_of(second)]
        port = int(agents[0].url.rpartition(":")[2])
        said: list[str] = []
        display = PeriodicDisplay(0.05, lambda snapshot: said.append(snapshot.as_text()))
        run = asyncio.create_task(arefine(agents, rows, max_concurrency=16, retry=QUICK, show_progress=display))
        await until(lambda: len(calls(tmp_path, "a")) > 20)
        for process in (first, second):
            process.send_signal(signal.SIGKILL)
        await until(lambda: any("waiting for 2 hosts to come back" in line for line in said))
        assert not run.done()
    with Forked(serve_rows, tmp_path, "again", port) as third:
        assert third.stdout.readline()
        report = await run
    assert (report.done, report.failed, report.tombstoned) == (200, 0, 0)


async def test_a_row_that_kills_its_host_is_tombstoned_and_no_other(tmp_path: Path) -> None:
    rows = [{"id": n, "kills": n == 40} for n in range(120)]
    with Forked(serve_rows, tmp_path, "0") as first:
        agent = agent_of(first)
        port = int(agent.url.rpartition(":")[2])
        run = asyncio.create_task(
            arefine(agent, rows, max_concurrency=8, retry=QUICK, result=lambda _, state: {"id": state["id"]})
        )
        killed = 0
        host = first
        while not run.done():
            await until(partial(is_over, run, host))
            if not run.done():
                killed += 1
                host = Forked(serve_rows, tmp_path, str(killed), port)
                assert await asyncio.to_thread(host.stdout.readline)
        host.__exit__()
        report = await run
    assert (report.done, report.failed, report.tombstoned) == (119, 0, 1)
    (row,) = report.failures
    assert (row.id, row.status, row.attempts, row.error_type) == ("40", "tombstoned", 3, "HostLost")
    assert killed == 3


async def test_a_full_host_costs_no_attempt(tmp_path: Path) -> None:
    async def answer(state: State) -> State:
        await asyncio.sleep(0.01)
        return {"answer": 1}

    graph = Dag(State).add_node("answer", answer).compile()
    async with Host({"answer": graph}, max_runs=2) as host:
        report = await arefine(
            RemoteAgent(f"{host.address}/answer"), [{"id": n} for n in range(60)], max_concurrency=20, retry=QUICK
        )
    assert (report.done, report.failed) == (60, 0)


async def test_a_run_that_is_cancelled_leaves_nothing_on_the_host(tmp_path: Path) -> None:
    begun, cancelled = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def answer(state: State) -> State:
        begun.release()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.release()
            raise
        return {}

    graph = Dag(State).add_node("answer", answer).compile()
    async with Host({"answer": graph}) as host:
        agent = RemoteAgent(f"{host.address}/answer")
        run = asyncio.create_task(arefine(agent, [{"id": n} for n in range(9)], tmp_path / "out.jsonl"))
        for _ in range(9):
            await begun.acquire()
        run.cancel()
        for _ in range(9):
            await cancelled.acquire()
    assert run.cancelled() or (await asyncio.gather(run, return_exceptions=True))
    async with Host({"answer": graph}) as host:
        # The output is whole, and is free again.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await arefine(RemoteAgent(f"{host.address}/answer"), [{"id": 1}], tmp_path / "out.jsonl")
