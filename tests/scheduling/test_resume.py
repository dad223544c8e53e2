"""Pauses, crashes and streams of graphs with triggers: what was chosen stays chosen, what has finished runs no more."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.types import Command, interrupt

from agentmatrix import CyclicGraph, Dag, all_of, any_of, at_least, get_activation
from agentmatrix.errors import TriggerError
from tests.scheduling.rules import Group
from tests.scheduling.stage import Seen, Stage, State, performance, seen_by, thread
from tests.scheduling.test_queues import Plot, arrive, plots

sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
sqlite_aio = pytest.importorskip("langgraph.checkpoint.sqlite.aio")


@pytest.fixture(params=["memory", "sqlite"])
async def saver(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
    else:
        async with sqlite_aio.AsyncSqliteSaver.from_conn_string(":memory:") as opened:
            yield opened


def contest(stage: Stage, ending: Callable[[State], Any], *groups: Any, people: str = "abc") -> Dag:
    """`a`, `b` and `c` end when the test says so; `t` notes what it was told and ends as `ending` says."""
    dag = Dag(State)
    for name in people:
        dag.add_node(name, stage.held(name))

    async def t(state: State) -> State:
        stage.seen.append(seen_by(state))
        return await ending(state)  # type: ignore[no-any-return]

    dag.add_node("t", t)
    dag.add_trigger("t", *groups)
    return dag


async def asks(state: State) -> State:
    return {"log": [f"t {interrupt('go on?')}"]}


CHOICES: list[tuple[list[Any], str, str, set[str]]] = [
    ([any_of("a", "b", "c", name="first")], "cab", "first", {"c"}),
    ([at_least(2, "a", "b", "c", name="two")], "cba", "two", {"b", "c"}),
    ([all_of("a", "b", name="both"), any_of("c", name="alarm")], "cab", "alarm", {"c"}),
    ([any_of("b", optional="a", latest="c", name="bare")], "bac", "bare", {"b"}),
    ([any_of("b", optional="a", latest="c", name="read")], "cba", "read", {"b", "c"}),
    ([at_least(2, "a", "b", gate="c", name="gated")], "cba", "gated", {"a", "b", "c"}),
]


@pytest.mark.parametrize(("groups", "order", "group", "labels"), CHOICES)
async def test_a_resumed_activation_is_told_the_same(
    saver: Any, groups: Any, order: str, group: str, labels: set[str]
) -> None:
    """At the resume all have arrived, so that arrival alone would choose otherwise."""
    stage = Stage()
    graph = contest(stage, asks, *groups).compile(saver)
    run = asyncio.ensure_future(graph.ainvoke({"log": []}, thread()))
    await stage.until(*"abc")
    for name in order:
        stage.release(name)
        await _ended(stage, name)
    await run
    (first,) = stage.seen
    assert (first.number, first.group, set(first.items)) == (1, group, labels)
    state = await graph.aget_state(thread())
    assert state.next == ("t",)
    assert [(task.name, [i.value for i in task.interrupts]) for task in state.tasks] == [("t", ["go on?"])]
    assert sorted(state.values["log"]) == ["a", "b", "c"]
    result = await graph.ainvoke(Command(resume="yes"), thread())
    assert stage.seen == [first, first]
    assert sorted(result["log"]) == ["a", "b", "c", "t yes"]
    assert sorted(stage.ended) == ["a", "b", "c"]


async def _ended(stage: Stage, name: str) -> None:
    async with asyncio.timeout(100):
        while name not in stage.ended:
            await asyncio.sleep(0)
    for _ in range(20):
        await stage.quiet()


@pytest.mark.parametrize(("groups", "order", "group", "labels"), CHOICES)
async def test_a_crashed_activation_is_told_the_same(
    saver: Any, groups: Any, order: str, group: str, labels: set[str]
) -> None:
    """The node fails while a source that it did not wait for is still at work, or after all."""
    stage = Stage()
    broken = ["once"]

    async def fails(state: State) -> State:
        if broken:
            await stage.hold("fail")
            raise ValueError(broken.pop())
        return {"log": ["t"]}

    graph = contest(stage, fails, *groups).compile(saver)
    run = asyncio.ensure_future(graph.ainvoke({"log": []}, thread(), durability="sync"))
    await stage.until(*"abc")
    for name in order[:-1]:
        stage.release(name)
        await _ended(stage, name)
    if order[-1] in labels:
        stage.release(order[-1])
    await stage.until("fail")
    stage.release("fail")
    with pytest.raises(ValueError, match="once"):
        await run
    finished = list(stage.ended)
    state = await graph.aget_state(thread())
    assert set(state.next) == {"t", *"abc"} - set(finished)
    stage.release(*"abc")
    result = await graph.ainvoke(None, thread())
    assert sorted(result["log"]) == ["a", "b", "c", "t"]
    assert sorted(stage.ended) == ["a", "b", "c"]
    assert stage.seen[0] == stage.seen[1]
    assert (stage.seen[0].group, set(stage.seen[0].items)) == (group, labels)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_sync_runs_repeat_their_choices_too(kind: str) -> None:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    saver = InMemorySaver() if kind == "memory" else sqlite.SqliteSaver(connection)
    ran: list[str] = []
    seen: list[Seen] = []

    def late(state: State) -> State:
        ran.append("late")
        return {"log": ["late"]}

    def t(state: State) -> State:
        seen.append(seen_by(state))
        return {"log": [f"t {interrupt('?')}"]}

    dag = Dag(State)
    dag.add_node("early", lambda state: {"log": ["early"]})
    dag.add_node("late", late)
    dag.add_edge("early", "late")
    dag.add_node("t", t)
    dag.add_trigger("t", any_of("late", "early"))
    graph = dag.compile(saver)
    graph.invoke({"log": []}, thread())
    assert graph.get_state(thread()).next == ("t",)
    result = graph.invoke(Command(resume="yes"), thread())
    assert sorted(result["log"]) == ["early", "late", "t yes"]
    assert ran == ["late"]
    assert seen[0] == seen[1]
    assert seen[0].items == {"early": {"log": ["early"]}}
    connection.close()


class Crash(Exception):
    pass


def crashing(plot: Plot, stage: Stage, doomed: set[str]) -> CyclicGraph:
    """The graph of the plot, in which a node that is let go fails once if it is among the doomed."""
    graph = plot.graph(stage)
    hold = stage.hold

    async def held(key: str) -> None:
        await hold(key)
        if key in doomed:
            doomed.discard(key)
            stage.let_go.discard(key)
            raise Crash(key)

    stage.hold = held  # type: ignore[method-assign]
    return graph


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(), data=st.data())
async def test_crashes_lose_no_item_and_use_none_twice(plot: Plot, data: st.DataObject) -> None:
    """Any activation may fail; the next run goes on with just those that had not finished, and their items."""
    stage, model, doomed = Stage(), plot.model(), set[str]()
    graph = crashing(plot, stage, doomed).compile(InMemorySaver())
    async with performance(stage, graph, thread()) as play:
        for name in plot.makes:
            model.lead(START, name, "in")
        crashes, lacking = 0, list[tuple[str, str]]()
        while True:
            if not model.running and not lacking:
                lacking, _ = model.rest()
            if lacking or not model.running:
                break
            await play.quiet()
            assert set(stage.running) == set(model.running)
            key = data.draw(st.sampled_from(sorted(model.running)))
            if crashes < 3 and data.draw(st.integers(0, 3)) == 0:
                crashes += 1
                doomed.add(key)
                stage.release(key)
                with pytest.raises(Crash):
                    await play.run
                state = await graph.aget_state(thread())
                assert sorted(state.next) == sorted(activation.node for activation in model.running.values())
                play.go()
                continue
            ended = model.running[key]
            stage.release(key)
            arrive(plot, model, ended)
        if lacking:
            with pytest.raises(TriggerError):
                await play.run
            return
        result = await play.run
        assert sorted(result["log"]) == sorted(activation.key for activation in model.begun)
    by_key = {activation.key: activation for activation in model.begun}
    for seen in stage.seen:
        activation = by_key[f"{seen.node}#{seen.number}"]
        assert seen.group == activation.group
        assert seen.items == {label: {"log": [item]} for label, item in activation.items.items()}


async def test_an_interrupt_in_a_cycle_holds_up_nobody_else() -> None:
    stage, graph = Stage(), CyclicGraph(State)

    async def p(state: State) -> Command[Any]:
        number = get_activation().number
        stage.ended.append(f"p{number}")
        return Command(update={"log": [f"p{number}"]}, goto="p" if number < 3 else ())

    async def c(state: State) -> State:
        stage.seen.append(seen_by(state))
        number = get_activation().number
        return {"log": [f"c{number} {interrupt(number) if number == 2 else 'on its own'}"]}

    graph.add_node("p", p, destinations=("p",))
    graph.add_node("c", c)
    graph.add_edge(START, "p")
    graph.add_trigger("c", "p")
    compiled = graph.compile(InMemorySaver())
    paused = await compiled.ainvoke({"log": []}, thread())
    assert [i.value for i in paused["__interrupt__"]] == [2]
    assert (await compiled.aget_state(thread())).next == ("c",)
    result = await compiled.ainvoke(Command(resume="yes"), thread())
    assert sorted(result["log"]) == ["c1 on its own", "c2 yes", "c3 on its own", "p1", "p2", "p3"]
    assert stage.ended == ["p1", "p2", "p3"]
    told = [(seen.number, seen.items["p"]["log"]) for seen in stage.seen]
    assert told == [(1, ["p1"]), (2, ["p2"]), (2, ["p2"]), (3, ["p3"])]


async def test_a_new_run_on_the_thread_starts_anew() -> None:
    """Numbers count in one run, and nothing that was left in a queue reaches the next one."""
    numbers: list[tuple[int, set[str]]] = []

    def t(state: State) -> None:
        numbers.append((get_activation().number, set(get_activation().items)))

    for kind in (Dag, CyclicGraph):
        numbers.clear()
        graph = kind(State)
        for name in "ab":
            graph.add_node(name, lambda state, name=name: {"log": [name]})
            graph.add_edge(START, name)
        graph.add_edge("a", "b") if kind is Dag else None
        graph.add_node("t", t)
        graph.add_trigger("t", any_of("a", optional="b"))
        compiled = graph.compile(InMemorySaver())
        for _ in range(2):
            await compiled.ainvoke({"log": []}, thread())
        assert [number for number, _ in numbers] == [1, 1]


async def test_update_state_at_a_pause_edits_what_the_node_will_see() -> None:
    stage = Stage()
    stage.release(*"abc")

    async def shows(state: State) -> State:
        return {"log": [f"t {interrupt('?')} {state.get('x')}"]}

    graph = contest(stage, shows, all_of("a", "b")).compile(InMemorySaver())
    await graph.ainvoke({"log": []}, thread())
    assert (await graph.aget_state(thread())).next == ("t",)
    await graph.aupdate_state(thread(), {"x": "edited"})
    state = await graph.aget_state(thread())
    assert (state.next, state.values["x"]) == (("t",), "edited")
    await graph.ainvoke(None, thread())
    result = await graph.ainvoke(Command(resume="yes"), thread())
    assert result["log"][-1] == "t yes edited"
    assert sorted(stage.ended) == ["a", "b", "c"]
    assert len({(seen.number, seen.group, *seen.items) for seen in stage.seen}) == 1


async def test_update_state_stands_for_a_source() -> None:
    """The node that waits for it is triggered with the update as its item."""
    stage = Stage()
    stage.release("a", "c")
    dag = contest(stage, _says_t, all_of("a", "b", name="both"), people="ac")

    async def b(state: State) -> State:
        return {"log": [f"b {interrupt('?')}"]}

    dag.add_node("b", b)
    graph = dag.compile(InMemorySaver())
    await graph.ainvoke({"log": []}, thread())
    assert (await graph.aget_state(thread())).next == ("b",)
    await graph.aupdate_state(thread(), {"log": ["instead"]}, as_node="b")
    assert (await graph.aget_state(thread())).next == ("t",)
    result = await graph.ainvoke(None, thread())
    assert sorted(result["log"]) == ["a", "c", "instead", "t"]
    assert [seen.items for seen in stage.seen] == [{"a": {"log": ["a"]}, "b": {"log": ["instead"]}}]
    assert sorted(stage.ended) == ["a", "c"]


async def test_update_state_stands_for_the_triggered_node() -> None:
    stage = Stage()
    stage.release(*"abc")
    dag = contest(stage, asks, any_of("a", "b"))
    dag.add_node("u", stage.target("u"))
    dag.add_trigger("u", all_of("t"))
    graph = dag.compile(InMemorySaver())
    await graph.ainvoke({"log": []}, thread())
    await graph.aupdate_state(thread(), {"log": ["instead"]}, as_node="t")
    result = await graph.ainvoke(None, thread())
    assert sorted(result["log"]) == ["a", "b", "c", "instead", "u"]
    assert stage.seen[-1].items == {"t": {"log": ["instead"]}}


async def _says_t(state: State) -> State:
    return {"log": ["t"]}


@pytest.mark.parametrize("breakpoints", [{"interrupt_before": ["t"]}, {"interrupt_after": ["b"]}])
async def test_static_breakpoints_at_triggers(breakpoints: Any) -> None:
    stage = Stage()
    stage.release(*"abc")
    graph = contest(stage, _says_t, all_of("a", "b")).compile(InMemorySaver(), **breakpoints)
    await graph.ainvoke({"log": []}, thread())
    assert (await graph.aget_state(thread())).next == ("t",)
    assert stage.seen == []
    result = await graph.ainvoke(None, thread())
    assert result["log"][-1] == "t"
    assert sorted(stage.ended) == ["a", "b", "c"]


def sequence(**options: Any) -> Any:
    """Where depth alone decides who comes first, both with supersteps and without."""
    dag = Dag(State)

    def node(name: str) -> Any:
        def run(state: State) -> State:
            activation = get_activation()
            return {"log": [f"{name} {activation.group} {sorted(activation.items)} {len(state['log'])}"]}

        return run

    for name in ("a", "b", "c", "both", "either", "two", "left", "maybe", "never"):
        dag.add_node(name, node(name))
    dag.add_edge("a", "b")
    dag.add_edge("b", "c")
    dag.add_trigger("both", all_of("a", "c"))
    dag.add_trigger("either", any_of("c", "b", name="one"))
    dag.add_trigger("two", at_least(2, "c", "a", "b", skipped="ok"))
    dag.add_conditional_edges("a", lambda state: "left", ["left", "never"])
    dag.add_trigger("maybe", all_of("left", "never", skipped="ok", gate="c", name="tolerant"))
    return dag.compile(**options)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_supersteps_give_the_same(asynchronous: bool) -> None:
    results = []
    for barriers in (False, True):
        graph = sequence(barriers=barriers)
        results.append(await graph.ainvoke({"log": []}) if asynchronous else graph.invoke({"log": []}))
    assert results[0] == results[1]
    assert "either one ['b'] 2" in results[0]["log"]
    assert "maybe tolerant ['c', 'left'] 4" in results[0]["log"]


async def test_supersteps_demand_the_same() -> None:
    for barriers in (False, True):
        dag = Dag(State)
        for name in ("a", "b", "t"):
            dag.add_node(name, lambda state: {})
        dag.add_conditional_edges("a", lambda state: "__end__", ["b", "__end__"])
        dag.add_trigger("t", all_of("a", "b", name="both"))
        with pytest.raises(TriggerError) as raised:
            await dag.compile(barriers=barriers).ainvoke({"log": []})
        assert (raised.value.node, raised.value.group, raised.value.skipped) == ("t", "both", ("b",))


@pytest.mark.parametrize("kind", [Dag, CyclicGraph])
async def test_streams_name_nodes_as_usual(kind: Any) -> None:
    graph = kind(State)
    for name in "ab":
        graph.add_node(name, lambda state, name=name: {"log": [name]})
        graph.add_edge(START, name)
    graph.add_node("t", lambda state: {"log": ["t"]})
    graph.add_trigger("t", all_of("a", "b"))
    compiled = graph.compile()
    parts = [part async for part in compiled.astream({"log": []}, stream_mode=["updates", "values", "tasks"])]
    updates = [part for mode, part in parts if mode == "updates"]
    assert sorted(str(part) for part in updates) == [f"{{'{n}': {{'log': ['{n}']}}}}" for n in "abt"]
    assert updates[-1] == {"t": {"log": ["t"]}}
    values = [part["log"] for mode, part in parts if mode == "values"]
    assert values[0] == []
    assert values[-1] == ["a", "b", "t"]
    begun = [part for mode, part in parts if mode == "tasks" and "input" in part]
    ended = [part for mode, part in parts if mode == "tasks" and "result" in part]
    assert sorted(part["name"] for part in begun) == sorted(part["name"] for part in ended) == ["a", "b", "t"]
    assert begun[-1]["input"] == {"log": ["a", "b"]}
    metadata: list[Any] = []
    async for event in compiled.astream_events({"log": []}, version="v2"):
        if event["event"] == "on_chain_start" and event["name"] in "abt":
            metadata.append((event["name"], event["metadata"]["langgraph_node"]))
    assert set(metadata) == {(name, name) for name in "abt"}


def test_a_drawing_shows_the_nodes_that_triggers_lead_to() -> None:
    drawn = sequence().get_graph()
    assert {"a", "b", "c", "both", "either", "two", "left", "maybe", "never"} <= set(drawn.nodes)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("with_saver", [False, True])
async def test_a_concurrency_of_one_ends(asynchronous: bool, with_saver: bool) -> None:
    graph = sequence(checkpointer=InMemorySaver()) if with_saver else sequence()
    config: Any = {**thread(), "max_concurrency": 1}
    result = await graph.ainvoke({"log": []}, config) if asynchronous else graph.invoke({"log": []}, config)
    assert len(result["log"]) == 8


def test_groups_are_values() -> None:
    """A group may be kept and used for several nodes, and two that say the same are equal."""
    assert Group("all_of", ("a", "b")).built() == Group("all_of", ("a", "b")).built()
    assert hash(any_of("a")) == hash(any_of("a"))
    assert any_of("a") != any_of("b")
