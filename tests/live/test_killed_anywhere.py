"""A live run that is killed after any operation of its saver: what was acknowledged is consumed once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import START

from agentmatrix import CyclicGraph, Dag, after, signal
from agentmatrix.errors import SignalError
from agentmatrix.live import LiveRun
from agentmatrix.testing import loopback
from tests.live.prefix_saver import RecordingSaver
from tests.live.triggered_graphs import THREAD, State, above, audio, hear, listener, waiter

SENT = ["a", "b", "c"]


async def ahear(state: State) -> State:
    return {"heard": [audio()]}


def in_dag(nested: Any, **options: Any) -> Any:
    """A Dag with a node before the nested graph, and one beside it."""
    builder = Dag(State, name="around").add_node("panel", nested)
    for name in ("before", "beside"):
        builder.add_node(name, lambda state: {})
    return builder.add_edge("before", "panel").add_edge(START, "beside").compile(**options)


def deep(nested: Any, **options: Any) -> Any:
    return above(in_dag(nested), **options)


def timed(**options: Any) -> Any:
    """Hears signals, and a timer that fires at once."""
    builder = CyclicGraph(State, name="timed").add_node("hear", hear)
    builder.add_node("ring", lambda state: {"heard": ["rung"]}).add_trigger("ring", after(0.001))
    return builder.add_trigger("hear", signal("audio")).compile(**options)


def nested(node: Any) -> Any:
    return above(listener(node))


@functools.cache
def hosted(make: Callable[..., Any], node: Any) -> Any:
    return loopback(make(node))


GRAPHS: dict[str, tuple[Callable[..., Any], str]] = {
    "alone": (lambda node, **options: listener(node, **options), "audio"),
    "concurrent": (lambda node, **options: listener(node, concurrent=True, **options), "audio"),
    "in a StateGraph": (lambda node, **options: above(listener(node), **options), "panel/audio"),
    "in a Dag": (lambda node, **options: in_dag(listener(node), **options), "panel/audio"),
    "deep": (lambda node, **options: deep(listener(node), **options), "panel/panel/audio"),
    "remote": (lambda node, **options: above(hosted(listener, node), **options), "panel/audio"),
    "deep and remote": (lambda node, **options: in_dag(hosted(nested, node), **options), "panel/panel/audio"),
}


def play(graph: Any, saver: RecordingSaver, address: str, durability: Any, way: str) -> None:
    """A live run that sends all signals."""

    async def amain() -> None:
        async with LiveRun(graph, {"heard": []}, THREAD, durability=durability) as run:
            for value in SENT:
                await run.signal(address, value)
                saver.acknowledged(value)

    if way == "async":
        asyncio.run(amain())
        return
    with LiveRun(graph, {"heard": []}, THREAD, durability=durability) as run:
        for value in SENT:
            run.signal(address, value)
            saver.acknowledged(value)


def go_on(graph: Any, way: str) -> list[Any]:
    """What the run has heard in the end: in its result, and in its state."""
    given: Any = None if graph.checkpointer.get_tuple(THREAD) else {"heard": []}

    async def amain() -> Any:
        async with LiveRun(graph, given, THREAD) as run:
            pass
        return await run.result()

    if way == "async":
        result = asyncio.run(amain())
    else:
        with LiveRun(graph, given, THREAD) as run:
            pass
        result = run.result()
    assert result["heard"] == graph.get_state(THREAD).values["heard"]
    return list(result["heard"])


ORDERS: list[tuple[str, str | None]] = [("async", None), ("async", "put above")]
MORE_ORDERS: list[tuple[str, str | None]] = [("sync", None), ("async", "put"), ("async", "put_writes")]
CASES = [
    (kind, durability, late)
    for kind in GRAPHS
    for durability, late in (*ORDERS, *(MORE_ORDERS if kind in ("alone", "in a StateGraph") else []))
]


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(("kind", "durability", "late"), CASES)
def test_what_was_acknowledged_is_consumed(kind: str, way: str, durability: str, late: str | None) -> None:
    make, address = GRAPHS[kind]
    node = hear if way == "sync" else ahear
    operation: Any = late.split()[0] if late else None
    saver = RecordingSaver(operation, namespace="" if late == "put above" else None)
    play(make(node, checkpointer=saver), saver, address, durability, way)
    assert saver.killed_after(len(saver.operations))[1] == SENT
    for left, acknowledged in saver.kills():
        heard = go_on(make(node, checkpointer=left), way)
        # What was saved in the last moment is consumed as well, also where nobody could be told any more.
        assert heard[: len(acknowledged)] == acknowledged and heard == SENT[: len(heard)]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_exit_keeps_all_or_nothing(way: str) -> None:
    node = hear if way == "sync" else ahear
    saver = RecordingSaver()
    play(listener(node, checkpointer=saver), saver, "audio", "exit", way)
    assert [go_on(listener(node, checkpointer=left), way) for left, _ in saver.kills()][-1] == SENT
    assert all(go_on(listener(node, checkpointer=left), way) in ([], SENT) for left, _ in saver.kills())


def test_a_group_of_signals_waits_for_the_other_one() -> None:
    saver = RecordingSaver()
    with LiveRun(waiter(checkpointer=saver), {"heard": []}, THREAD, durability="async") as run:
        for name in ("left", "right"):
            run.signal(name, name)
            saver.acknowledged(name)
    for left, acknowledged in saver.kills():
        graph = waiter(checkpointer=left)
        with LiveRun(graph, None if left.get_tuple(THREAD) else {"heard": []}, THREAD) as run:
            for name in ("left", "right")[len(acknowledged) :]:
                # One that was saved, and whose sender was not told: nothing waits for it.
                with contextlib.suppress(SignalError):
                    run.signal(name, name)
        assert run.result()["heard"] == [{"left": "left", "right": "right"}]


def test_timers_beside_signals() -> None:
    saver = RecordingSaver()
    graph = timed(checkpointer=saver)
    with LiveRun(graph, {"heard": []}, THREAD, durability="async") as run:
        for value in SENT:
            run.signal("audio", value)
            saver.acknowledged(value)
    assert sorted(run.result()["heard"]) == [*SENT, "rung"]
    # A run that has ended is none that was killed.
    for left, acknowledged in list(saver.kills())[:-1]:
        heard = go_on(timed(checkpointer=left), "sync")
        assert heard.count("rung") == 1
        heard = [value for value in heard if value != "rung"]
        assert heard[: len(acknowledged)] == acknowledged and heard == SENT[: len(heard)]
