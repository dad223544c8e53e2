"""Replicas and their parents are killed, stopped and restarted under load: nothing is lost, doubled or hung, and under
durability "sync" no node that has finished runs again.

Short for CI. By hand, a hundred times as much: AGENTMATRIX_CHAOS=100 pytest tests/chaos
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from agentmatrix import RemoteAgent
from tests.attacks.kit import eventually, rss
from tests.chaos.processes import NODES, Replica, count_entries, nodes_of, parent_of, run_parent
from tests.faulty_proxy import FaultyProxy
from tests.forked import Forked

TIMES = int(os.environ.get("AGENTMATRIX_CHAOS", "1"))
HUNG = 100 * max(1, TIMES)
pytestmark = pytest.mark.timeout(600 * TIMES)


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[Replica]]:
    with ExitStack() as stack:
        started = []
        for _ in range(2):
            started.append(Replica())
            stack.callback(started[-1].stop)
        yield started


class Load:
    """Callers that run one thread after the other, until they are told to stop."""

    def __init__(self, graph: Any, folder: Path, callers: int, *, has_saver: bool = True) -> None:
        self.graph, self._folder, self._has_saver = graph, folder, has_saver
        self.done: list[str] = []
        self.wrong: list[Any] = []
        self._stopped = False
        self._running: dict[int, str] = {}
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(callers)]

    async def _call(self, caller: int) -> None:
        number = 0
        while not self._stopped:
            key = f"{caller}-{number}"
            number += 1
            self._running[caller] = key
            config: Any = {"configurable": {"thread_id": key}} if self._has_saver else {}
            options: Any = {"durability": "sync"} if self._has_saver else {}
            try:
                state = await self.graph.ainvoke({"folder": str(self._folder), "key": key}, config, **options)
                if state["log"] != list(NODES):
                    self.wrong.append((key, state["log"]))
            except Exception as error:
                self.wrong.append((key, error))
            self.done.append(key)

    async def until(self, count: int) -> None:
        """So many threads more have ended."""
        limit, wanted = time.monotonic() + HUNG, len(self.done) + count
        while len(self.done) < wanted:
            assert time.monotonic() < limit, "hung"
            assert not self.wrong, self.wrong[:3]
            await asyncio.sleep(0.005)

    async def until_others(self) -> None:
        """The threads that are under way now have ended.

        Then none of them is lost once more: what is lost three times, and saves nothing new meanwhile, is given up.
        """
        limit, running = time.monotonic() + HUNG, dict(self._running)
        while any(self._running[caller] == key for caller, key in running.items()):
            assert time.monotonic() < limit, "hung"
            assert not self.wrong, self.wrong[:3]
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._stopped = True
        async with asyncio.timeout(HUNG):
            await asyncio.gather(*self._tasks)
        assert not self.wrong, self.wrong[:3]


def check_nodes(folder: Path, done: list[str]) -> None:
    """Each node has run, in order; none ran again once a later one had begun."""
    found = nodes_of(folder)
    assert set(done) <= set(found)
    for key in done:
        assert list(dict.fromkeys(found[key])) == list(NODES), (key, found[key])
        numbers = [NODES.index(node) for node in found[key]]
        assert numbers == sorted(numbers), (key, found[key])


def remote_to(replicas: list[Replica], agent: str) -> RemoteAgent:
    return RemoteAgent([f"{replica.address}/{agent}" for replica in replicas])


@pytest.mark.parametrize("agent", ["dag", "stategraph"])
async def test_replicas_are_killed_under_load(replicas: list[Replica], tmp_path: Path, agent: str) -> None:
    with remote_to(replicas, agent) as remote:
        load = Load(parent_of(remote, InMemorySaver()), tmp_path, 12)
        for kill in range(4 * TIMES):
            await load.until(random.randint(1, 20))
            await asyncio.to_thread(replicas[kill % 2].kill)
            if kill % 2:
                await load.until_others()
        assert await asyncio.to_thread(eventually, lambda: all(r.state == "ready" for r in remote.replicas), HUNG)
        await load.stop()
    check_nodes(tmp_path, load.done)
    again = sum(len(nodes) > len(NODES) for nodes in nodes_of(tmp_path).values())
    print(f"{4 * TIMES} kills, {len(load.done)} runs, {again} of them with a node that was under way twice")


async def test_lines_are_cut_while_replicas_are_killed(replicas: list[Replica], tmp_path: Path) -> None:
    kills, cuts = 2 * TIMES, 0
    with ExitStack() as stack:
        proxies = [stack.enter_context(FaultyProxy(replica.address)) for replica in replicas]
        remote = stack.enter_context(RemoteAgent([f"{proxy.address}/dag" for proxy in proxies]))
        load = Load(parent_of(remote, InMemorySaver()), tmp_path, 12)
        for kill in range(kills):
            killing = asyncio.create_task(asyncio.to_thread(replicas[kill % 2].kill))
            while True:
                await load.until(random.randint(1, 5))
                await asyncio.to_thread(random.choice(proxies).cut)
                cuts += 1
                if killing.done() and random.random() < 0.5:
                    break
            await killing
            if kill % 2:
                await load.until_others()
        await load.stop()
    check_nodes(tmp_path, load.done)
    print(f"{kills} kills and {cuts} cuts, {len(load.done)} runs")


@pytest.mark.parametrize("has_saver", [True, False])
async def test_a_rolling_restart_under_load(replicas: list[Replica], tmp_path: Path, has_saver: bool) -> None:
    with remote_to(replicas, "dag") as remote:
        graph = parent_of(remote, InMemorySaver()) if has_saver else remote
        load = Load(graph, tmp_path, 12, has_saver=has_saver)
        for _ in range(TIMES):
            for replica in replicas:
                await load.until(20)
                await asyncio.to_thread(replica.restart)
        await load.stop()
    found = nodes_of(tmp_path)
    assert all(found[key] == list(NODES) for key in load.done)  # not even the node under way ran twice


async def test_parents_are_killed(replicas: list[Replica], tmp_path: Path) -> None:
    count, kills, ended = 40, 2 * TIMES, set[str]()
    addresses = [replica.address for replica in replicas]
    for kill in range(kills + 1):
        with Forked(run_parent, str(tmp_path), addresses, "dag", count) as parent:
            left = random.randint(1, 10) if kill < kills else count + 1
            async with asyncio.timeout(HUNG):
                while left and (line := (await asyncio.to_thread(parent.stdout.readline)).strip()):
                    if line == "end":
                        break
                    left -= line not in ended
                    ended.add(line)
            if kill == kills:
                assert parent.wait(HUNG) == 0
            parent.send_signal(signal.SIGKILL)
    assert len(ended) == count
    check_nodes(tmp_path, sorted(ended))
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "parent.db")) as saver:
        graph = parent_of(RemoteAgent([f"{address}/dag" for address in addresses]), saver)
        for key in ended:
            assert (await graph.aget_state({"configurable": {"thread_id": key}})).values["log"] == list(NODES)


async def test_64_callers_are_shared_out(replicas: list[Replica], tmp_path: Path) -> None:
    """What each gets in all depends on how quick it is: the one that has fewer runs under way gets the next."""
    (tmp_path / "hold").touch()
    with remote_to(replicas, "dag") as remote:
        load = Load(remote, tmp_path, 64, has_saver=False)
        await asyncio.to_thread(eventually, lambda: [one.runs for one in remote.replicas] == [32, 32], HUNG)
        (tmp_path / "hold").unlink()
        await load.until(320 * TIMES)
        await load.stop()
    shares = Counter(line.split()[2] for line in (tmp_path / "nodes").read_text().splitlines())
    assert shares.keys() == {str(replica.pid) for replica in replicas}
    print({pid: runs / shares.total() for pid, runs in shares.items()})


def run_many(folder: str, addresses: list[str], replicas: list[int]) -> None:
    """In a process of its own, where nothing else grows: writes the sizes before many runs and after them."""
    pids = [os.getpid(), *replicas]

    async def main() -> None:
        def sizes() -> dict[str, list[int]]:
            there = [RemoteAgent(f"{address}/entries").invoke({})["entries"] for address in addresses]
            return {
                "megabytes": [rss(pid) for pid in pids],
                "descriptors": [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids],
                "threads": [len(os.listdir(f"/proc/{pid}/task")) for pid in pids],
                "entries": [count_entries() - len(load.done), *there],
            }

        with RemoteAgent([f"{address}/dag" for address in addresses]) as remote:
            load = Load(remote, Path(folder), 16, has_saver=False)
            await load.until(500 * TIMES)
            before = await asyncio.to_thread(sizes)
            await load.until(1500 * TIMES)
            after = await asyncio.to_thread(sizes)
            await load.stop()
            assert [replica.runs for replica in remote.replicas] == [0, 0]
        print(json.dumps([before, after]), flush=True)

    asyncio.run(main())


def test_many_runs_leave_nothing(replicas: list[Replica], tmp_path: Path) -> None:
    """With AGENTMATRIX_CHAOS=50, 100,000 runs."""
    addresses = [replica.address for replica in replicas]
    with Forked(run_many, str(tmp_path), addresses, [replica.pid for replica in replicas]) as caller:
        said = caller.stdout.readline()
        assert said, caller.stderr.read()
    before, after = json.loads(said)
    print(f"{before} became {after}")
    grown = {what: max(e - b for b, e in zip(before[what], after[what], strict=True)) for what in before}
    assert grown["descriptors"] <= 2 and grown["threads"] <= 4, (before, after)
    if TIMES < 50:
        assert grown["megabytes"] <= 32, (before, after)
    else:  # by now the tables with a bound are full, such as that of the runs that a host has started
        assert grown["megabytes"] <= 8 and grown["entries"] <= 5000, (before, after)
