"""`cancel_rest=True` where the losers run inside of graphs, on other hosts, or in a run that goes on after a crash."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import (
    Dag,
    Host,
    RemoteAgent,
    any_of,
)
from agentmatrix.testing import loopback
from tests.scheduling.race import Race
from tests.scheduling.stage import Latch, State, thread


async def test_a_nested_graph_is_cancelled_with_what_runs_in_it() -> None:
    running = Race()
    inner = StateGraph(State).add_node("deep", running.runner("deep")).add_edge(START, "deep").compile()
    graph = Dag(State)
    graph.add_node("team", inner)
    graph.add_node("quick", running.runner("quick"))
    graph.add_node("t", running.stage.target("t"))
    graph.add_trigger("t", any_of("team", "quick", cancel_rest=True))
    run = asyncio.ensure_future(graph.compile().ainvoke({"log": []}))
    await running.stage.until("deep", "quick")
    running.stage.release("quick")
    await running.cancellation_of("deep")
    assert (await run)["log"] == ["quick", "t"]


class Far:
    """A graph on a host whose node waits on the host's own loop, and tells when it is cancelled."""

    def __init__(self) -> None:
        self.latch = Latch()
        self.runs = 0

    async def node(self, state: State) -> State:
        self.runs += 1
        self.latch.set("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.latch.set("cancelled")
            raise
        return {"log": ["far"]}

    def graph(self) -> Any:
        return StateGraph(State).add_node("far", self.node).add_edge(START, "far").compile(name="far")

    async def heard(self, key: str) -> None:
        await asyncio.to_thread(self.latch.wait, key)


def with_remote(remote: Any, **options: Any) -> tuple[Race, Any]:
    running, graph = Race(), Dag(State)
    graph.add_node("far", remote)
    graph.add_node("near", running.runner("near"))
    graph.add_node("t", running.stage.target("t"))
    graph.add_trigger("t", any_of("far", "near", cancel_rest=True, name="first"))
    return running, graph.compile(**options)


async def _near_wins(far: Far, remote: Any) -> None:
    running, graph = with_remote(remote)
    run = asyncio.ensure_future(graph.ainvoke({"log": []}))
    await far.heard("started")
    await running.stage.until("near")
    running.stage.release("near")
    await far.heard("cancelled")
    assert (await asyncio.wait_for(run, 100))["log"] == ["near", "t"]
    assert far.runs == 1


async def test_a_remote_loser_is_cancelled_on_its_host() -> None:
    far = Far()
    await _near_wins(far, loopback(far.graph()))


async def test_a_remote_loser_without_a_network_is_cancelled_too() -> None:
    far = Far()
    with Host({"far": far.graph()}, address="inproc://cancel-rest"):
        await _near_wins(far, RemoteAgent("far", url="inproc://cancel-rest"))


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_resumed_run_starts_no_loser_again(durability: Any) -> None:
    running = Race()
    graph = Dag(State)
    for name in "ab":
        graph.add_node(name, running.runner(name))
        graph.add_edge(START, name)

    async def t(state: State) -> State:
        return {"log": [f"t {interrupt('?')}"]}

    graph.add_node("t", t)
    graph.add_trigger("t", any_of("a", "b", cancel_rest=True))
    compiled = graph.compile(InMemorySaver())
    run = asyncio.ensure_future(compiled.ainvoke({"log": []}, thread(), durability=durability))
    await running.stage.until("a", "b")
    running.stage.release("b")
    await running.cancellation_of("a")
    await run
    assert (await compiled.aget_state(thread())).next == ("t",)
    running.stage.release("a")
    result = await compiled.ainvoke(Command(resume="yes"), thread(), durability=durability)
    assert result["log"] == ["b", "t yes"]
    assert running.started == {"a": 1, "b": 1}


async def test_a_remote_loser_is_not_started_again_either() -> None:
    far, broken = Far(), ["once"]
    dag = Dag(State)
    dag.add_node("far", loopback(far.graph()))

    async def t(state: State) -> State:
        await far.heard("cancelled")
        if broken:
            raise ValueError(broken.pop())
        return {"log": ["t"]}

    async def near(state: State) -> State:
        await far.heard("started")
        return {"log": ["near"]}

    dag.add_node("near", near)
    dag.add_node("t", t)
    dag.add_trigger("t", any_of("far", "near", cancel_rest=True))
    graph = dag.compile(InMemorySaver())
    with pytest.raises(ValueError, match="once"):
        await graph.ainvoke({"log": []}, thread())
    assert (await graph.ainvoke(None, thread()))["log"] == ["near", "t"]
    assert far.runs == 1
