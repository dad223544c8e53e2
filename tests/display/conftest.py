"""Graphs that the drawings of this folder show."""

from __future__ import annotations

import operator
import socket
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel

Graph = Pregel[Any, Any, Any, Any]


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def work(state: State) -> dict[str, Any]:
    return {"log": []}


def chain(*names: str, name: str, agents: dict[str, Any] | None = None) -> Graph:
    """Compile START -> names[0] -> ... -> END; `agents` replaces some of the nodes."""
    graph = StateGraph(State)
    for each in names:
        graph.add_node(each, (agents or {}).get(each, work))
    for source, target in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(source, target)
    return graph.compile(name=name)


def chat(agents: dict[str, Any], name: str = "panel") -> Graph:
    """Compile a speaker who calls one of the agents, each of which answers to the speaker."""
    graph = StateGraph(State)
    graph.add_node("speaker", work)
    for each, agent in agents.items():
        graph.add_node(each, agent)
        graph.add_edge(each, "speaker")
    graph.add_edge(START, "speaker")
    graph.add_conditional_edges("speaker", lambda state: END, [*agents, END])
    return graph.compile(name=name)


def report(expert: Any) -> Graph:
    """Compile plan -> (search, panel with the expert) -> write, and back to plan."""
    graph = StateGraph(State)
    graph.add_node("plan", work)
    graph.add_node("search", work)
    graph.add_node("panel", chat({"optimist": work, "expert": expert}))
    graph.add_node("write", work)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "search")
    graph.add_edge("plan", "panel")
    graph.add_edge(["search", "panel"], "write")
    graph.add_conditional_edges("write", lambda state: "done", {"revise": "plan", "done": END})
    return graph.compile(name="report")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every drawing is made without a socket."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a drawing opened a socket")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    yield
