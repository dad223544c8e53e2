"""A signal that nobody will take any more is refused to its sender: its node has ended, or is skipped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START
from langgraph.types import Command, Send

from agentmatrix import CyclicGraph, Dag, all_of, any_of, get_activation, signal
from agentmatrix.errors import SignalError
from tests.live.collecting_graphs import live
from tests.live.triggered_graphs import THREAD, State, audio, listener

EMPTY: State = {"heard": []}


def once() -> Any:
    """Hears one signal, and ends."""
    builder = CyclicGraph(State, name="once")
    builder.add_node("hear", lambda state: Command(update={"heard": [audio()]}, goto=END))
    return builder.add_trigger("hear", signal("audio")).compile()


def desk(nested: Any, *, skips: bool = False, **options: Any) -> Any:
    """The nested graph at `q`, which a router may skip, beside a listener that keeps the run going."""
    builder = Dag(State, name="desk").add_node("a", lambda state: {}).add_node("q", nested)
    builder.add_conditional_edges("a", lambda state: END if skips else "q", ["q", END])
    return builder.add_node("other", listener()).compile(**options)


async def until(run: Any, node: str) -> None:
    """Until a node of the root graph has run."""
    async for part in run:
        if node in part:
            return


async def test_a_node_that_is_skipped(place: Any, verbs: Any) -> None:
    async with live(verbs, desk(place(once()), skips=True), EMPTY) as run:
        await run.signal("other/audio", 1)
        with pytest.raises(SignalError, match="'q/audio' was not taken: 'q' was skipped.*'a' led elsewhere"):
            await run.signal("q/audio", 2)
        await run.signal("other/audio", 3)
    assert (await run.result())["heard"] == [1, 3]


async def test_a_node_that_has_ended(place: Any, verbs: Any) -> None:
    graph = desk(place(once()), checkpointer=InMemorySaver())
    async with live(verbs, graph, EMPTY, THREAD, stream_mode="updates") as run:
        await run.signal("q/audio", 1)
        await until(run, "q")
        with pytest.raises(SignalError, match="'q/audio' was not taken: 'q' has ended"):
            await run.signal("q/audio", 2)
        await run.signal("other/audio", 3)
    assert (await run.result())["heard"] == [3, 1]


async def test_a_signal_that_waits_when_its_node_is_skipped(place: Any, verbs: Any) -> None:
    builder = Dag(State, name="late").add_node("ask", once()).add_node("q", place(once()))
    builder.add_conditional_edges("ask", lambda state: END, ["q", END])
    async with live(verbs, builder.add_node("other", listener()).compile(), EMPTY) as run:
        waiting = asyncio.create_task(run.signal("q/audio", 1))
        await run.signal("ask/audio", "asked")
        with pytest.raises(SignalError, match="'q/audio' was not taken: 'q' was skipped"):
            await waiting
    assert (await run.result())["heard"] == ["asked"]


async def test_a_node_that_was_called_off(place: Any, verbs: Any) -> None:
    builder = Dag(State, name="race").add_node("q", place(once())).add_node("quick", once())
    builder.add_node("t", lambda state: {"heard": ["t"]}).add_trigger("t", any_of("q", "quick", cancel_rest=True))
    graph = builder.add_node("other", listener()).compile()
    async with live(verbs, graph, EMPTY, stream_mode="updates") as run:
        await run.signal("quick/audio", 1)
        await until(run, "t")
        with pytest.raises(SignalError, match="'q/audio' was not taken: 'q' was skipped.*it was cancelled"):
            await run.signal("q/audio", 2)
    assert (await run.result())["heard"] == [1, "t"]


async def test_a_node_of_a_nested_graph(place: Any, verbs: Any) -> None:
    graph = Dag(State, name="root").add_node("team", place(desk(once(), skips=True))).compile()
    async with live(verbs, graph, EMPTY) as run:
        with pytest.raises(SignalError, match="'team/q/audio' was not taken: 'q' was skipped"):
            await run.signal("team/q/audio", 1)
        await run.signal("team/other/audio", 2)
    assert (await run.result())["heard"] == [2]


async def test_a_node_that_was_started_several_times(place: Any, verbs: Any) -> None:
    """Each of its graphs hears one, and a third signal nobody."""
    builder = Dag(State, name="several").add_node("q", place(once())).add_node("other", listener())
    builder.add_node("plan", lambda state: Command(goto=[Send("q", EMPTY), Send("q", EMPTY)]), destinations=("q",))
    async with live(verbs, builder.compile(), EMPTY, stream_mode="updates") as run:
        for number in (1, 2):
            await run.signal("q/audio", number)
            await until(run, "q")
        with pytest.raises(SignalError, match="'q' has ended"):
            await run.signal("q/audio", 3)
    assert sorted((await run.result())["heard"]) == [1, 2]


def cycle(nested: Any, *sources: Any) -> Any:
    """The nested graph at `q`, beside a listener that keeps the run going."""
    builder = CyclicGraph(State, name="cycle").add_node("q", nested).add_trigger("q", any_of(*sources))
    return builder.add_node("other", listener()).add_trigger("other", START).compile()


async def test_in_a_cycle_a_node_may_come_again(place: Any, verbs: Any) -> None:
    async with live(verbs, cycle(place(once()), START, signal("again")), EMPTY, stream_mode="updates") as run:
        await run.signal("q/audio", 1)
        await until(run, "q")
        waiting = asyncio.create_task(run.signal("q/audio", 2))
        await run.signal("again", "!")
        await waiting
    assert (await run.result())["heard"] == [1, 1, 2]


async def test_in_a_cycle_a_node_that_nothing_starts_any_more(place: Any, verbs: Any) -> None:
    async with live(verbs, cycle(place(once()), START), EMPTY, stream_mode="updates") as run:
        await run.signal("q/audio", 1)
        await until(run, "q")
        with pytest.raises(SignalError, match="'q/audio' was not taken: nothing starts 'q' any more"):
            await run.signal("q/audio", 2)
        await run.signal("other/audio", 3)
    assert (await run.result())["heard"] == [3, 1]


async def test_a_signal_of_the_graph_itself_that_has_done_its_work(place: Any, verbs: Any) -> None:
    builder = Dag(State, name="own").add_node("q", lambda state: {"heard": [1]}).add_trigger("q", signal("audio"))
    graph = place(builder.add_node("other", listener()).compile())
    async with live(verbs, graph, EMPTY, stream_mode="updates") as run:
        await run.signal("audio", 1)
        await until(run, "q")
        with pytest.raises(SignalError, match="'audio' was not taken: nothing waits for it any more"):
            await run.signal("audio", 2)
        await run.signal("other/audio", 3)
    assert (await run.result())["heard"] == [3, 1]


@pytest.mark.parametrize("kind", ["latest", "optional"])
async def test_a_signal_that_starts_nothing_is_taken_as_long_as_somebody_may_read_it(
    place: Any, verbs: Any, kind: str
) -> None:
    builder = Dag(State, name="reads").add_node("a", once())
    builder.add_node("t", lambda state: {"heard": [get_activation().items.get("mood")]})
    options: Any = {kind: signal("mood")}
    graph = place(builder.add_trigger("t", all_of("a", **options)).add_node("other", listener()).compile())
    async with live(verbs, graph, EMPTY, stream_mode="updates") as run:
        await run.signal("mood", "calm")
        await run.signal("a/audio", 1)
        await until(run, "t")
        with pytest.raises(SignalError, match="nothing waits for it any more"):
            await run.signal("mood", "gloomy")
    assert (await run.result())["heard"] == [1, "calm"]
