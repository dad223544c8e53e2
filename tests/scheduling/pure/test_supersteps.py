"""The rules of supersteps against LangGraph itself."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from agentmatrix.errors import BoundError
from agentmatrix.scheduling import graph_scheduler
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.superstep_rules import SuperstepRules
from agentmatrix.scheduling.topology import Topology, join_key
from tests.scheduling.pure.driver import Driver


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


@dataclass(frozen=True)
class Plot:
    """A graph with loops.

    Attributes:
        nodes: in the order of add_node.
        edges: those that are always taken.
        routes: by node: where its router leads at its first, second, ... visit, and how many Sends it makes to whom.
        joins: several sources and a target.
        deferred: the nodes that wait for the end.
    """

    nodes: tuple[str, ...]
    edges: Mapping[str, tuple[str, ...]]
    routes: Mapping[str, tuple[tuple[str, int], ...]]
    joins: tuple[tuple[tuple[str, ...], str], ...]
    deferred: frozenset[str]

    def route(self, node: str, log: list[str]) -> list[Any]:
        visits = log.count(node)
        if not 0 < visits <= len(self.routes.get(node, ())):
            return []
        target, sends = self.routes[node][visits - 1]
        return [Send(target, {"log": [f"{node}.{i}"]}) for i in range(sends)] or [target]

    def graph(self) -> Any:
        graph = StateGraph(State)
        for node in self.nodes:
            graph.add_node(node, says(node), defer=node in self.deferred)
        graph.add_edge(START, self.nodes[0])
        for source, targets in self.edges.items():
            for target in targets:
                graph.add_edge(source, target)
        for source in self.routes:
            graph.add_conditional_edges(source, lambda state, source=source: self.route(source, state["log"]))
        for sources, target in self.joins:
            graph.add_edge(list(sources), target)
        return graph.compile()

    def topology(self) -> Topology:
        joins: dict[str, tuple[tuple[str, ...], ...]] = {}
        for sources, target in self.joins:
            joins[target] = (*joins.get(target, ()), sources)
        anywhere = dict.fromkeys(self.routes, self.nodes)
        return Topology(
            START, self.nodes, self.edges, anywhere, deferred=self.deferred, joins=joins, max_rounds=25, deaf=True
        )

    def driver(self) -> Driver:
        def behaves(activation: ScheduledActivation) -> NodeResult:
            node = activation.node
            log = [*driver[0].scheduler.view(activation)["log"].get(), node]
            chosen = self.route(node, log)
            targets = [*self.edges.get(node, ()), *(target for target in chosen if isinstance(target, str))]
            sends = [send for send in chosen if isinstance(send, Send)]
            joins = [(join_key(sources, target), target) for sources, target in self.joins if node in sources]
            return NodeResult([("log", [node])], list(dict.fromkeys(targets)), sends, joins)

        driver: list[Driver] = []
        driver.append(Driver(self.topology(), SuperstepRules, behaves, self.nodes[:1]))
        return driver[0]


def says(node: str) -> Any:
    return lambda state: {"log": [node]}


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    nodes = tuple(f"n{i}" for i in draw(st.permutations(range(draw(st.integers(2, 5))))))
    edges = {
        node: tuple(sorted(draw(st.frozensets(st.sampled_from(nodes[i + 1 :]), max_size=2)))) if nodes[i + 1 :] else ()
        for i, node in enumerate(nodes)
    }
    routes = {
        node: tuple(
            (draw(st.sampled_from(nodes)), draw(st.sampled_from([0, 0, 1, 2]))) for _ in range(draw(st.integers(1, 3)))
        )
        for node in nodes
        if draw(st.booleans())
    }
    joins = tuple(
        {
            (tuple(sorted(sources)), nodes[-1])
            for sources in draw(
                st.lists(st.frozensets(st.sampled_from(nodes[:-1]), min_size=2, max_size=3), max_size=2)
            )
        }
        if len(nodes) > 2
        else ()
    )
    return Plot(nodes, edges, routes, joins, draw(st.frozensets(st.sampled_from(nodes[1:]), max_size=1)))


@pytest.mark.parametrize("compact_at", [1, 256])
@settings(max_examples=50, deadline=None)
@given(plot=plots(), data=st.data())
def test_the_steps_are_langgraphs(plot: Plot, data: st.DataObject, compact_at: int) -> None:
    """The order in which the activations of a step end changes nothing, a crash and a compacted log neither."""
    try:
        expected = plot.graph().invoke({"log": []}, {"recursion_limit": 60})["log"]
    except RecursionError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_scheduler, "_COMPACT_AT", compact_at)
        driver = plot.driver()
        while driver.running and not driver.errors:
            driver.end(data.draw(st.sampled_from(sorted(driver.running))))
        assert driver.errors or driver.final() == expected


def test_a_loop_without_end_is_stopped_and_named() -> None:
    plot = Plot(("a", "b"), {"a": ("b",)}, {"b": (("a", 0),) * 100}, (), frozenset())
    driver = plot.driver()
    while not driver.errors:
        driver.end(next(iter(driver.running)))
    ((node, error),) = driver.errors
    assert isinstance(error, BoundError)
    assert "the loop a -> b -> a has gone round 25 times in this run without an end" in str(error)
    assert "give its router a way to '__end__' that it takes" in str(error)
    assert driver.final() == ["a", "b"] * 25
