"""The same pauses on another saver, after a drain, on another host and in a copy."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import GraphDrained
from langgraph.graph import START
from langgraph.runtime import RunControl
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from agentmatrix.compose import CyclicGraph, Dag
from agentmatrix.testing import loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
both = pytest.mark.parametrize("kind", [Dag, CyclicGraph])


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    topic: str


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
        yield saver


def asking(kind: Any, calls: list[str], control: RunControl | None = None) -> Any:
    """plan leads to ask, which waits for a person, and to search, which may ask for a drain; then comes the end."""

    def plan(state: State) -> State:
        calls.append("plan")
        return {"log": ["plan"], "topic": "planned"}

    def search(state: State) -> State:
        calls.append("search")
        if control:
            control.request_drain("redeploy")
        return {"log": ["search"]}

    def ask(state: State) -> State:
        answer = "drained" if control else interrupt("?")
        calls.append("ask")
        return {"log": [f"{answer} {state['topic']}"]}

    graph = kind(State)
    for node in (plan, search, ask):
        graph.add_node(node)
    graph.add_node("end", lambda state: {"log": ["end"]})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: ["search", "ask"], ["search", "ask"])
    graph.add_edge(["search", "ask"], "end")
    return graph


def story(graph: Any) -> list[Any]:
    """All that a user sees of a run that pauses, is edited and goes on."""
    seen: list[Any] = [graph.invoke({"log": ["in"]}, THREAD)["log"], graph.get_state(THREAD).next]
    graph.update_state(THREAD, {"topic": "edited"}, as_node="plan")
    seen += [graph.get_state(THREAD).values, graph.get_state(THREAD).next]
    graph.invoke(None, THREAD)
    seen.append(graph.invoke(Command(resume="yes"), THREAD))
    return [*seen, *((s.values, s.next, s.metadata["source"]) for s in graph.get_state_history(THREAD))]


@both
def test_a_database_gives_the_same_pauses_as_memory(kind: Any, sqlite: SqliteSaver) -> None:
    runs: list[list[str]] = [[], []]
    savers = (sqlite, InMemorySaver())
    kept, held = (story(asking(kind, r).compile(checkpointer=s)) for r, s in zip(runs, savers, strict=True))
    assert kept == held
    assert runs[0] == runs[1]


@both
def test_a_drained_run_goes_on_from_a_database(kind: Any, sqlite: SqliteSaver) -> None:
    calls: list[str] = []
    control = RunControl()
    graph = asking(kind, calls, control).compile(checkpointer=sqlite)
    with pytest.raises(GraphDrained):
        graph.invoke({"log": ["in"]}, THREAD, control=control)
    assert graph.get_state(THREAD).next == ("end",)
    later = asking(kind, calls, control).compile(checkpointer=sqlite)
    assert sorted(later.invoke(None, THREAD)["log"]) == sorted(["in", "plan", "search", "drained planned", "end"])
    assert sorted(calls) == ["ask", "plan", "search"]


@both
def test_a_pause_behind_a_wire_is_that_of_a_local_graph(kind: Any) -> None:
    runs: list[list[str]] = [[], []]
    local, hosted = (asking(kind, calls).compile(checkpointer=InMemorySaver()) for calls in runs)
    assert story(local) == story(loopback(hosted))
    assert runs[0] == runs[1]


@both
@pytest.mark.parametrize("keeps", [None, True])
def test_a_paused_graph_inside_can_be_edited_on_another_host(kind: Any, keeps: Any) -> None:
    def run(remote: bool) -> list[Any]:
        calls: list[str] = []
        inner = asking(kind, calls).compile(checkpointer=keeps)
        dag = Dag(State)
        dag.add_sequence(
            [("before", lambda state: {"log": ["before"]}), ("inner", loopback(inner) if remote else inner)]
        )
        graph = dag.compile(checkpointer=InMemorySaver())
        graph.invoke({"log": ["in"]}, THREAD)
        paused: Any = graph.get_state(THREAD, subgraphs=True).tasks[0].state
        graph.update_state(paused.config, {"topic": "edited"}, as_node="plan")
        edited: Any = graph.get_state(THREAD, subgraphs=True).tasks[0].state
        result = graph.invoke(Command(resume="yes"), THREAD)
        assert "yes edited" in result["log"]
        return [paused.values, paused.next, edited.values, edited.next, result, calls]

    assert run(remote=True) == run(remote=False)


def test_a_deep_copy_runs() -> None:
    calls: list[str] = []
    twin = copy.deepcopy(asking(Dag, calls, RunControl()).compile())
    assert twin.invoke({"log": []})["log"] == ["plan", "drained planned", "search", "end"]
