"""Many runs, many callers, more than the limit, nested runs on one host, and long use: what does a host keep?"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.live import LiveRun
from tests.attacks.hosted import State, one, process_stats, released
from tests.attacks.kit import (
    Attacks,
    Figures,
    brief,
    eventually,
    in_background,
    read_log,
    rss,
    tally,
    within,
    workplace,
)
from tests.attacks.live_processes import listener
from tests.attacks.processes import HostProcess
from tests.forked import Forked

attacks = Attacks(__doc__)


async def _at_once(remote: RemoteAgent, runs: int, naps: float) -> list[Any]:
    return await asyncio.gather(*(remote.ainvoke({"naps": naps}) for _ in range(runs)), return_exceptions=True)


def _in_threads(remote: RemoteAgent, runs: int, given: State) -> list[Any]:
    def call(_: int) -> Any:
        try:
            return remote.invoke(given)
        except Exception as error:
            return error

    with ThreadPoolExecutor(runs) as pool:
        return list(pool.map(call, range(runs)))


@attacks.add("async runs at once from one caller", limit=300, short={"runs": 100, "naps": 0.5})
def many_runs(runs: int = 990, naps: float = 6.0) -> Figures:
    with HostProcess() as host:
        host.stats()
        before, mine, memory = host.rss(), rss(), [host.rss()]
        with in_background(lambda: memory.append(host.rss())):
            ends = tally(asyncio.run(_at_once(host.remote("asleep"), runs, naps)))
        after = host.stats()
    grown = max(memory) - before
    sizes = {"host_grown_mb": grown, "caller_grown_mb": rss() - mine, "after": after}
    return {"holds": ends == {"ok": runs} and grown < 300 and after["runs"] == 1, "ends": ends, **sizes}


@attacks.add("more runs than the host takes", short={"naps": 0.3})
def overload(naps: float = 0.5) -> Figures:
    with HostProcess(max_runs=4, max_queue=0) as host:
        outcomes = asyncio.run(_at_once(host.remote("asleep"), 12, naps))
    refused = [type(outcome).__name__ for outcome in outcomes if isinstance(outcome, BaseException)]
    return {"holds": 0 < len(refused) <= 8 and set(refused) == {"HostBusy"}, "ends": tally(outcomes)}


@attacks.add("a card while runs hold every worker", short={"patience": 2.0})
def card_while_busy(patience: float = 5.0) -> Figures:
    log = str(workplace() / f"card-{time.monotonic_ns()}.log")
    with HostProcess(max_runs=2, max_queue=0) as host, ThreadPoolExecutor(2) as pool:
        holding, fresh = host.remote("held"), host.remote("quick")
        holders = [pool.submit(holding.invoke, {"log": log}) for _ in range(2)]
        eventually(lambda: len(read_log(log)) == 2)
        card = within(patience, lambda: fresh.card)
        Path(released(log)).touch()
        ends = tally(holder.exception(60) or "ok" for holder in holders)
    return {"holds": card.is_value, "card": card.kind, "card_s": round(card.seconds, 2), "ends": ends}


@attacks.add("sync live runs take every worker", short={})
def live_runs_at_the_limit(runs: int = 2) -> Figures:
    """As many as the host takes; the signals that they wait for come all the same."""
    began = threading.Barrier(runs)

    def listen(number: int) -> Any:
        with LiveRun(StateGraph(State).add_node("far", remote).add_edge(START, "far").compile(), {"done": []}) as run:
            run.signal("far/audio", number)
            began.wait(60)  # all of them hold a worker now
            run.signal("far/audio", number)
            run.close_input()
            return run.result()["done"]

    with Host({"listener": listener()}, max_runs=runs) as host, ThreadPoolExecutor(runs) as pool:
        remote = RemoteAgent(f"{host.address}/listener")
        remote.card  # noqa: B018  (which says that it takes signals)
        heard = list(pool.map(lambda number: within(80, lambda: listen(number)), range(runs)))
    holds = [outcome.value for outcome in heard] == [[number] * 2 for number in range(runs)]
    return {"holds": holds, "heard": [str(outcome) for outcome in heard]}


def call_often(address: str, threads: int, calls: int) -> None:
    """A process of callers: it says how many calls failed."""
    remote, failures = RemoteAgent(f"{address}/quick"), list[str]()

    def call(_: int) -> None:
        for _ in range(calls):
            try:
                assert remote.invoke({})["text"] == "ok"
            except Exception as error:
                failures.append(brief(error))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(call, range(threads)))
    print(len(failures), failures[:1])


@attacks.add("callers in several processes", limit=300, short={"processes": 2, "threads": 8, "calls": 5})
def many_callers(processes: int = 8, threads: int = 32, calls: int = 10) -> Figures:
    with HostProcess() as host, contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Forked(call_often, host.address, threads, calls)) for _ in range(processes)]
        failures = [caller.stdout.readline().strip() for caller in callers]
    return {"holds": failures == ["0 []"] * processes, "failures": failures}


@attacks.add("sync runs at once", short={"runs": 40, "naps": 0.3})
def sync_runs(runs: int = 200, naps: float = 1.0) -> Figures:
    with HostProcess() as host:
        ends = tally(_in_threads(host.remote("sleep"), runs, {"naps": naps}))
        after = host.stats()
    return {"holds": ends == {"ok": runs} and after["runs"] == 1, "ends": ends, "after": after}


@attacks.add("nested runs on one host", short={"runs": 20, "depth": 3})
def nested(runs: int = 200, depth: int = 5) -> Figures:
    def leaf(state: State) -> State:
        time.sleep(0.3)
        return {"text": "deep"}

    with Host({"d0": one(leaf)}) as host:
        for level in range(1, depth):
            host.add(f"d{level}", one(RemoteAgent(f"{host.address}/d{level - 1}"), name="far"))
        remote = RemoteAgent(f"{host.address}/d{depth - 1}", timeout=80)
        ends = tally(_in_threads(remote, runs, {"text": ""}))
    return {"holds": ends == {"ok": runs}, "ends": ends}


@attacks.add("nested runs on one host, more than it takes", short={"runs": 10})
def nested_at_the_limit(runs: int = 100) -> Figures:
    """Each run calls the host again, when all of them have taken its places."""
    met = threading.Barrier(runs)

    def meet(state: State) -> State:
        met.wait(60)
        return {}

    with Host({"leaf": one(lambda state: {"text": "deep"})}, max_runs=runs) as host:
        graph = StateGraph(State).add_node("meet", meet).add_node("far", RemoteAgent(f"{host.address}/leaf"))
        host.add("tree", graph.add_edge(START, "meet").add_edge("meet", "far").compile())
        remote = RemoteAgent(f"{host.address}/tree", timeout=80)
        remote.card  # noqa: B018  (it would take a place)
        ends = tally(_in_threads(remote, runs, {"text": ""}))
    return {"holds": ends == {"ok": runs}, "ends": ends}


@attacks.add("soak", limit=1800, short={"runs": 160})
def soak(runs: int = 20_000) -> Figures:
    async def calls(remote: RemoteAgent, count: int) -> None:
        async def some() -> None:
            for _ in range(count // 16):
                await remote.ainvoke({})

        await asyncio.gather(*(some() for _ in range(16)))

    with HostProcess() as host:
        remote = host.remote("aquick")
        asyncio.run(calls(remote, runs // 10))
        marks = [(host.stats(), process_stats())]
        for _ in range(4):
            asyncio.run(calls(remote, runs // 4))
            gc.collect()
            marks.append((host.stats(), process_stats()))
    return _kept(marks)


@attacks.add("reconnects", limit=1800, short={"count": 20})
def reconnects(count: int = 2000) -> Figures:
    marks = []
    with HostProcess() as host:
        for number in range(count):
            remote = host.remote("quick")
            remote.invoke({})
            remote.close()
            if number in (count // 10, count - 1):
                eventually(lambda: host.stats()["fds"] <= 40, 5)
                gc.collect()
                marks.append((host.stats(), process_stats()))
    return _kept(marks)


@attacks.add("callers that leave", limit=600, short={"batches": 2, "size": 20})
def cancelled(batches: int = 20, size: int = 100) -> Figures:
    async def leave(remote: RemoteAgent) -> None:
        task = asyncio.create_task(remote.ainvoke({"naps": 30.0}))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def batch(remote: RemoteAgent) -> None:
        await asyncio.gather(*(leave(remote) for _ in range(size)))

    marks = []
    with HostProcess() as host:
        remote = host.remote("asleep")
        for _ in range(batches):
            asyncio.run(batch(remote))
            eventually(lambda: host.stats()["runs"] == 1)
            gc.collect()
            marks.append((host.stats(), process_stats()))
    return _kept(marks)


def _kept(marks: list[tuple[dict[str, int], dict[str, int]]]) -> Figures:
    """Whether the last of these statistics of host and caller is about the first."""
    (host, caller), (host_after, caller_after) = marks[0], marks[-1]
    few = {"rss_mb": 20, "fds": 5, "threads": 10, "io_tasks": 10, "runs": 0}
    sides = (host, host_after), (caller, caller_after)
    holds = all(after[key] - before[key] <= more for before, after in sides for key, more in few.items())
    return {"holds": holds, "host": [host, host_after], "caller": [caller, caller_after]}


if __name__ == "__main__":
    attacks.main()
