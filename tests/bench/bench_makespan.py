"""How long a graph takes, as a multiple of its critical path: without barriers, with them, and as a `StateGraph`.

    python tests/bench/bench_makespan.py [graphs] [nodes]

Random graphs with heavy-tailed latencies, three kinds of them: Dags; graphs of events, in which each of several items
activates the nodes after it, by `all_of`, `any_of` and edges; and pipelines, in which each item passes every stage. The
reference for the last two is a `StateGraph` whose router starts in each superstep what has an item. All run one after
the other in one process. It prints medians and worst ratios, and the cost of a node that does nothing in a chain and in
a row.
"""

from __future__ import annotations

import asyncio
import operator
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from agentmatrix import CyclicGraph, Dag, all_of, any_of


class State(TypedDict, total=False):
    log: Annotated[list[int], operator.add]


def heavy_tailed(rng: random.Random) -> float:
    """A latency in seconds."""
    return min(0.02 * rng.paretovariate(1.3), 0.6)


class Plan:
    """A random Dag: latencies in seconds, and for each node the earlier ones that it waits for."""

    def __init__(self, nodes: int, rng: random.Random) -> None:
        self.latency = [heavy_tailed(rng) for _ in range(nodes)]
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


class Events:
    """A random graph of events. The first node feeds `items` of them to the others; each node has one activation at a
    time, and as many as its sources make.

    Attributes:
        sources: for each node the earlier ones that activate it.
        rules: for each node how: together (`all_of`), or each of their items (`any_of`, edges).
        latency: for each node the seconds of its activations.
    """

    def __init__(self, nodes: int, items: int, rng: random.Random, *, pipeline: bool = False) -> None:
        self.sources: list[list[int]] = [[]]
        self.rules = ["feed"]
        counts = [items]
        for i in range(1, nodes):
            sources = [i - 1] if pipeline else rng.sample(range(i), min(i, rng.choice([1, 1, 2, 3])))
            rule = rng.choice(["all_of", "any_of", "edges"])
            uneven = rule == "all_of" and len({counts[s] for s in sources}) > 1
            if uneven or sum(counts[s] for s in sources) > 3 * items:
                sources = sources[:1]
            self.sources.append(sources)
            self.rules.append(rule)
            counts.append(self._waiting(i, counts))
        self.latency = [[heavy_tailed(rng) for _ in range(count)] for count in counts]

    def _waiting(self, node: int, done: Mapping[int, int] | Sequence[int]) -> int:
        """How many items have come for a node, after so many activations of the others."""
        items = [done[s] for s in self.sources[node]]
        return min(items) if self.rules[node] == "all_of" else sum(items)

    def critical_path(self) -> float:
        """When the last activation ends, in seconds, if each starts when its items are there and its node is free."""
        ends: list[list[float]] = []
        for latency, sources, rule in zip(self.latency, self.sources, self.rules, strict=True):
            came = [ends[s] for s in sources] or [[0.0] * len(latency)]
            arrivals = [max(items) for items in zip(*came, strict=True)] if rule == "all_of" else sorted(sum(came, []))
            ends.append([])
            for arrival, spent in zip(arrivals, latency, strict=True):
                ends[-1].append(max([arrival, *ends[-1][-1:]]) + spent)
        return max(mine[-1] for mine in ends)

    def triggered(self) -> Any:
        """The graph with triggers."""
        graph, nodes = CyclicGraph(State, max_rounds=1_000), self._nodes()
        for name, node in nodes.items():
            graph.add_node(name, node)
        graph.add_edge(START, "n0")
        graph.add_conditional_edges("n0", lambda state: "n0" if nodes["n0"].left else END, ["n0", END])
        for i, (sources, rule) in enumerate(zip(self.sources, self.rules, strict=True)):
            names = [f"n{s}" for s in sources]
            if rule == "edges":
                for name in names:
                    graph.add_edge(name, f"n{i}")
            elif names:
                graph.add_trigger(f"n{i}", (all_of if rule == "all_of" else any_of)(*names))
        return graph.compile()

    def supersteps(self) -> Any:
        """By hand: after each superstep a router starts every node for which an item waits."""

        def due(state: State) -> list[str]:
            done = Counter(state["log"])
            feed = ["n0"] * (done[0] < len(self.latency[0]))
            return feed + [f"n{i}" for i in range(1, len(self.rules)) if done[i] < self._waiting(i, done)] or [END]

        graph, nodes = StateGraph(State), self._nodes()
        graph.add_node("route", lambda state: {})
        graph.add_edge(START, "route")
        graph.add_conditional_edges("route", due, [*nodes, END])
        for name, node in nodes.items():
            graph.add_node(name, node)
            graph.add_edge(name, "route")
        return graph.compile()

    def _nodes(self) -> dict[str, _Worker]:
        return {f"n{i}": _Worker(i, latency) for i, latency in enumerate(self.latency)}


class _Worker:
    """A node whose activations take these seconds."""

    def __init__(self, number: int, latency: list[float]) -> None:
        self.number, self.left = number, list(latency)

    async def __call__(self, state: State) -> State:
        await asyncio.sleep(self.left.pop(0))
        return {"log": [self.number]}


async def seconds(graph: Any, activations: int) -> float:
    """How long one run takes."""
    begin = time.perf_counter()
    result = await graph.ainvoke({"log": []})
    taken = time.perf_counter() - begin
    assert len(result["log"]) == activations
    return taken


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
            ratios[name].append(await seconds(plan.build(kind, **options), nodes) / plan.critical_path())
    return ratios


async def event_makespans(graphs: int, nodes: int, *, pipeline: bool) -> dict[str, list[float]]:
    """The same for graphs of events."""
    rng = random.Random(7)
    ratios: dict[str, list[float]] = {"with triggers": [], "StateGraph": []}
    for _ in range(graphs):
        plan = Events(nodes, 6, rng, pipeline=pipeline)
        count, critical = sum(map(len, plan.latency)), plan.critical_path()
        ratios["with triggers"].append(await seconds(plan.triggered(), count) / critical)
        ratios["StateGraph"].append(await seconds(plan.supersteps(), count) / critical)
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
            best = min([await seconds(graph, nodes) for _ in range(3)])
            print(f"{shape} of {nodes}, {name:17}: {best / nodes * 1e3:.3f} ms a node")


def main() -> None:
    """Print the ratios and the costs."""
    graphs, nodes = (int(argument) for argument in (sys.argv[1:] + ["12", "24"][len(sys.argv) - 1 :])[:2])
    show("Dag", asyncio.run(makespans(graphs, nodes)))
    show("events", asyncio.run(event_makespans(graphs, nodes // 2, pipeline=False)))
    show("pipeline", asyncio.run(event_makespans(graphs, max(nodes // 4, 2), pipeline=True)))
    asyncio.run(costs(60))


def show(shape: str, ratios: dict[str, list[float]]) -> None:
    """Print the ratios of one kind of graphs."""
    for name, of_graphs in ratios.items():
        median, worst = statistics.median(of_graphs), max(of_graphs)
        print(f"{shape:8}, {name:17}: median {median:.3f}, worst {worst:.3f} of the critical path")


if __name__ == "__main__":
    main()
