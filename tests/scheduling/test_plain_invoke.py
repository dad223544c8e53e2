"""Signals and timers under plain invoke: no signal can come, and time goes by as usual."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.types import Command, Send, interrupt

from agentmatrix import CyclicGraph, Dag, after, all_of, any_of, at_least, every, get_activation, signal
from agentmatrix.errors import TriggerError
from tests.scheduling.stage import Latch, Stage, State, thread

both = pytest.mark.parametrize("kind", [Dag, CyclicGraph])


def listening(kind: Any, stage: Stage, *groups: Any) -> Any:
    """START -> a, and `t` with these groups."""
    graph = kind(State)
    graph.add_node("a", lambda state: {"log": ["a"]})
    graph.add_edge(START, "a")
    graph.add_node("t", stage.target("t"))
    graph.add_trigger("t", *groups)
    return graph.compile()


@both
async def test_any_of_goes_on_without_signals(kind: Any) -> None:
    stage = Stage()
    result = await listening(kind, stage, any_of("a", signal("audio"))).ainvoke({"log": []})
    assert result["log"] == ["a", "t"]
    assert [set(seen.items) for seen in stage.seen] == [{"a"}]


@both
async def test_a_group_that_demands_a_signal_is_an_error(kind: Any) -> None:
    for group in (all_of("a", signal("audio"), name="the group"), at_least(2, "a", signal("audio"), name="the group")):
        with pytest.raises(TriggerError, match=r"'t'.*the group.*audio.*skipped") as raised:
            await listening(kind, Stage(), group).ainvoke({"log": []})
        assert (raised.value.node, raised.value.group, raised.value.skipped) == ("t", "the group", ("audio",))


@both
async def test_a_group_that_tolerates_goes_on_with_what_came(kind: Any) -> None:
    stage = Stage()
    group = all_of("a", signal("audio"), skipped="ok", latest=signal("mood"), optional=signal("word"))
    result = await listening(kind, stage, group).ainvoke({"log": []})
    assert result["log"] == ["a", "t"]
    assert [set(seen.items) for seen in stage.seen] == [{"a"}]


async def test_a_node_that_only_signals_trigger_is_skipped_in_a_dag() -> None:
    stage = Stage()
    assert (await listening(Dag, stage, any_of(signal("audio"))).ainvoke({"log": []}))["log"] == ["a"]
    assert (await listening(Dag, stage, signal("audio")).ainvoke({"log": []}))["log"] == ["a"]


@both
def test_sync_runs_go_on_without_signals_too(kind: Any) -> None:
    graph = kind(State)
    graph.add_node("a", lambda state: {"log": ["a"]})
    graph.add_edge(START, "a")
    graph.add_node("t", lambda state: {"log": [f"t {sorted(get_activation().items)}"]})
    graph.add_trigger("t", any_of("a", signal("audio")))
    assert graph.compile().invoke({"log": []})["log"] == ["a", "t ['a']"]


@both
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_run_waits_for_a_time_that_is_to_come(kind: Any, asynchronous: bool) -> None:
    def t(state: State) -> State:
        return {"log": [f"{get_activation().group} {dict(get_activation().items)}"]}

    graph = kind(State)
    graph.add_node("a", lambda state: {"log": ["a"]})
    graph.add_edge(START, "a")
    graph.add_node("t", t)
    graph.add_trigger("t", any_of(after(0.2)))
    compiled = graph.compile()
    begin = time.monotonic()
    if asynchronous:
        result = await compiled.ainvoke({"log": []})
    else:
        result = await asyncio.to_thread(compiled.invoke, {"log": []})
    assert 0.19 <= time.monotonic() - begin < 100
    assert sorted(result["log"]) == ["a", "any_of(after(0.2)) {'after(0.2)': 1}"]


async def test_waiting_burns_no_cpu() -> None:
    run = asyncio.create_task(listening(Dag, Stage(), any_of(after(1000))).ainvoke({"log": []}))
    for _ in range(100):  # others of this process may be at work for a while; a run that polls always is
        begin = time.process_time()
        await asyncio.sleep(0.2)
        assert not run.done()
        if time.process_time() - begin < 0.01:
            break
    else:
        raise AssertionError("the run is never at rest")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


@both
async def test_a_group_of_a_node_and_a_time_waits_for_both(kind: Any) -> None:
    stage = Stage()
    await listening(kind, stage, all_of("a", after(0.1, name="a while"))).ainvoke({"log": []})
    assert [seen.items for seen in stage.seen] == [{"a": {"log": ["a"]}, "a while": 1}]


async def test_a_time_out_for_a_slow_node() -> None:
    """The pattern `any_of(slow, after(...))`: go on without it when it takes too long."""
    stage, dag = Stage(), Dag(State)
    dag.add_node("slow", stage.held("slow"))
    dag.add_node("t", stage.target("t"))
    dag.add_trigger("t", any_of("slow", after(0.05, name="patience"), cancel_rest=True))
    result = await asyncio.wait_for(dag.compile().ainvoke({"log": []}), 100)
    assert result["log"] == ["t"]
    assert [seen.items for seen in stage.seen] == [{"patience": 1}]


async def test_nobody_waits_for_a_time_out_that_nobody_needs() -> None:
    """The node has run: a time that could only have triggered it keeps the run no longer."""
    stage = Stage()
    graph = listening(Dag, stage, any_of("a", after(1000)))
    result = await asyncio.wait_for(graph.ainvoke({"log": []}), 100)
    assert result["log"] == ["a", "t"]
    assert [set(seen.items) for seen in stage.seen] == [{"a"}]


async def test_ticks_trigger_while_others_are_at_work() -> None:
    stage, graph = Stage(), CyclicGraph(State)
    ticks: list[Any] = []

    async def slow(state: State) -> State:
        await stage.hold("slow")
        return {"log": ["slow"]}

    async def t(state: State) -> State:
        ticks.append(get_activation().items["every(0.02)"])
        if len(ticks) == 3:
            stage.release("slow")
        return {}

    graph.add_node("slow", slow)
    graph.add_edge(START, "slow")
    graph.add_node("t", t)
    graph.add_trigger("t", every(0.02))
    result = await asyncio.wait_for(graph.compile().ainvoke({"log": []}), 100)
    assert result["log"] == ["slow"]
    assert ticks[:3] == sorted(set(ticks[:3]))
    assert ticks[0] == 1
    assert len(ticks) <= 4


@both
async def test_ticks_keep_no_run_alive(kind: Any) -> None:
    graph, began = listening(kind, Stage(), any_of(every(0.05))), time.monotonic()
    result = await asyncio.wait_for(graph.ainvoke({"log": []}), 100)
    ticks = (time.monotonic() - began) // 0.05
    assert result["log"] in [["a", *["t"] * times] for times in range(int(ticks) + 1)]


async def test_ticks_do_not_pile_up() -> None:
    """While `t` is at work, 10 ticks of `clock` go by for `other`; one of them waits for `t`."""
    stage, graph = Stage(), CyclicGraph(State)
    told: list[int] = []
    heard: list[int] = []

    async def slow(state: State) -> State:
        await stage.hold("slow")
        return {}

    async def t(state: State) -> State:
        told.append(get_activation().items["clock"])
        if len(told) == 1:
            await stage.hold("t")
        elif len(told) == 2:
            stage.release("slow")
        return {}

    async def other(state: State) -> State:
        heard.append(get_activation().items["clock"])
        if len(heard) == 10:
            stage.release("t")
        return {}

    graph.add_node("slow", slow)
    graph.add_edge(START, "slow")
    for name, node in {"t": t, "other": other}.items():
        graph.add_node(name, node)
        graph.add_trigger(name, any_of(every(0.01, name="clock")))
    await asyncio.wait_for(graph.compile(max_rounds=1000).ainvoke({"log": []}), 100)
    assert len(told) <= 4
    assert len(heard) >= 10


async def test_a_tick_may_be_what_a_node_in_a_dag_waited_for() -> None:
    stage, dag = Stage(), Dag(State)

    async def t(state: State) -> State:
        stage.seen.append(get_activation())  # type: ignore[arg-type]
        stage.release("slow")
        return {}

    dag.add_node("slow", stage.held("slow"))
    dag.add_node("t", t)
    dag.add_trigger("t", any_of("slow", every(0.02)))
    result = await asyncio.wait_for(dag.compile().ainvoke({"log": []}), 100)
    assert result["log"] == ["slow"]
    assert [dict(seen.items) for seen in stage.seen] == [{"every(0.02)": 1}]


async def test_times_and_signals_have_labels() -> None:
    stage = Stage()
    group = any_of("a", after(2), every(0.5), signal("audio"))
    await asyncio.wait_for(listening(Dag, stage, group).ainvoke({"log": []}), 100)
    assert stage.seen[0].group == "any_of(a, after(2), every(0.5), audio)"


async def test_a_pause_does_not_wait_for_ticks() -> None:
    """A run that only waits for an answer ends paused, also where a clock ticks on."""
    graph = CyclicGraph(State)
    graph.add_node("asks", lambda state: {"log": [interrupt("?")]})
    graph.add_edge(START, "asks")
    graph.add_node("t", lambda state: {})
    graph.add_trigger("t", every(0.02))
    compiled, config = graph.compile(InMemorySaver()), thread()
    paused = await asyncio.wait_for(compiled.ainvoke({"log": []}, config), 100)
    assert "__interrupt__" in paused
    result = await asyncio.wait_for(compiled.ainvoke(Command(resume="yes"), config), 100)
    assert result["log"] == ["yes"]


@pytest.mark.parametrize("follower", [None, "edge", "send"])
async def test_a_clock_that_is_faster_than_the_node_keeps_no_run_alive(follower: str | None) -> None:
    """At each end of `t` a tick waits already, and still the run ends with what else was at work.

    What `t` leads to keeps it going no longer than `t` itself.
    """
    stage, graph, runs = Stage(), CyclicGraph(State), count(1)
    graph.add_node("a", stage.held("a"))
    graph.add_edge(START, "a")

    async def t(state: State) -> Any:
        number = next(runs)
        assert number < 50, "its clock keeps the run going"
        if number == 2:
            stage.release("a")
        await asyncio.sleep(0.03)
        return Command(goto=Send("b", {})) if follower == "send" else {}

    async def b(state: State) -> State:
        await asyncio.sleep(0.03)
        return {}

    graph.add_node("t", t, destinations=("b",) if follower == "send" else None)
    graph.add_trigger("t", every(0.01))
    if follower is not None:
        graph.add_node("b", b)
    if follower == "edge":
        graph.add_edge("t", "b")
    result = await graph.compile().ainvoke({"log": []})
    assert result["log"] == ["a"]


def test_a_clock_keeps_no_sync_run_alive() -> None:
    graph, runs, ended = CyclicGraph(State), count(1), Latch()

    def a(state: State) -> State:
        ended.wait("a")
        return {"log": ["a"]}

    def t(state: State) -> State:
        number = next(runs)
        assert number < 50, "its clock keeps the run going"
        if number == 2:
            ended.set("a")
        time.sleep(0.03)
        return {}

    graph.add_node("a", a)
    graph.add_edge(START, "a")
    graph.add_node("t", t)
    graph.add_trigger("t", every(0.01))
    assert graph.compile().invoke({"log": []})["log"] == ["a"]
