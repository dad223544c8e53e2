"""What a cache has of one activation is not taken for another that was given something else."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import CachePolicy, Command, interrupt

from agentmatrix import CyclicGraph, Dag, any_of, get_activation, signal
from agentmatrix.engine.channels import RUN
from tests.scheduling.stage import State


async def test_another_signal_is_another_input() -> None:
    ran: list[str] = []

    def listen(state: State) -> State:
        ran.append(get_activation().items["audio"])
        return {"x": f"heard {ran[-1]}"}

    builder = CyclicGraph(State).add_node("listen", listen, cache_policy=CachePolicy())
    desk: Any = builder.add_trigger("listen", signal("audio")).compile(cache=InMemoryCache())
    for word in ("hello", "goodbye", "hello"):
        async with desk.live({"y": "same"}) as run:
            await run.signal("audio", word)
        assert (await run.result())["x"] == f"heard {word}"
    assert ran == ["hello", "goodbye"]


@pytest.mark.parametrize("key_func", [None, lambda state: "all the same"])
async def test_so_is_another_source_unless_the_policy_has_a_key_of_its_own(key_func: Any) -> None:
    policy = CachePolicy() if key_func is None else CachePolicy(key_func=key_func)
    cache = InMemoryCache()
    said: list[str] = []
    for winner in ("a", "b", "a"):
        builder = Dag(State)
        for name in ("a", "b"):
            builder.add_node(name, lambda state: None)
        builder.add_conditional_edges("__start__", lambda state, to=winner: to, ["a", "b"])
        builder.add_node("t", lambda state: {"x": "".join(get_activation().items)}, cache_policy=policy)
        builder.add_trigger("t", any_of("a", "b"))
        said.append((await builder.compile(cache=cache).ainvoke({"y": "same"}))["x"])
    assert said == (["a", "b", "a"] if key_func is None else ["a", "a", "a"])


async def test_what_another_run_has_decided_stays_there() -> None:
    """A result of the cache brings what the node wrote, and not which nodes another run has started because of it."""
    cache, saver = InMemoryCache(), InMemorySaver()
    builder = Dag(State)
    builder.add_node("a", lambda state: {"x": "a"}, cache_policy=CachePolicy(key_func=lambda state: "same"))
    builder.add_node("b", lambda state: interrupt("b?") and {})
    builder.add_node("t", lambda state: {"y": "t"})
    builder.add_trigger("t", any_of("a", "b"))
    graph = builder.compile(saver, cache=cache)
    for thread in ("1", "2", "3"):
        config: Any = {"configurable": {"thread_id": thread}}
        await graph.ainvoke({"y": ""}, config)
        stored = [
            (task, value)
            for (name, _, _), writes in saver.writes.items()
            if name == thread
            for task, channel, value, _ in writes.values()
            if channel == RUN
        ]
        assert len({task for task, _ in stored}) == len(stored)
        assert (await graph.ainvoke(Command(resume="yes"), config))["y"] == "t"
