"""What an activated node sees is what led to it, and the state at the end does not depend on timing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.errors import InvalidUpdateError
from langgraph.graph import END, START
from langgraph.types import Command

from agentmatrix import CyclicGraph, Dag, all_of, any_of, at_least, get_activation
from tests.scheduling.stage import Stage, State, performance, play


@dataclass(frozen=True)
class Plot:
    """A random Dag. Node i leads only to nodes with a higher number.

    Attributes:
        added: the nodes, in the order of add_node.
        joins: by node, its sources; an edge join or a trigger group of all of them that tolerates skips.
        triggered: the nodes whose join is a group.
        routed: by node that only a router leads to, the router's node and whether it does.
        plain: by node, the plain keys that it writes.
    """

    added: Sequence[int]
    joins: dict[int, frozenset[int]]
    triggered: frozenset[int]
    routed: dict[int, tuple[int, bool]]
    plain: dict[int, frozenset[str]]

    def sources(self, node: int) -> frozenset[int]:
        return frozenset({self.routed[node][0]}) if node in self.routed else self.joins[node]

    def ancestors(self) -> dict[int, frozenset[int]]:
        """Those that run, each with all that led to it."""
        ran: dict[int, frozenset[int]] = {}
        for node in sorted(self.added):
            came = {source for source in self.sources(node) if source in ran}
            if node in self.routed and not self.routed[node][1]:
                came = set()
            if came or not self.sources(node):
                ran[node] = frozenset(came).union(*(ran[source] for source in came))
        return ran

    def written(self, nodes: Iterable[int]) -> dict[str, Any]:
        """The state in which these have written: by causal depth, then by name."""
        depths: dict[int, int] = {}
        for node, before in self.ancestors().items():
            depths[node] = 1 + max((depths[other] for other in before), default=0)
        order = sorted(nodes, key=lambda node: (depths[node], f"n{node}"))
        state: dict[str, Any] = {"log": [f"n{node}" for node in order]}
        for node in order:
            state |= dict.fromkeys(self.plain[node], f"n{node}")
        return state

    def collides(self) -> bool:
        ran = self.ancestors()
        return any(
            self.plain[a] & self.plain[b] and a not in ran[b] and b not in ran[a] for a in ran for b in ran if a < b
        )

    def graph(self, stage: Stage, seen: dict[str, Any]) -> Dag:
        dag = Dag(State)
        for node in self.added:
            dag.add_node(f"n{node}", writer(stage, seen, f"n{node}", self.plain[node]))
        for node in self.added:
            names = [f"n{source}" for source in sorted(self.sources(node))]
            if node in self.routed:
                dag.add_conditional_edges(names[0], router(node, self.routed[node][1]), [f"n{node}", END])
            elif node in self.triggered and names:
                dag.add_trigger(f"n{node}", all_of(*names, skipped="ok"))
            else:
                for name in names:
                    dag.add_edge(name, f"n{node}")
        return dag


def writer(stage: Stage, seen: dict[str, Any], name: str, plain: frozenset[str]) -> Any:
    async def node(state: State) -> State:
        seen[name] = dict(state)
        await stage.hold(name)
        return {"log": [name], **dict.fromkeys(plain, name)}  # type: ignore[typeddict-item]

    return node


def router(node: int, taken: bool) -> Any:
    async def route(state: State) -> str:
        return f"n{node}" if taken else END

    route.__name__ = f"to_n{node}"
    return route


@st.composite
def plots(draw: st.DrawFn, conflicts: bool) -> Plot:
    count = draw(st.integers(3, 8))
    joins, routed, plain = {}, {}, {}
    for node in range(count):
        earlier = st.integers(0, node - 1)
        if node and draw(st.integers(0, 4)) == 0:
            routed[node] = (draw(earlier), draw(st.booleans()))
        joins[node] = draw(st.frozensets(earlier, max_size=3)) if node else frozenset()
        plain[node] = draw(st.frozensets(st.sampled_from("xy"))) if conflicts else frozenset()
    triggered = draw(st.frozensets(st.integers(0, count - 1)))
    return Plot(draw(st.permutations(range(count))), joins, triggered, routed, plain)


async def run_in_any_order(plot: Plot, data: st.DataObject) -> tuple[Any, dict[str, Any]]:
    stage, seen = Stage(), dict[str, Any]()
    async with performance(stage, plot.graph(stage, seen).compile()) as play:
        while True:
            await play.quiet()
            if not stage.running:
                break
            stage.release(data.draw(st.sampled_from(sorted(stage.running))))
        async with asyncio.timeout(100):
            return await play.run, seen


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(conflicts=False), data=st.data())
async def test_the_order_of_completion_changes_nothing(plot: Plot, data: st.DataObject) -> None:
    result, seen = await run_in_any_order(plot, data)
    ran = plot.ancestors()
    assert seen == {f"n{node}": plot.written(before) for node, before in ran.items()}
    assert result == plot.written(ran)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(conflicts=True), data=st.data())
async def test_unordered_writers_of_a_plain_key_raise_in_every_order(plot: Plot, data: st.DataObject) -> None:
    if plot.collides():
        with pytest.raises(InvalidUpdateError, match="'[xy]'.*'n"):
            await run_in_any_order(plot, data)
    else:
        result, seen = await run_in_any_order(plot, data)
        assert result == plot.written(plot.ancestors())
        assert seen == {f"n{node}": plot.written(before) for node, before in plot.ancestors().items()}


@pytest.mark.parametrize("order", ["abc", "bac", "cab", "cba"])
async def test_who_was_not_consumed_is_not_seen(order: str) -> None:
    stage, dag = Stage(), Dag(State)
    for name in "abc":
        stage.add_participant(dag, name)
    groups = {"one": any_of("a", "b", "c"), "two": at_least(2, "a", "b", "c")}
    for name, group in groups.items():
        dag.add_node(name, stage.target(name))
        dag.add_trigger(name, group)
    played = await play(dag.compile(), stage, [(label, True) for label in order])
    logs = {seen.node: seen.log for seen in stage.seen}
    assert sorted(logs["one"]) == [order[0], f"pick_{order[0]}"]
    assert sorted(logs["two"]) == sorted([*order[:2], f"pick_{order[0]}", f"pick_{order[1]}"])
    assert sorted(played.result["log"]) == sorted([*"abc", "pick_a", "pick_b", "pick_c", "one", "two"])


@pytest.mark.parametrize("kind", ["gate", "latest", "optional"])
async def test_what_was_read_or_let_through_is_seen(kind: str) -> None:
    for order, came in (("ba", True), ("ab", kind == "gate")):
        stage, dag = Stage(), Dag(State)
        for name in "ab":
            stage.add_participant(dag, name)
        dag.add_node("t", stage.target("t"))
        dag.add_trigger("t", any_of("a", **{kind: "b"}))  # type: ignore[arg-type]
        await play(dag.compile(), stage, [(label, True) for label in order])
        assert [set(seen.log) for seen in stage.seen] == [
            {"a", "pick_a", "b", "pick_b"} if came else {"a", "pick_a"},
        ]
        assert [set(seen.items) for seen in stage.seen] == [{"a", "b"} if came else {"a"}]


async def test_a_writer_after_a_consumed_source_may_overwrite_it_and_one_beside_it_may_not() -> None:
    # A sync node would run in a thread, which `play` does not wait for.
    async def late(state: State) -> State:
        return {"x": "late"}

    async def t(state: State) -> State:
        return {"x": f"t after {state.get('x')}"}

    for order in ("ab", "ba"):
        stage, dag = Stage(), Dag(State)
        for name in "ab":
            stage.add_participant(dag, name)
        dag.add_node("late", late)
        dag.add_edge("b", "late")
        dag.add_node("t", t)
        dag.add_trigger("t", any_of("a", "late"))
        played = await play(dag.compile(), stage, [(label, True) for label in order])
        if order == "ba":
            assert played.result["x"] == "t after late"
        else:
            assert isinstance(played.error, InvalidUpdateError)


async def test_the_items_are_the_same_whether_or_not_the_state_shows_them() -> None:
    """An item is what its source wrote, also where the node reads other keys."""

    class Narrow(State):
        pass

    dag = Dag(State)
    dag.add_node("a", lambda state: {"log": ["a"], "x": "of a"})
    dag.add_node("t", lambda state: {"log": [get_activation().items["a"]["x"]]}, input_schema=Narrow)
    dag.add_trigger("t", "a")
    assert (await dag.compile().ainvoke({"log": []}))["log"] == ["a", "of a"]


def counting(count: int, *, concurrent: bool) -> CyclicGraph:
    """A producer of `count` items, and a consumer that says what it sees."""

    async def p(state: State) -> Command[Any]:
        number = get_activation().number
        return Command(update={"log": [f"p{number}"]}, goto="p" if number < count else ())

    async def c(state: State) -> State:
        return {"log": [f"c{get_activation().number}({','.join(word.split('(')[0] for word in state['log'])})"]}

    graph = CyclicGraph(State)
    graph.add_node("p", p, destinations=("p",))
    graph.add_node("c", c)
    graph.add_edge(START, "p")
    graph.add_trigger("c", "p", concurrent=concurrent)
    return graph


async def test_in_a_cycle_an_activation_sees_its_own_earlier_ones() -> None:
    result = await counting(3, concurrent=False).compile().ainvoke({"log": []})
    said = {word.split("(")[0]: word for word in result["log"]}
    assert set(said["c1"][3:-1].split(",")) == {"p1"}
    assert set(said["c2"][3:-1].split(",")) == {"p1", "p2", "c1"}
    assert set(said["c3"][3:-1].split(",")) == {"p1", "p2", "p3", "c1", "c2"}


async def test_activations_that_may_be_concurrent_do_not_see_each_other() -> None:
    result = await counting(3, concurrent=True).compile().ainvoke({"log": []})
    assert result["log"] == ["p1", "c1(p1)", "p2", "c2(p1,p2)", "p3", "c3(p1,p2,p3)"]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
async def test_cycles_fold_by_causal_depth_then_name_then_number(order: Sequence[int]) -> None:
    """`a` and `b` start at once; `c` has an activation for each item. The order of ending changes nothing."""
    stage, graph = Stage(), CyclicGraph(State)

    async def c(state: State) -> State:
        (label,) = get_activation().items
        await stage.hold(f"c of {label}")
        return {"log": [f"c of {label}"]}

    async def join(state: State) -> State:
        return {"log": [f"join {' '.join(state['log'])}"]}

    graph.add_node("join", join)
    graph.add_node("c", c)
    for name in "zyx":
        graph.add_node(name, lambda state, name=name: {"log": [name]})
        graph.add_edge(START, name)
    graph.add_trigger("c", "x", "y", "z", concurrent=True)
    graph.add_trigger("join", all_of("x", "y", "z"))
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await stage.until("c of x", "c of y", "c of z")
    for i in order:
        stage.release(f"c of {'xyz'[i - 1]}")
        await stage.quiet(run)
    result = await run
    log = result["log"]
    assert log[:3] == ["x", "y", "z"]
    assert sorted(log[3:6]) == ["c of x", "c of y", "c of z"]
    assert log[6:] == ["join x y z"]


async def test_in_a_cycle_unordered_writers_raise_and_ordered_ones_do_not() -> None:
    def graph(concurrent: bool) -> CyclicGraph:
        graph = CyclicGraph(State)
        for name in "ab":
            graph.add_node(name, lambda state: {})
            graph.add_edge(START, name)
        graph.add_node("c", lambda state: {"x": f"{get_activation().number}"})
        graph.add_trigger("c", "a", "b", concurrent=concurrent)
        return graph

    assert (await graph(False).compile().ainvoke({"log": []}))["x"] == "2"
    with pytest.raises(InvalidUpdateError, match="'x'.*'c'"):
        await graph(True).compile().ainvoke({"log": []})
