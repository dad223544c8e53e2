"""Agents of two hosts that wait for each other's only place: it ends in a sentence, and nothing hangs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import HostBusy
from agentmatrix.session import run_queue


class State(TypedDict, total=False):
    depth: int


def caller_of(others: dict[str, RemoteAgent], name: str, met: threading.Barrier | None = None) -> Any:
    """An agent that calls the one of the other host, as deep as it is told to."""

    async def call(state: State) -> State:
        if met is not None and state["depth"]:
            await asyncio.to_thread(met.wait, 60)
        if state["depth"]:
            await others[name].ainvoke({"depth": state["depth"] - 1})
        return state

    return StateGraph(State).add_node("call", call).add_edge(START, "call").compile()


def two_hosts(others: dict[str, RemoteAgent], met: threading.Barrier | None = None) -> list[Host]:
    return [Host({name: caller_of(others, name, met)}, concurrency=1) for name in ("one", "two")]


def introduce(others: dict[str, RemoteAgent], one: Host, two: Host) -> dict[str, RemoteAgent]:
    agents = {"one": RemoteAgent(f"{one.address}/one"), "two": RemoteAgent(f"{two.address}/two")}
    others.update(one=agents["two"], two=agents["one"])
    return agents


async def test_the_runs_of_one_root_share_its_places(verbs: Any) -> None:
    others: dict[str, RemoteAgent] = {}
    one, two = two_hosts(others)
    with one, two:
        agents = introduce(others, one, two)
        assert await verbs.invoke(agents["one"], {"depth": 6}) == {"depth": 6}


async def test_two_roots_that_wait_for_each_other_end(verbs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_queue, "LEAST_PATIENCE", 0.5)
    others: dict[str, RemoteAgent] = {}
    both_hold = threading.Barrier(2)
    one, two = two_hosts(others, both_hold)
    with one, two, ThreadPoolExecutor() as threads:
        agents = introduce(others, one, two)
        for agent in agents.values():
            agent.card  # noqa: B018
        runs = [threads.submit(lambda a=agent: asyncio.run(verbs.invoke(a, {"depth": 1}))) for agent in agents.values()]  # type: ignore[misc]
        errors = [await asyncio.to_thread(run.exception, 60) for run in runs]
        found = [error for error in errors if error is not None]
        assert found and all(isinstance(error, HostBusy) for error in found)
        assert "may be waiting for each other in a circle" in str(found[0])
