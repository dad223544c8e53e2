"""How long a Dag takes, as a multiple of its critical path: without barriers, with them, and as a `StateGraph`.

Random Dags with heavy-tailed latencies; the three run one after the other in one process. Run it with
`python tests/bench/bench_makespan.py [graphs] [nodes]`; it prints medians and the worst ratio, and the cost of a node
that does nothing in a chain and in a row.
"""

from __future__ import annotations

import asyncio
import operator
import random
import statistics
import sys
import time
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from agentmatrix.compose import Dag


class State(TypedDict, total=False):
    log: Annotated[list[int], operator.add]


class Plan:
    """A random Dag: latencies in seconds, and for each node the earlier ones that it waits for."""

    def __init__(self, nodes: int, rng: random.Random) -> None:
        self.latency = [min(0.02 * rng.paretovariate(1.3), 0.6) for _ in range(nodes)]
        self.sources = [rng.sample(range(i), min(i, rng.choice([1, 1, 2, 3]))) for i in range(nodes)]

    def critical_path(self) -> float:
        """The longest chain of latencies, in seconds."""
        ends: list[float] = []
        for latency, sources in zip(self.latency, self.sources, strict=True):
            ends.append(latency + max((ends[s] for s in sources), default=0.0))
        return max(ends)

    def build(self, kind: Any, **options: Any) -> Any:
        """The same graph by `Dag` or by hand as a `StateGraph`, whose joins are lists of sources."""
        graph = kind(State)
        for i, latency in enumerate(self.latency):
            graph.add_node(f"n{i}", _sleeper(i, latency))
        for i, sources in enumerate(self.sources):
            names = [f"n{s}" for s in sources]
            graph.add_edge(names if len(names) > 1 else names[0] if names else START, f"n{i}")
        return graph.compile(**options)


def _sleeper(number: int, latency: float) -> Any:
    async def sleep(state: State) -> State:
        await asyncio.sleep(latency)
        return {"log": [number]}

    return sleep


async def seconds(graph: Any) -> float:
    """How long one run takes."""
    begin = time.perf_counter()
    await graph.ainvoke({"log": []})
    return time.perf_counter() - begin


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "without barriers": (Dag, {"barriers": False}),
    "with barriers": (Dag, {"barriers": True}),
    "StateGraph": (StateGraph, {}),
}


async def makespans(graphs: int, nodes: int) -> dict[str, list[float]]:
    """By kind, the ratio of each graph's run to its critical path."""
    rng = random.Random(7)
    ratios: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(graphs):
        plan = Plan(nodes, rng)
        for name, (kind, options) in KINDS.items():
            ratios[name].append(await seconds(plan.build(kind, **options)) / plan.critical_path())
    return ratios


def idle(nodes: int, *, row: bool) -> Plan:
    """A chain, or a row between two nodes, of nodes that do nothing."""
    plan = Plan(nodes, random.Random(0))
    plan.latency = [0.0] * nodes
    plan.sources = [[0] if row and i else [i - 1] if i else [] for i in range(nodes)]
    return plan


async def costs(nodes: int) -> None:
    """Print the milliseconds for a node that does nothing."""
    for shape in ("chain", "row"):
        for name, (kind, options) in KINDS.items():
            graph = idle(nodes, row=shape == "row").build(kind, **options)
            best = min([await seconds(graph) for _ in range(3)])
            print(f"{shape} of {nodes}, {name:17}: {best / nodes * 1e3:.3f} ms a node")


def main() -> None:
    """Print the ratios and the costs."""
    graphs, nodes = (int(argument) for argument in (sys.argv[1:] + ["12", "24"][len(sys.argv) - 1 :])[:2])
    for name, ratios in asyncio.run(makespans(graphs, nodes)).items():
        print(f"{name:17}: median {statistics.median(ratios):.3f}, worst {max(ratios):.3f} of the critical path")
    asyncio.run(costs(60))


if __name__ == "__main__":
    main()
