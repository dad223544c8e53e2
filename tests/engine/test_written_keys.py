"""A graph in a node returns its whole state; only what it has written is a write of the node's."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import CyclicGraph, Dag
from agentmatrix.testing import loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    approved: bool
    x: str
    y: str


def graph_of(kind: Any, node: Any, **options: Any) -> Any:
    graph = kind(State)
    graph.add_node("n", node)
    graph.add_edge(START, "n")
    return graph.compile(**options)


KINDS = [Dag, CyclicGraph, StateGraph]
PLACES = ["local", "remote"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_graphs_in_parallel_that_leave_a_key_alone_do_not_collide(kind: Any, place: str) -> None:
    inner = [graph_of(kind, lambda state, key=key: {key: state["x"] + key}) for key in ("y", "log")]
    graphs = [loopback(graph) if place == "remote" else graph for graph in inner[:1]]
    dag = Dag(State)
    dag.add_node("one", graphs[0])
    dag.add_node("two", lambda state: {"x": "changed"})
    graph = dag.compile()
    assert graph.invoke({"log": [], "x": "given"}) == {"log": [], "x": "changed", "y": "giveny"}
    assert (await graph.ainvoke({"log": [], "x": "given"}))["x"] == "changed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_write_that_equals_the_input_is_a_write(kind: Any, place: str) -> None:
    inner = graph_of(kind, lambda state: {"approved": False})
    dag = Dag(State)
    dag.add_node("no", loopback(inner) if place == "remote" else inner)
    dag.add_node("yes", lambda state: {"approved": True})
    with pytest.raises(InvalidUpdateError, match="'approved'.*'no' and 'yes'"):
        dag.compile().invoke({"log": [], "approved": False})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_graph_that_was_paused_knows_what_it_has_written(kind: Any, place: str) -> None:
    inner = graph_of(kind, lambda state: {"y": interrupt("?")})
    dag = Dag(State)
    dag.add_node("ask", loopback(inner) if place == "remote" else inner)
    dag.add_node("other", lambda state: {"x": "other"})
    graph = dag.compile(checkpointer=InMemorySaver())
    graph.invoke({"log": [], "x": "given"}, THREAD)
    assert graph.invoke(Command(resume="yes"), THREAD) == {"log": [], "x": "other", "y": "yes"}


def test_functions_write_what_they_return() -> None:
    dag = Dag(State)
    dag.add_node("no", lambda state: {"approved": False})
    dag.add_node("yes", lambda state: {"approved": True})
    with pytest.raises(InvalidUpdateError, match="'approved'.*'no' and 'yes'"):
        dag.compile().invoke({"log": [], "approved": False})
