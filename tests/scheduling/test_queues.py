"""Triggers in a CyclicGraph: items wait in queues, none is lost, none is used twice, whatever the order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.types import Command

from agentmatrix import CyclicGraph, all_of, any_of, at_least, get_activation
from agentmatrix.errors import BoundError, BuildError, TriggerError
from tests.scheduling.cyclic_rules import Activation, Cycles
from tests.scheduling.rules import Group
from tests.scheduling.stage import Stage, State, performance, seen_by, thread


@dataclass(frozen=True)
class Plot:
    """Producers that make so many items each, and consumers of what they and earlier consumers make."""

    makes: dict[str, int]
    consumers: dict[str, Sequence[Group]]
    concurrent: frozenset[str]

    def model(self) -> Cycles:
        edges: dict[str, Sequence[Group | str]] = {name: [START, name] for name in self.makes}
        return Cycles({**edges, **self.consumers}, self.concurrent)

    def graph(self, stage: Stage) -> CyclicGraph:
        graph = CyclicGraph(State)
        for name, count in self.makes.items():
            graph.add_node(name, producer(stage, name, count), destinations=(name,))
            graph.add_edge(START, name)
        for name, groups in self.consumers.items():
            graph.add_node(name, consumer(stage))
            graph.add_trigger(name, *(group.built() for group in groups), concurrent=name in self.concurrent)
        return graph


def producer(stage: Stage, name: str, count: int) -> Callable[[Any], Any]:
    async def run(state: State) -> Command[Any]:
        number = get_activation().number
        await stage.hold(f"{name}#{number}")
        return Command(update={"log": [f"{name}#{number}"]}, goto=name if number < count else ())

    return run


def consumer(stage: Stage) -> Callable[[Any], Any]:
    async def run(state: State) -> State:
        seen = seen_by(state)
        stage.seen.append(seen)
        await stage.hold(f"{seen.node}#{seen.number}")
        return {"log": [f"{seen.node}#{seen.number}"]}

    return run


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    makes = {f"p{i}": draw(st.integers(1, 4)) for i in range(draw(st.integers(1, 3)))}
    names = [f"c{i}" for i in range(draw(st.integers(1, 3)))]
    consumers: dict[str, Sequence[Group]] = {}
    tolerant: set[str] = set()
    for name in names:
        sources = [label for label in (*makes, *consumers) if label not in tolerant]
        groups = [draw(groups_over(sources, f"{name} {i}")) for i in range(draw(st.integers(1, 2)))]
        if draw(st.integers(0, 3)) == 0:
            # What fires at the end leads to nothing and is not concurrent: how many would start at once is not said.
            tolerant.add(name)
            groups = [Group(**{**vars(groups[0]), "skipped": "ok"})]
        consumers[name] = groups
    return Plot(makes, consumers, frozenset(draw(st.sets(st.sampled_from(names))) - tolerant))


@st.composite
def groups_over(draw: st.DrawFn, labels: list[str], name: str) -> Group:
    order = draw(st.permutations(labels))
    count = draw(st.integers(1, len(order)))
    kind = draw(st.sampled_from(["all_of", "any_of", "at_least"]))
    roles = ["latest", "optional"] if kind == "any_of" else ["gate", "latest", "optional"]
    others: dict[str, tuple[str, ...]] = {}
    for label in order[count:]:
        role = draw(st.sampled_from(["", *roles]))
        if role:
            others[role] = (*others.get(role, ()), label)
    k = draw(st.integers(1, count)) if kind == "at_least" else 0
    return Group(kind, tuple(order[:count]), k, **others, name=name)  # type: ignore[arg-type]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(), data=st.data())
async def test_no_item_is_lost_or_used_twice(plot: Plot, data: st.DataObject) -> None:
    """The test says which activation ends next; after each, exactly those run that the rules say."""
    stage, model = Stage(), plot.model()
    async with performance(stage, plot.graph(stage).compile()) as play:
        for name in plot.makes:
            model.lead(START, name, "in")
        lacking: list[tuple[str, str]] = []
        while True:
            await play.quiet()
            if not model.running and not lacking:
                lacking, fired = model.rest()
                if not fired:
                    break
                await play.quiet()
            if not lacking:
                assert set(stage.running) == set(model.running)
            if not model.running:
                break
            key = data.draw(st.sampled_from(sorted(model.running)))
            ended = model.running[key]
            stage.release(key)
            arrive(plot, model, ended)
        if lacking:
            with pytest.raises(TriggerError) as raised:
                await play.run
            assert (raised.value.node, raised.value.group) in lacking
            assert raised.value.skipped
            assert 'skipped="ok"' in str(raised.value)
            return
        result = await play.run
        assert sorted(result["log"]) == sorted(activation.key for activation in model.begun)
    told = [activation for activation in model.begun if activation.node in plot.consumers]
    assert len(told) == len(stage.seen)
    for activation in told:
        (seen,) = [s for s in stage.seen if (s.node, s.number) == (activation.node, activation.number)]
        assert seen.group == activation.group
        assert seen.items == {label: {"log": [item]} for label, item in activation.items.items()}
    check_queues(plot, stage)


def arrive(plot: Plot, model: Cycles, ended: Activation) -> None:
    """What the end of an activation brings."""
    model.end(ended.key)
    model.deliver(ended.node, ended.key)
    if ended.node in plot.makes and ended.number < plot.makes[ended.node]:
        model.lead(ended.node, ended.node, ended.key)


def check_queues(plot: Plot, stage: Stage) -> None:
    """Without the model: each consumer has the items of a source in order, and none twice."""
    for name, groups in plot.consumers.items():
        consumed = {label for group in groups for label in (*group.sources, *group.gate, *group.optional)}
        activations = sorted((seen for seen in stage.seen if seen.node == name), key=lambda seen: seen.number)
        assert [seen.number for seen in activations] == list(range(1, len(activations) + 1))
        for label in consumed - {label for group in groups for label in group.latest}:
            had = [seen.items[label]["log"][0] for seen in activations if label in seen.items]
            due = [f"{label}#{i + 1}" for i in range(len(had))]
            # Activations that run at once deliver as they end.
            assert had == due if label not in plot.concurrent else len(set(had)) == len(had)


def line(stage: Stage, count: int, *groups: Any, concurrent: bool = False, makers: str = "p") -> CyclicGraph:
    """Producers that nothing holds and a consumer `c` that the test holds."""
    graph = CyclicGraph(State)
    for name in makers:
        stage.let_go |= {f"{name}#{i}" for i in range(1, count + 1)}
        graph.add_node(name, producer(stage, name, count), destinations=(name,))
        graph.add_edge(START, name)
    graph.add_node("c", consumer(stage))
    graph.add_trigger("c", *groups, concurrent=concurrent)
    return graph


async def test_one_activation_at_a_time() -> None:
    stage = Stage()
    run = asyncio.ensure_future(line(stage, 5, "p").compile().ainvoke({"log": []}))
    for i in range(1, 6):
        await stage.until(f"c#{i}")
        await stage.quiet(run)
        assert set(stage.running) == {f"c#{i}"}
        stage.release(f"c#{i}")
    await run
    assert [seen.items["p"]["log"] for seen in stage.seen] == [[f"p#{i}"] for i in range(1, 6)]


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5), (5, 4, 3, 2, 1), (2, 5, 1, 3, 4)])
async def test_as_many_activations_as_complete(order: Sequence[int]) -> None:
    stage = Stage()
    graph = line(stage, 5, "p", concurrent=True).compile()
    run = asyncio.ensure_future(graph.ainvoke({"log": []}))
    await stage.until(*(f"c#{i}" for i in range(1, 6)))
    for i in order:
        stage.release(f"c#{i}")
        await stage.quiet(run)
    result = await run
    assert sorted((seen.number, *seen.items["p"]["log"]) for seen in stage.seen) == [(i, f"p#{i}") for i in range(1, 6)]
    assert sorted(result["log"]) == sorted(f"{node}#{i}" for node in "pc" for i in range(1, 6))


async def test_the_newest_item_is_read_and_stays() -> None:
    stage = Stage()
    graph = line(stage, 3, any_of("p", latest="q"), makers="pq")
    stage.let_go -= {"p#1", "p#2", "p#3", "q#2", "q#3"}
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    for release in ("p#1", "c#1", "p#2", "c#2", "q#2", "q#3", "p#3", "c#3"):
        await stage.until(release)
        await stage.quiet(run)
        stage.release(release)
    await run
    assert [seen.items["q"]["log"] for seen in stage.seen] == [["q#1"], ["q#1"], ["q#3"]]


async def test_an_optional_item_is_taken_once() -> None:
    stage = Stage()
    graph = line(stage, 3, any_of("p", optional="q"), makers="pq")
    stage.let_go -= {"p#1", "p#2", "p#3", "q#2", "q#3"}
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    for release in ("p#1", "c#1", "p#2", "c#2", "q#2", "q#3", "p#3", "c#3"):
        await stage.until(release)
        await stage.quiet(run)
        stage.release(release)
    await run
    assert [seen.items.get("q", {}).get("log") for seen in stage.seen] == [["q#1"], None, ["q#2"]]


async def test_a_gate_lets_one_activation_through_for_each_item() -> None:
    stage = Stage()
    graph = line(stage, 2, all_of("p", gate="q"), makers="pq")
    stage.let_go -= {"q#1", "q#2"}
    stage.let_go |= {"c#1", "c#2"}
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await stage.quiet(run)
    for i in (1, 2):
        assert len(stage.seen) == i - 1
        await stage.until(f"q#{i}")
        stage.release(f"q#{i}")
        await stage.quiet(run)
    await run
    assert [(seen.items["p"]["log"], seen.items["q"]["log"]) for seen in stage.seen] == [
        (["p#1"], ["q#1"]),
        (["p#2"], ["q#2"]),
    ]


def uneven(stage: Stage, group: Any) -> CyclicGraph:
    """Three items of `p` and one of `q` for the consumer `c`; nothing is held."""
    graph = CyclicGraph(State)
    for name, count in {"p": 3, "q": 1}.items():
        graph.add_node(name, producer(stage, name, count), destinations=(name,))
        graph.add_edge(START, name)
    graph.add_node("c", consumer(stage))
    graph.add_trigger("c", group)
    stage.let_go |= {f"{name}#{i}" for name in "pqc" for i in range(1, 4)}
    return graph


@pytest.mark.parametrize("saver", [None, InMemorySaver()])
@pytest.mark.parametrize("group", [all_of("p", "q", name="pairs"), at_least(2, "p", "q", name="pairs")])
async def test_left_overs_of_a_group_that_demands_are_an_error(group: Any, saver: Any) -> None:
    stage = Stage()
    with pytest.raises(TriggerError, match="pairs") as raised:
        await uneven(stage, group).compile(saver).ainvoke({"log": []}, thread(id(group)))
    assert (raised.value.node, raised.value.group, raised.value.skipped) == ("c", "pairs", ("q",))
    assert [set(seen.items) for seen in stage.seen] == [{"p", "q"}]


@pytest.mark.parametrize("kind", [all_of, at_least])
async def test_left_overs_fire_with_what_is_there_where_skips_are_ok(kind: Any) -> None:
    stage = Stage()
    group = all_of("p", "q", skipped="ok") if kind is all_of else at_least(2, "p", "q", skipped="ok")
    result = await uneven(stage, group).compile().ainvoke({"log": []})
    assert [set(seen.items) for seen in stage.seen] == [{"p", "q"}, {"p"}, {"p"}]
    assert sorted(result["log"]) == ["c#1", "c#2", "c#3", "p#1", "p#2", "p#3", "q#1"]


async def test_what_is_optional_or_latest_may_be_left() -> None:
    stage = Stage()
    graph = line(stage, 3, all_of("p", optional="q"), makers="pq")
    stage.let_go |= {"c#1", "c#2", "c#3"}
    assert len((await graph.compile().ainvoke({"log": []}))["log"]) == 9
    never = CyclicGraph(State)
    never.add_node("q", lambda state: {"log": ["q"]})
    never.add_node("p", lambda state: Command(goto=()), destinations=("q",))
    never.add_node("c", lambda state: {"log": ["c"]})
    never.add_edge(START, "p")
    never.add_trigger("c", any_of("p", optional="q"))
    assert (await never.compile().ainvoke({"log": []}))["log"] == ["c"]


def revisions(rounds: int, **options: Any) -> CyclicGraph:
    """A writer and a critic that trigger each other; the critic's router decides."""

    def writer(state: State) -> State:
        return {"log": [f"draft {get_activation().number}"]}

    def revise(state: State) -> Literal["revise", "publish"]:
        return "revise" if len(state["log"]) < rounds else "publish"

    graph = CyclicGraph(State, **options)
    graph.add_node("writer", writer)
    graph.add_node("critic", lambda state: {})
    graph.add_node("revise", lambda state: {})
    graph.add_node("publish", lambda state: {"log": ["published"]})
    graph.add_trigger("writer", any_of(START, "revise"))
    graph.add_trigger("critic", all_of("writer"))
    graph.add_conditional_edges("critic", revise, ["revise", "publish"])
    return graph


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_loops_through_triggers_end(asynchronous: bool) -> None:
    graph = revisions(20).compile()
    result = await graph.ainvoke({"log": []}) if asynchronous else graph.invoke({"log": []})
    assert result["log"] == [*(f"draft {i}" for i in range(1, 21)), "published"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_loop_without_end_is_stopped(asynchronous: bool) -> None:
    graph = revisions(1000).compile()
    with pytest.raises(BoundError, match=r"writer.*25.*max_rounds"):
        _ = await graph.ainvoke({"log": []}) if asynchronous else graph.invoke({"log": []})
    with pytest.raises(BoundError, match=r"writer.*7.*max_rounds"):
        revisions(1000, max_rounds=7).compile().invoke({"log": []})
    assert len(revisions(40).compile(max_rounds=40).invoke({"log": []})["log"]) == 41


async def test_many_items_are_no_loop() -> None:
    """The bound counts one causal chain: here 40 producers bring one item each."""
    graph = CyclicGraph(State)
    names = [f"p{i}" for i in range(40)]
    for name in names:
        graph.add_node(name, lambda state, name=name: {"log": [name]})
        graph.add_edge(START, name)
    graph.add_node("c", lambda state: {"log": [f"c#{get_activation().number}"]})
    graph.add_trigger("c", any_of(*names))
    log = (await graph.compile().ainvoke({"log": []}))["log"]
    assert {f"c#{i}" for i in range(1, 41)} <= set(log)


def test_supersteps_are_for_graphs_without_triggers_only() -> None:
    with pytest.raises(BuildError, match="barriers"):
        revisions(2).compile(barriers=True)
    graph = CyclicGraph(State)
    graph.add_node("a", lambda state: {})
    graph.add_edge(START, "a")
    with pytest.raises(BuildError, match="barriers"):
        graph.compile(barriers=False)
    assert graph.compile(barriers=True)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_concurrency_of_one_ends(asynchronous: bool) -> None:
    graph = CyclicGraph(State)
    for name in "pq":
        graph.add_node(name, lambda state, name=name: {"log": [name]})
        graph.add_edge(START, name)
    graph.add_node("c", lambda state: {"log": [f"c#{get_activation().number}"]})
    graph.add_trigger("c", "p", "q", concurrent=True)
    config: Any = {"max_concurrency": 1}
    compiled = graph.compile()
    result = await compiled.ainvoke({"log": []}, config) if asynchronous else compiled.invoke({"log": []}, config)
    assert sorted(result["log"]) == ["c#1", "c#2", "p", "q"]


async def test_each_edge_is_a_group_and_a_list_is_a_join() -> None:
    stage, graph = Stage(), CyclicGraph(State)
    for name in "pq":
        graph.add_node(name, stage.target(name))
        graph.add_edge(START, name)
    for name in ("each", "both", "t"):
        graph.add_node(name, stage.target(name))
    graph.add_edge("p", "each")
    graph.add_edge("q", "each")
    graph.add_edge(["p", "q"], "both")
    graph.add_trigger("t", all_of("p", "q", name="the graph has triggers"))
    await graph.compile().ainvoke({"log": []})
    counted = {name: sum(seen.node == name for seen in stage.seen) for name in ("each", "both", "t")}
    assert counted == {"each": 2, "both": 1, "t": 1}
    assert {seen.group for seen in stage.seen if seen.node in ("each", "both")} == {None}
