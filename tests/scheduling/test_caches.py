"""What a cache has of one activation is not taken for another that was given something else."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.types import CachePolicy

from agentmatrix import CyclicGraph, Dag, any_of, get_activation, signal
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
