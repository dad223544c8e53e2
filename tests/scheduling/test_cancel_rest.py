"""The first answer wins and the rest is called off: `cancel_rest=True`."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.types import Command, Send, interrupt

from agentmatrix import (
    CyclicGraph,
    Dag,
    after,
    all_of,
    any_of,
    get_activation,
    signal,
)
from agentmatrix.errors import TriggerError
from tests.scheduling.race import Race, race
from tests.scheduling.stage import Latch, State, thread


@pytest.mark.parametrize("kind", [Dag, CyclicGraph])
@pytest.mark.parametrize("winner", "abc")
async def test_async_losers_are_cancelled_at_once(kind: Any, winner: str) -> None:
    running, graph = race(kind=kind)
    losers = [name for name in "abc" if name != winner]
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until(*"abc")
    running.stage.release(winner)
    await running.cancellation_of(*losers)
    result = await asyncio.wait_for(run, 100)
    assert result["log"] == [winner, "t"]
    assert running.stage.seen[0].items == {winner: {"log": [winner]}}


async def test_at_least_k_cancels_the_others() -> None:
    running, graph = race("abcd", k=2)
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until(*"abcd")
    running.stage.release("c")
    await running.stage.quiet(run)
    assert not any(event.is_set() for event in running.cancelled.values())
    running.stage.release("a")
    await running.cancellation_of("b", "d")
    assert (await run)["log"] == ["a", "c", "t"]


async def test_losers_are_cancelled_while_the_node_that_was_triggered_still_runs() -> None:
    running, graph = race("ab")
    graph.add_node("u", running.runner("u"))
    graph.add_edge("t", "u")
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until("a", "b")
    running.stage.release("a")
    await running.cancellation_of("b")
    await running.stage.until("u")
    assert not run.done()
    running.stage.release("u")
    assert (await run)["log"] == ["a", "t", "u"]


async def test_nobody_is_cancelled_without_being_told_to() -> None:
    running, graph = Race(), Dag(State)
    for name in "ab":
        graph.add_node(name, running.runner(name))
    graph.add_node("t", running.stage.target("t"))
    graph.add_trigger("t", any_of("a", "b"))
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until("a", "b")
    running.stage.release("a")
    await running.stage.quiet(run)
    assert running.stage.ended == ["t"]
    assert not run.done()
    running.stage.release("b")
    assert (await run)["log"] == ["a", "b", "t"]


async def test_a_gate_is_no_loser() -> None:
    """Only the other regular sources are called off; what is optional or a gate goes on."""
    running, graph = Race(), Dag(State)
    for name in "abgo":
        graph.add_node(name, running.runner(name))
    graph.add_node("t", running.stage.target("t"))
    graph.add_trigger("t", any_of("a", "b", gate="g", optional="o", cancel_rest=True))
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until(*"abgo")
    running.stage.release("a")
    await running.stage.quiet(run)
    assert not running.cancelled["b"].is_set()
    running.stage.release("g")
    await running.cancellation_of("b")
    assert not running.cancelled["o"].is_set()
    running.stage.release("o")
    assert (await run)["log"] == ["a", "g", "o", "t"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_sync_loser_runs_out_and_its_result_is_dropped(asynchronous: bool) -> None:
    latch, dag = Latch(), Dag(State)

    def slow(state: State) -> State:
        latch.set("slow started")
        latch.wait("t ran")
        latch.set("slow ended")
        return {"log": ["slow"], "x": "of slow"}

    def quick(state: State) -> State:
        latch.wait("slow started")
        return {"log": ["quick"]}

    def t(state: State) -> State:
        latch.set("t ran")
        return {"log": ["t"]}

    dag.add_node("slow", slow)
    dag.add_node("quick", quick)
    dag.add_node("t", t)
    dag.add_node("after_slow", lambda state: {"log": ["after slow"]})
    dag.add_edge("slow", "after_slow")
    dag.add_trigger("t", any_of("slow", "quick", cancel_rest=True))
    graph = dag.compile()
    result = await graph.ainvoke({"log": []}) if asynchronous else graph.invoke({"log": []})
    latch.wait("slow ended")
    assert result == {"log": ["quick", "t"]}


async def test_a_loser_that_has_not_started_never_starts() -> None:
    running, graph = Race(), Dag(State)
    for name in ("first", "second", "quick"):
        graph.add_node(name, running.runner(name))
    graph.add_edge("first", "second")
    graph.add_node("t", running.stage.target("t"))
    graph.add_trigger("t", any_of("second", "quick", cancel_rest=True))
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until("first", "quick")
    running.stage.release("quick")
    await running.stage.quiet(run)
    running.stage.release("first", "second")
    assert (await run)["log"] == ["first", "quick", "t"]
    assert "second" not in running.started


@pytest.mark.parametrize("skipped", ["error", "ok"])
async def test_others_who_wait_for_a_loser_see_it_skipped(skipped: Any) -> None:
    running, graph = race("ab")
    graph.add_node("c", running.runner("c"))
    graph.add_node("u", running.stage.target("u"))
    graph.add_node("by_edge", running.stage.target("by_edge"))
    graph.add_node("any", running.stage.target("any"))
    graph.add_trigger("u", all_of("b", "c", skipped=skipped, name="both"))
    graph.add_trigger("any", any_of("b", "c"))
    graph.add_edge("b", "by_edge")
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until("a", "b", "c")
    running.stage.release("a")
    await running.cancellation_of("b")
    running.stage.release("c")
    if skipped == "error":
        with pytest.raises(TriggerError, match="'b'.*cancel") as raised:
            await run
        assert (raised.value.node, raised.value.group, raised.value.skipped) == ("u", "both", ("b",))
    else:
        assert sorted((await run)["log"]) == ["a", "any", "c", "t", "u"]
        assert {seen.node: set(seen.items) for seen in running.stage.seen} == {"t": {"a"}, "u": {"c"}, "any": {"c"}}


async def test_in_a_cycle_a_source_that_lost_can_come_again() -> None:
    """Only what runs is called off there: the loser's next activation delivers as usual."""
    running, graph = Race(), CyclicGraph(State)
    for name in "ab":
        graph.add_node(name, running.runner(name))
        graph.add_edge(START, name)

    async def again(state: State) -> Command[Any]:
        await running.stage.hold("again")
        return Command(goto="b")

    graph.add_node("again", again, destinations=("b",))
    graph.add_node("t", running.stage.target("t"))
    graph.add_edge(START, "again")
    graph.add_trigger("t", any_of("a", "b", cancel_rest=True))
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until("a", "b", "again")
    running.stage.release("a")
    await running.cancellation_of("b")
    await running.stage.quiet(run)
    running.stage.release("again", "b")
    assert sorted((await run)["log"]) == ["a", "b", "t", "t"]
    assert running.started == {"a": 1, "b": 2}


@pytest.mark.parametrize("way", ["invoke", "v2", "live"])
async def test_a_loser_that_pauses_is_called_off_with_its_question(way: str) -> None:
    """An interrupt of a loser is no pause of the run any more: nobody needs the answer."""
    running, graph = Race(), Dag(State)

    async def asks(state: State) -> State:
        return {"log": [f"asked {interrupt('who?')}"]}

    graph.add_node("asks", asks)
    graph.add_node("quick", running.runner("quick"))
    graph.add_node("t", running.stage.target("t"))
    graph.add_trigger("t", any_of("asks", "quick", cancel_rest=True))
    compiled = graph.compile(InMemorySaver())

    async def going() -> Any:
        if way == "live":
            async with compiled.live({"log": []}, thread()) as live:
                return await live.result()
        return await compiled.ainvoke({"log": []}, thread(), **({"version": "v2"} if way == "v2" else {}))

    run = asyncio.ensure_future(going())
    await running.stage.until("quick")
    running.stage.release("quick")
    result = await run
    if way == "v2":
        assert result.interrupts == ()
        result = result.value
    assert result == {"log": ["quick", "t"]}
    state = await compiled.aget_state(thread())
    assert (state.next, state.interrupts) == ((), ())


@pytest.mark.parametrize("first", ["router", "quick"])
async def test_a_fan_out_that_comes_too_late_is_not_started(first: str) -> None:
    """The loser is started by packets, which its sender has not sent yet, or has."""
    running, builder = Race(), Dag(State)
    builder.add_node("router", running.runner("router"))
    builder.add_conditional_edges("router", lambda state: [Send("loser", {"x": str(i)}) for i in range(3)], ["loser"])
    builder.add_node("loser", running.runner("loser"))
    builder.add_node("quick", running.runner("quick"))
    builder.add_node("t", running.stage.target("t"))
    builder.add_trigger("t", any_of("loser", "quick", cancel_rest=True))
    graph = builder.compile(InMemorySaver())
    run = asyncio.ensure_future(graph.ainvoke({"log": []}, thread()))
    order = ["router", "quick"] if first == "router" else ["quick", "router"]
    await running.stage.until("router", "quick")
    for name in order:
        running.stage.release(name)
        await running.stage.quiet(run)
    running.stage.release("loser")
    assert (await run)["log"] == ["quick", "router", "t"]
    assert "loser" not in running.finished
    # A run that has ended keeps no account of who was cancelled: the saved state says only what ran.
    assert "skipped, the router or command of 'router' led elsewhere" in str(graph.explain(thread())["loser"])


@pytest.mark.parametrize("both", [False, True])
async def test_a_loser_that_has_just_been_started_by_the_same_event(both: bool) -> None:
    """One event completes groups in a chain: the second of them calls off the node that the first has just started."""
    running, builder = Race(), Dag(State)
    for name in ("n0", "n1", "n2", "n3"):
        builder.add_node(name, running.runner(name))
    builder.add_trigger("n1", "n0")
    builder.add_trigger("n2", any_of("n0", "n1", cancel_rest=both))
    builder.add_trigger("n3", any_of("n0", "n2", cancel_rest=True))
    running.stage.release("n0", "n1", "n2", "n3")
    assert (await builder.compile().ainvoke({"log": []}))["log"] == (["n0", "n3"] if both else ["n0", "n1", "n3"])


@pytest.mark.parametrize("kind", [Dag, CyclicGraph])
@pytest.mark.parametrize("winner", ["timer", "signal"])
async def test_a_loser_of_something_from_outside_is_cancelled_at_once(kind: Any, winner: str) -> None:
    running, builder = Race(), kind(State)
    builder.add_node("slow", running.runner("slow")).add_edge(START, "slow")
    builder.add_node("t", running.runner("t"))
    source = after(0.02, name="go") if winner == "timer" else signal("go")
    builder.add_trigger("t", any_of("slow", source, cancel_rest=True))
    async with builder.compile(InMemorySaver()).live({"log": []}, thread()) as run:
        await running.stage.until("slow")
        if winner == "signal":
            await run.signal("go", None)
        await running.cancellation_of("slow")
        await running.stage.until("t")
        running.stage.release("t")
    assert (await run.result())["log"] == ["t"]


@pytest.mark.parametrize("moment", range(12))
async def test_a_crash_beside_losers_loses_and_doubles_no_signal(moment: int) -> None:
    """A desk whose answer is cut off by the next word; the run is left after so many turns of the loop, and goes on."""

    async def listen(state: State) -> Command[Literal["answer"]]:
        word = get_activation().items.get("audio")
        return Command(goto=["answer"] if word is not None else [], update={"log": [] if word is None else [word]})

    async def answer(state: State) -> State:
        await asyncio.sleep(0)
        return {"x": "answered"}

    builder: Any = CyclicGraph(State).add_node("answer", answer).add_node("listen", listen)
    builder.add_trigger("listen", any_of(signal("audio"), "answer", cancel_rest=True))
    graph = builder.compile(InMemorySaver())
    with pytest.raises(ZeroDivisionError):
        async with graph.live({"log": []}, thread(), durability="sync") as run:
            for number in range(3):
                await run.signal("audio", str(number))
            for _ in range(moment * 3):
                await asyncio.sleep(0)
            1 / 0  # noqa: B018
    async with graph.live(None, thread(), durability="sync") as run:
        await run.signal("audio", "3")
    assert (await run.result())["log"] == ["0", "1", "2", "3"]
