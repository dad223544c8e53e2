"""Signals start nodes while others run: local, nested and remote alike, acknowledged once and for all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import END
from langgraph.types import Command, interrupt

from agentmatrix import CyclicGraph, Dag, all_of, any_of, every, get_activation, signal
from agentmatrix.engine import listener as listening
from agentmatrix.errors import SignalError, TriggerError
from tests.live.collecting_graphs import live
from tests.live.triggered_graphs import THREAD, State, above, audio, hear, listener, waiter

EMPTY: State = {"heard": []}


@pytest.mark.parametrize("durability", [None, "sync", "async", "exit"])
async def test_each_signal_starts_a_node_in_order(place: Any, verbs: Any, durability: str | None) -> None:
    options = {"checkpointer": InMemorySaver()} if durability else {}
    graph = place(listener(**options))
    given = {"durability": durability} if durability else {}
    async with live(verbs, graph, EMPTY, THREAD, **given) as run:
        for number in range(5):
            await run.signal("audio", number, timeout=100)
        run.close_input()
        assert [part["hear"]["heard"] async for part in run] == [[0], [1], [2], [3], [4]]
    assert (await run.result())["heard"] == [0, 1, 2, 3, 4]


async def test_a_part_comes_while_the_run_waits_for_the_next_signal(place: Any, verbs: Any) -> None:
    async with live(verbs, place(listener()), EMPTY, stream_mode="updates") as run:
        await run.signal("audio", 0)
        async for part in run:
            number = part["hear"]["heard"][0]
            if number == 3:
                break
            await run.signal("audio", number + 1)
    assert (await run.result())["heard"] == [0, 1, 2, 3]


async def test_a_nested_graph_hears_while_other_nodes_run(place: Any, verbs: Any) -> None:
    asked, release = threading.Event(), threading.Event()

    def slow(state: State) -> State:
        asked.set()
        release.wait(100)
        return {"heard": ["slow"]}

    builder = Dag(State, name="desk").add_node("panel", place(listener())).add_node("slow", slow)
    graph = builder.add_edge("__start__", "panel").add_edge("__start__", "slow").compile(checkpointer=InMemorySaver())
    async with live(verbs, graph, EMPTY, THREAD, stream_mode="updates", subgraphs=True) as run:
        await run.signal("panel/audio", 1)
        await asyncio.to_thread(asked.wait, 100)
        async for namespace, part in run:
            assert namespace and part == {"hear": {"heard": [1]}}
            break
        await run.signal("panel/audio", 2)
        release.set()
    assert sorted((await run.result())["heard"], key=str) == [1, 2, "slow"]


async def test_a_remote_inside_of_a_remote(place: Any, verbs: Any) -> None:
    graph = above(place(above(place(above(place(listener()))))), checkpointer=InMemorySaver())
    async with live(verbs, graph, EMPTY, THREAD, durability="sync") as run:
        for number in range(3):
            await run.signal("panel/panel/panel/audio", number)
        with pytest.raises(SignalError, match="did you mean 'panel/panel/panel/audio'"):
            await run.signal("panel/panel/audio", 4)
    assert (await run.result())["heard"] == [0, 1, 2]


async def test_a_signal_among_the_sources_of_a_group(place: Any, verbs: Any) -> None:
    async with live(verbs, place(waiter()), EMPTY) as run:
        await run.signal("right", "r")
        await run.signal("left", "l")
        assert (await run.result())["heard"] == [{"left": "l", "right": "r"}]
        with pytest.raises(SignalError, match="the run has ended"):
            await run.signal("left", "late")


async def test_quiescence_with_half_a_group(place: Any, verbs: Any) -> None:
    with pytest.raises(TriggerError, match="'right'"):
        async with live(verbs, place(waiter()), EMPTY) as run:
            await run.signal("left", "l")


async def test_nothing_was_said(place: Any, verbs: Any) -> None:
    async with live(verbs, above(place(listener())), EMPTY) as run:
        run.close_input()
        assert (await run.result())["heard"] == []


async def test_the_same_id_counts_once(place: Any, verbs: Any) -> None:
    saver = InMemorySaver()
    graph = above(place(listener()), checkpointer=saver)
    async with live(verbs, graph, EMPTY, THREAD) as run:
        for value in ("a", "again", "again"):
            await run.signal("panel/audio", value, id="1")
        await run.signal("panel/audio", "b", id="2")
    assert (await run.result())["heard"] == ["a", "b"]


async def test_end_ends_a_live_run(place: Any, verbs: Any) -> None:
    builder = CyclicGraph(State, name="polite").add_node("hear", hear).add_trigger("hear", signal("audio"))
    builder.add_conditional_edges("hear", lambda state: END if state["heard"][-1] == "bye" else [], [END])
    graph = place(builder.compile())
    async with live(verbs, graph, EMPTY) as run:
        await run.signal("audio", "hello")
        await run.signal("audio", "bye")
        assert (await run.result())["heard"] == ["hello", "bye"]
        with pytest.raises(SignalError, match="the run has ended"):
            await run.signal("audio", "hello?")


async def test_stop_ends_a_run_that_waits_and_a_later_one_goes_on(place: Any, verbs: Any) -> None:
    graph = above(place(listener()), checkpointer=InMemorySaver())
    async with live(verbs, graph, EMPTY, THREAD) as run:
        for number in range(3):
            await run.signal("panel/audio", number)
        await run.stop("redeploy")
    with contextlib.suppress(GraphDrained):  # where not every signal was consumed
        await run.result()
    async with live(verbs, graph, None, THREAD) as run:
        run.close_input()
        assert (await run.result())["heard"] == [0, 1, 2]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_live_runs_follow_one_another_on_a_thread(verbs: Any, durability: str) -> None:
    for ways in itertools.product(("say", "nothing", "stop"), repeat=3):
        graph, said = listener(checkpointer=InMemorySaver()), []
        for number, way in enumerate(ways):
            async with live(verbs, graph, None if number else EMPTY, THREAD, durability=durability) as run:
                if way == "say":
                    await run.signal("audio", number, timeout=100)
                    said.append(number)
                if way == "stop":
                    await run.stop("redeploy")
        async with live(verbs, graph, None, THREAD, durability=durability) as run:
            await run.signal("audio", "last", timeout=100)
        assert (await run.result())["heard"] == [*said, "last"], ways


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_signal_that_cannot_be_saved_is_its_senders_alone(verbs: Any, durability: str) -> None:
    graph = above(listener(), checkpointer=InMemorySaver())
    async with live(verbs, graph, EMPTY, THREAD, durability=durability) as run:
        await run.signal("panel/audio", "before")
        with pytest.raises(SignalError, match="'panel/audio' was not taken: .*'function'"):
            await run.signal("panel/audio", lambda: None, timeout=100)
        await run.signal("panel/audio", "after", timeout=100)
    assert (await run.result())["heard"] == ["before", "after"]


@pytest.mark.parametrize(("address", "id"), [(5, "1"), (None, "1"), ("audio", 5), ("audio", ["1"])])
async def test_addresses_and_ids_are_text(verbs: Any, address: Any, id: Any) -> None:
    async with live(verbs, listener(checkpointer=InMemorySaver()), EMPTY, THREAD) as run:
        with pytest.raises(SignalError, match="of a signal is a str, not"):
            await run.signal(address, "x", id=id, timeout=100)
        await run.signal("audio", "after", timeout=100)
    assert (await run.result())["heard"] == ["after"]


async def test_a_long_step_ends_for_a_checkpoint_that_counts_as_no_step(
    verbs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmatrix.engine.listener.LONG", 6)
    graph = listener(checkpointer=InMemorySaver())
    config = {**THREAD, "recursion_limit": 3}
    async with live(verbs, graph, EMPTY, config, durability="sync", stream_mode="updates") as run:
        await run.signal("audio", 0)
        async for part in run:
            if (number := part["hear"]["heard"][0]) < 40:
                await run.signal("audio", number + 1, timeout=100)
                continue
            break
    assert (await run.result())["heard"] == [*range(41)]
    kept = [len(snapshot.values["heard"]) for snapshot in graph.get_state_history(THREAD)]
    assert len(kept) > 5 and kept[0] == 41


async def test_leaving_by_an_exception_ends_a_run_that_waits(place: Any, verbs: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with live(verbs, above(place(listener())), EMPTY) as run:
            await run.signal("panel/audio", 1)
            1 / 0  # noqa: B018


async def test_an_interrupt_does_not_end_a_live_run(place: Any, verbs: Any) -> None:
    def ask(state: State) -> State:
        return {"heard": [interrupt("really?") if audio() == "ask" else audio()]}

    builder = CyclicGraph(State, name="asking").add_node("hear", ask)
    graph = place(builder.add_trigger("hear", signal("audio"), concurrent=True).compile(checkpointer=InMemorySaver()))
    async with live(verbs, graph, EMPTY, THREAD) as run:
        await run.signal("audio", "ask")
        await run.signal("audio", "more")
        run.close_input()
        paused = await run.result()
    assert [i.value for i in paused["__interrupt__"]] == ["really?"] and paused["heard"] == ["more"]
    assert sorted((await verbs.invoke(graph, Command(resume="yes"), THREAD))["heard"]) == ["more", "yes"]


async def test_a_failure_of_a_node(place: Any, verbs: Any) -> None:
    def fail(state: State) -> State:
        raise KeyError(audio())

    with pytest.raises(KeyError, match="broken"):
        async with live(verbs, above(place(listener(fail))), EMPTY) as run:
            await run.signal("panel/audio", "broken")
            await run.result()


async def test_under_plain_invoke_no_signal_can_come(place: Any, verbs: Any) -> None:
    assert (await verbs.invoke(above(place(listener())), EMPTY))["heard"] == []


@pytest.fixture
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> int:
    assert listening.BUFFER == 1_000
    monkeypatch.setattr(listening, "BUFFER", 100)
    return 100


async def test_the_1001st_unread_signal_waits(place: Any, verbs: Any, small_buffer: int) -> None:
    release = threading.Event()

    def slow(state: State) -> State:
        release.wait(60)
        return {"heard": [audio()]}

    async with live(verbs, place(listener(slow)), EMPTY, stream_mode=[]) as run:
        for number in range(small_buffer + 1):
            await run.signal("audio", number, timeout=100)
        with pytest.raises(TimeoutError):
            await run.signal("audio", "too much", timeout=0.05)
        release.set()
        await run.signal("audio", "room again", timeout=100)
    assert [value for value in (await run.result())["heard"] if value != "too much"] == [
        *range(small_buffer + 1),
        "room again",
    ]


@pytest.mark.parametrize("kind", ["all_of", "optional"])
async def test_a_full_buffer_of_one_signal_shuts_out_no_other(
    place: Any, verbs: Any, kind: str, small_buffer: int
) -> None:
    group = all_of("start", signal("audio"), signal("go")) if kind == "all_of" else any_of(
        signal("go"), optional=signal("audio")
    )  # fmt: skip
    builder = CyclicGraph(State).add_node("start", lambda state: {}).add_edge("__start__", "start")
    builder.add_node("hear", hear).add_trigger("hear", group)
    async with live(verbs, place(builder.compile()), EMPTY) as run:
        for number in range(small_buffer):
            await run.signal("audio", number, timeout=100)
        with pytest.raises(TimeoutError):
            await run.signal("audio", "too much", timeout=0.05)
        await run.signal("go", None, timeout=100)
        run.close_input()
        if kind == "all_of":
            with pytest.raises(TriggerError, match="'start' and 'go' can no longer come"):
                await run.result()
        else:
            assert (await run.result())["heard"] == [0]


async def test_an_open_input_keeps_the_timers_of_a_live_graph_going(verbs: Any) -> None:
    """But not those of a nested graph that hears nothing: it ends as it does under invoke."""
    builder = CyclicGraph(State).add_node("tick", lambda state: {"heard": [get_activation().items["clock"]]})
    clock = builder.add_trigger("tick", every(0.02, name="clock")).compile()
    async with live(verbs, clock, EMPTY) as run:
        async for part in run:
            if part["tick"]["heard"] == [3]:
                break
    assert (await run.result())["heard"][:3] == [1, 2, 3]
    async with live(verbs, above(clock), EMPTY) as run:
        assert await run.result() == EMPTY


async def test_a_run_that_waits_burns_no_cpu(place: Any, verbs: Any) -> None:
    async with live(verbs, above(place(listener())), EMPTY, subgraphs=True) as run:
        await run.signal("panel/audio", 1)
        async for _ in run:
            break
        for _ in range(100):  # others of this process may be at work for a while; a run that polls always is
            before = time.process_time()
            await asyncio.sleep(0.2)
            if time.process_time() - before < 0.01:
                break
        else:
            raise AssertionError("the run is never at rest")


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_after_an_error_the_state_has_what_had_finished(verbs: Any, durability: str) -> None:
    def hears(state: State) -> State:
        if audio() == "bad":
            raise ValueError("boom")
        return {"heard": [audio()]}

    graph = listener(hears, checkpointer=InMemorySaver())
    with pytest.raises(ValueError, match="boom"):
        async with live(verbs, graph, EMPTY, THREAD, durability=durability) as run:
            for word in ("a", "b", "bad", "late"):
                await run.signal("audio", word, timeout=100)
    state = graph.get_state(THREAD)
    assert (state.next, state.values["heard"]) == (("hear",), ["a", "b"])
    assert (
        str(graph.explain(THREAD)) == "hear: failed, ran 2 times before, ValueError('boom'), started by any_of(audio)"
    )
