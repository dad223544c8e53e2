"""Faults of the network between a caller and its host: cut, silent, slow; and readers that are slow."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph

from agentmatrix import RemoteAgent
from tests.attacks.hosted import State, released
from tests.attacks.kit import Attacks, Figures, brief, eventually, in_background, read_log, tally, within, workplace
from tests.attacks.processes import HostProcess
from tests.faulty_proxy import FaultyProxy

attacks = Attacks(__doc__)
NODES = range(5)


@attacks.add("cut by RST", short={})
def cut() -> Figures:
    return _fault(FaultyProxy.cut)


@attacks.add("100 ms of delay each way", short={"seconds": 0.02})
def delay(seconds: float = 0.1) -> Figures:
    return _fault(lambda proxy: setattr(proxy, "delay", seconds), at_once=True)


@attacks.add("20 kB a second", short={"rate": 50_000})
def throttle(rate: int = 20_000) -> Figures:
    return _fault(lambda proxy: setattr(proxy, "rate", rate), at_once=True)


@attacks.add("half-open: nothing is forwarded", limit=200)
def half_open() -> Figures:
    return _fault(lambda proxy: setattr(proxy, "stalls", True), noticed_within=60)


@attacks.add("half-open: nothing is forwarded to the host", limit=200)
def one_way() -> Figures:
    return _fault(lambda proxy: setattr(proxy, "stalls_up", True), noticed_within=60)


@attacks.add("half-open for 20 s, then healed", limit=200)
def healed() -> Figures:
    def stall(proxy: FaultyProxy) -> None:
        proxy.stalls = True
        time.sleep(20)
        proxy.stalls = False

    return _fault(stall)


def _fault(do: Callable[[FaultyProxy], None], *, at_once: bool = False, noticed_within: float = 100) -> Figures:
    """A run through a proxy that makes a fault, and its rest through another; no finished node may run again."""
    name = f"network-{time.monotonic_ns()}"
    log, config = str(workplace() / f"{name}.log"), {"configurable": {"thread_id": name}}
    database = sqlite3.connect(str(workplace() / f"{name}.db"), check_same_thread=False)
    saver, faulty_at = SqliteSaver(database), list[float]()

    def graph(port: int) -> Any:
        remote = RemoteAgent(f"127.0.0.1:{port}/chain")
        return StateGraph(State).add_node("far", remote).add_edge(START, "far").compile(checkpointer=saver)

    with HostProcess() as host, FaultyProxy(host.address) as proxy:

        def later() -> None:
            if not at_once:
                eventually(lambda: len(read_log(log)) > 2)
            faulty_at.append(time.time())
            do(proxy)

        given = {"log": log, "naps": 0.2, "done": []}
        fault = threading.Thread(target=later)
        fault.start()
        first = within(150, lambda: graph(proxy.port).invoke(given, config, durability="sync"))
        noticed = time.time() - faulty_at[0]
        rest = None if first.is_value else within(60, lambda: graph(host.port).invoke(None, config))
        fault.join()
        starts = Counter(number for _, event, number in read_log(log) if event == "start")
    done = (rest or first).value["done"] if (rest or first).is_value else None
    # What was under way at the fault may run twice; what had ended before it was saved first.
    twice = sum(starts[number] > 1 for number in NODES)
    return {
        "holds": done == [*NODES] and twice <= 1 and (first.is_value or noticed < noticed_within),
        "first": str(first) if not first.is_value else "ok",
        "noticed_after_s": round(noticed, 2),
        "resumed": rest and str(rest),
        "starts": [starts[number] for number in NODES],
    }


@attacks.add("one cut under all runs of a connection", short={"runs": 5})
def cut_under_many(runs: int = 20) -> Figures:
    log = str(workplace() / f"cut-{time.monotonic_ns()}.log")

    def call() -> Any:
        return remote.invoke({"log": log})["text"]

    with HostProcess() as host, FaultyProxy(host.address) as proxy, ThreadPoolExecutor(runs) as pool:
        remote = RemoteAgent(f"127.0.0.1:{proxy.port}/held")
        calls = [pool.submit(call) for _ in range(runs)]
        eventually(lambda: len(read_log(log)) == runs)
        proxy.cut()
        eventually(lambda: any(call.done() for call in calls), 2)
        Path(released(log)).touch()
        ends = tally(call.exception(60) or "ok" for call in calls)
        ended = eventually(lambda: host.stats()["runs"] == 1)
    return {"holds": ended and ends == {"ok": runs}, "ends": ends, "runs_ended_on_host": ended}


@attacks.add("cuts and stalls at random under runs of many kinds", limit=3600, short={"cuts": 20})
def random_cuts(cuts: int = 200, seed: int = 11) -> Figures:
    """Runs with a saver, sync and async, and large echoes, one after the other on each of four threads."""
    rng, score = random.Random(seed), Counter[str]()
    lock, ended = threading.Lock(), threading.Event()
    database = sqlite3.connect(str(workplace() / f"cuts-{time.monotonic_ns()}.db"), check_same_thread=False)
    saver = SqliteSaver(database)
    with HostProcess() as host, FaultyProxy(host.address) as proxy, ThreadPoolExecutor(4) as pool:
        chain = StateGraph(State).add_node("far", RemoteAgent(f"{proxy.address}/chain")).add_edge(START, "far")
        saved, unsaved = chain.compile(checkpointer=saver), RemoteAgent(f"{proxy.address}/achain")
        echo = RemoteAgent(f"{proxy.address}/echo")
        assert unsaved.card and echo.card

        def call(kind: int, number: int) -> None:
            log = str(workplace() / f"cuts-{time.monotonic_ns()}-{kind}-{number}.log")
            given: Any = {"log": log, "naps": 0.02, "done": []}
            if kind == 0:
                text = "x" * 700_000 + str(number)
                right = echo.invoke({"text": text})["text"] == text
            elif kind == 1:
                right = asyncio.run(unsaved.ainvoke(given))["done"] == [*NODES]
            else:
                config: Any = {"configurable": {"thread_id": log}}
                parts = list(saved.stream(given, config, durability="sync", stream_mode="updates", subgraphs=True))
                right = sum(namespace != () for namespace, _ in parts) == len(NODES)
                right = right and saved.get_state(config).values["done"] == [*NODES]
            events = Counter((event, node) for _, event, node in read_log(log))
            twice = sum(count > 1 for count in events.values())
            with lock:
                score["runs"] += 1
                score["wrong"] += not right
                score["nodes that ran twice"] += twice

        def calls(kind: int) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                outcome = within(90, lambda: call(kind, number))  # noqa: B023
                if not outcome.is_value:
                    with lock:
                        score[brief(outcome.value, 400)] += 1
                    # A run that began while there was no line has not reached the host, and says so.
                    ended.wait(0.05 if "HostUnreachable" in str(outcome) else 0.0)

        workers = [pool.submit(calls, kind) for kind in (0, 1, 2, 3)]
        for _ in range(cuts):
            time.sleep(rng.uniform(0.02, 0.25))
            if (stall := rng.choice((0.0, 0.0, 0.1, 0.3))) > 0:
                proxy.stalls = True
                time.sleep(stall)
            proxy.cut()
            proxy.stalls = False
        ended.set()
        for worker in workers:
            worker.result(120)
        left = eventually(lambda: host.stats()["runs"] == 1)
    figures = {"cuts": cuts, "score": dict(score), "nothing_left": left}
    lost = [what for what in score if what not in ("runs", "wrong", "nodes that ran twice") and "Unreach" not in what]
    return {"holds": left and not (lost or score["wrong"] or score["nodes that ran twice"]), **figures}


@attacks.add("a large value over a slow link", limit=300)
def slow_link(size: int = 10_000_000, rate: int = 100_000) -> Figures:
    with HostProcess() as host, FaultyProxy(host.address) as proxy:
        remote = RemoteAgent(f"127.0.0.1:{proxy.port}/echo")
        remote.invoke({"text": ""})
        proxy.rate = rate
        outcome = within(280, lambda: len(remote.invoke({"text": "x" * size})["text"]))
    return {"holds": outcome.value == size, "outcome_of_call": str(outcome)}


@attacks.add("a slow reader of 300 MB", limit=200)
def slow_reader(size: int = 3000, rate: int = 200_000, seconds: float = 15.0) -> Figures:
    with HostProcess() as host, FaultyProxy(host.address) as proxy:
        memory = [host.rss()]
        remote = RemoteAgent(f"127.0.0.1:{proxy.port}/flood")

        def read() -> int:
            count = 0
            for count, _ in enumerate(remote.stream({"size": size}, stream_mode="custom"), 1):
                if count == 1:
                    proxy.rate = rate
                    time.sleep(seconds)
                    proxy.rate = 0
            return count

        with in_background(lambda: memory.append(host.rss())):
            outcome = within(180, read)
    grown = max(memory) - memory[0]
    return {"holds": outcome.value == size and grown <= 64, "read": brief(outcome.value), "host_grown_mb": grown}


if __name__ == "__main__":
    attacks.main()
