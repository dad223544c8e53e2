"""A source that is cut off ends for whoever reads the stream of tasks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from agentmatrix import Dag, any_of
from agentmatrix.testing import loopback

INPUT: dict[str, Any] = {"messages": "hi"}


def ends(parts: list[Any]) -> dict[str, list[str]]:
    """By node: `input` for its begin, and the class of its error, or None, for its end."""
    found: dict[str, list[str]] = {}
    for part in parts:
        payload = part[-1] if isinstance(part, tuple) else part
        told = "input" if "input" in payload else type(payload["error"]).__name__
        found.setdefault(payload["name"], []).append(told)
    return found


def race(slow: Any) -> Any:
    dag = Dag(name="race")
    dag.add_node("slow", slow)
    dag.add_node("quick", lambda messages: "quick")
    dag.add_node("then", lambda messages: "then")
    dag.add_trigger("then", any_of("slow", "quick", cancel_rest=True))
    return dag.compile()


ENDED = {
    "slow": ["input", "CancelledError"],
    "quick": ["input", "NoneType"],
    "then": ["input", "NoneType"],
}


@pytest.mark.parametrize("wrap", [lambda graph: graph, loopback], ids=["here", "on a host"])
async def test_an_async_source_that_is_cut_off_ends(wrap: Any) -> None:
    async def slow(messages: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    graph = wrap(race(slow))
    assert ends([part async for part in graph.astream(INPUT, stream_mode="tasks")]) == ENDED


def test_a_sync_source_that_is_cut_off_ends_at_once_and_once() -> None:
    go_on = threading.Event()

    def slow(messages: Any) -> str:
        assert go_on.wait(100)
        return "too late"

    parts: list[Any] = []
    for part in race(slow).stream(INPUT, stream_mode="tasks"):
        parts.append(part)
        if part["name"] == "then":
            go_on.set()
    assert ends(parts) == ENDED


def test_a_source_that_has_paused_has_ended_before() -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import interrupt

    asked = threading.Event()

    def ask(messages: Any) -> Any:
        asked.set()
        return interrupt("why?")

    dag = Dag(name="race")
    dag.add_node("ask", ask)
    dag.add_node("quick", lambda messages: asked.wait(100) and "quick")
    dag.add_node("then", lambda messages: "then")
    dag.add_trigger("then", any_of("ask", "quick", cancel_rest=True))
    graph = dag.compile(checkpointer=InMemorySaver())
    parts = list(graph.stream(INPUT, {"configurable": {"thread_id": "1"}}, stream_mode="tasks"))
    assert len(ends(parts)["ask"]) == 2
