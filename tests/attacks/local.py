"""`kill -9` of a process that runs a Dag, a StateGraph or a live CyclicGraph over a saver on disk, without a host."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from langgraph.graph import START, StateGraph

from agentmatrix import Dag
from tests.attacks.hosted import State
from tests.attacks.kit import Attacks, Figures, eventually, note, read_log, workplace
from tests.attacks.live_processes import (
    CONFIG,
    Life,
    is_finished,
    listener,
    run_live,
    save_result,
    saver_at,
    signals_kept,
    wait_for,
)

attacks = Attacks(__doc__)
EDGES = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5), (5, 6)]
NODES = range(7)


def _followers() -> dict[int, set[int]]:
    """By node, all that comes after it."""
    after: dict[int, set[int]] = defaultdict(set)
    for source, target in reversed(EDGES):
        after[source] |= {target} | after[target]
    return after


def _node(number: int) -> Callable[[State], State]:
    def work(state: State) -> State:
        note(state["log"], "start", number)
        time.sleep(0.015 + 0.01 * (number % 3))
        note(state["log"], "end", number)
        return {"done": [number]}

    return work


def _graph(kind: str, saver: Any) -> Any:
    graph: Any = Dag(State, name="dag") if kind == "dag" else StateGraph(State)
    for number in NODES:
        graph.add_node(f"n{number}", _node(number))
    if kind == "dag":
        for source, target in EDGES:
            graph.add_edge(f"n{source}", f"n{target}")
    else:
        graph.add_edge(START, "n0")
        for number in (1, 2, 3):
            graph.add_edge("n0", f"n{number}")
        graph.add_edge(["n1", "n2", "n3"], "n4").add_edge("n4", "n5").add_edge("n5", "n6")
    return graph.compile(checkpointer=saver)


def run_graph(kind: str, base: str, durability: Any) -> None:
    """One life of a run."""
    saver = saver_at(f"{base}.db")
    given: Any = None if saver.get_tuple(CONFIG) else {"log": f"{base}.log", "done": []}
    save_result(base, _graph(kind, saver).invoke(given, CONFIG, durability=durability)["done"])


def run_listener(base: str, durability: str, first: int, last: int) -> None:
    """One life of a live run."""
    run_live(listener(saver_at(f"{base}.db")), "audio", base, durability, range(first, last))


@attacks.add("kill -9 of a Dag, durability sync", limit=1800, short={"kills": 2})
def sync_dag(kills: int = 100) -> Figures:
    return _graphs_killed("dag", "sync", kills)


@attacks.add("kill -9 of a Dag, durability async", limit=1800, short={"kills": 2})
def async_dag(kills: int = 100) -> Figures:
    return _graphs_killed("dag", "async", kills)


@attacks.add("kill -9 of a StateGraph, durability sync", limit=1800, short={"kills": 1})
def state_graph(kills: int = 60) -> Figures:
    return _graphs_killed("graph", "sync", kills)


def _graphs_killed(kind: str, durability: str, kills: int) -> Figures:
    rng, counts, done = random.Random(11), Counter[str](), 0
    while done < kills:
        base = str(workplace() / f"local-{kind}-{time.monotonic_ns()}")
        cuts = []
        for _ in range(min(rng.randrange(1, 4), kills - done)):
            with Life(run_graph, kind, base, durability) as life:
                eventually(lambda base=base: bool(read_log(f"{base}.log")))  # type: ignore[misc]
                time.sleep(rng.uniform(0.0, 0.2))
                life.kill()
            cuts.append(time.time())
            done += 1
        with Life(run_graph, kind, base, durability) as life:
            counts["hung"] += not wait_for(life)
        counts["runs"] += 1
        counts["unfinished"] += not is_finished(base)
        counts += _reruns(f"{base}.log", cuts)
    # With durability "async" the last moment before a kill may be lost, as LangGraph says.
    wrong = {"hung", "unfinished"} | ({"again after a successor"} if durability == "sync" else set())
    return {"holds": not any(counts[what] for what in wrong), "kills": kills, "counts": counts}


def _reruns(log: str, cuts: list[float]) -> Counter[str]:
    """The nodes that had ended before a kill and ran again."""
    counts, entries, followers = Counter[str](), read_log(log), _followers()
    for at, event, number in entries:
        before = [entry for entry in entries if any(entry[0] <= cut <= at for cut in cuts)]
        if event != "start" or not any(entry[1:] == ("end", number) for entry in before):
            continue
        counts["again"] += 1
        counts["again after a successor"] += any(
            entry[1] == "start" and entry[2] in followers[number] for entry in before
        )
    return counts


@attacks.add("kill -9 of a live run, durability sync", limit=1800, short={"kills": 1})
def sync_live(kills: int = 50) -> Figures:
    return _listeners_killed("sync", kills)


@attacks.add("kill -9 of a live run, durability async", limit=1800, short={"kills": 1})
def async_live(kills: int = 50) -> Figures:
    return _listeners_killed("async", kills)


def _listeners_killed(durability: str, kills: int) -> Figures:
    rng, counts, done = random.Random(11), Counter[str](), 0
    while done < kills:
        base = str(workplace() / f"live-{time.monotonic_ns()}")
        for life_number in range(min(rng.randrange(1, 4), kills - done)):
            first = 1000 * life_number
            with Life(run_listener, base, durability, first, first + 200) as life:
                heard = len(read_log(f"{base}.ack"))
                eventually(lambda base=base, heard=heard: len(read_log(f"{base}.ack")) > heard)  # type: ignore[misc]
                time.sleep(rng.uniform(0.0, 0.4))
                life.kill()
            done += 1
        with Life(run_listener, base, durability, 0, 0) as life:
            counts["hung"] += not wait_for(life)
        counts["unfinished"] += not is_finished(base)
        counts += signals_kept(base) if is_finished(base) else Counter()
    wrong = ("hung", "unfinished", "lost", "twice", "out of order")
    return {"holds": not any(counts[what] for what in wrong), "kills": done, "counts": counts}


if __name__ == "__main__":
    attacks.main()
