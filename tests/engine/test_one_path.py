"""All builders run on one engine, and its way from one node to the next can be read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START

import agentmatrix
from agentmatrix import ChatGroup, CyclicGraph, Dag, all_of
from agentmatrix.engine.graph import ScheduledPregel
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import max_turns

PACKAGE = Path(agentmatrix.__file__).parent
MOST_FILES = 12


class State(TypedDict, total=False):
    value: int


def chain(kind: Any) -> Any:
    graph = kind(State)
    graph.add_node("a", lambda state: {"value": 1})
    graph.add_node("b", lambda state: {"value": 2})
    graph.add_edge(START, "a")
    return graph


def with_edge(kind: Any) -> Any:
    return chain(kind).add_edge("a", "b")


def with_trigger(kind: Any) -> Any:
    return chain(kind).add_trigger("b", all_of("a"))


def ann(state: Any) -> Any:
    return {"messages": [AIMessage("Yes.")]}


def group(**options: Any) -> Any:
    return ChatGroup({"ann": ann, "bob": ann}, stop=max_turns(2), **options)


@pytest.mark.parametrize(
    "graph",
    [
        with_edge(Dag).compile(),
        with_edge(Dag).compile(barriers=True),
        with_trigger(Dag).compile(),
        with_edge(CyclicGraph).compile(),
        with_trigger(CyclicGraph).compile(),
        group().compile(),
        group(speaker=broadcast()).compile(),
        group(speaker=free()).compile(),
    ],
    ids=["dag", "barriers", "triggers", "cyclic", "cyclic triggers", "group", "broadcast", "free"],
)
def test_every_builder_compiles_to_one_engine(graph: Any) -> None:
    assert isinstance(graph, ScheduledPregel)


def test_the_hidden_nodes_of_a_group_are_not_explained() -> None:
    graph, config = group().compile(InMemorySaver()), {"configurable": {"thread_id": "1"}}
    graph.invoke({"messages": "Well?"}, config)
    assert list(graph.explain(config)) == ["ann", "bob"]


def test_from_the_end_of_a_node_to_the_start_of_the_next_few_files_are_read() -> None:
    """Who looks for a fault there reads them all. Each is a stage: the runner, the loop, the step, its tasks and what
    these have in common, the scheduler with its log, state and rules, the messages of what is recorded, and how a task
    runs that has one try, with a node that nobody watches.
    """
    files: dict[str, None] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            files[str(path.relative_to(PACKAGE))] = None

    def first(state: State) -> State:
        sys.setprofile(note)
        return {"value": 1}

    def second(state: State) -> State:
        sys.setprofile(None)
        return {"value": 2}

    graph = Dag(State).add_node("a", first).add_node("b", second).add_edge(START, "a").add_edge("a", "b").compile()
    try:
        graph.invoke({"value": 0})
        files.clear()  # what is made once a graph is no part of the way
        assert graph.invoke({"value": 0}) == {"value": 2}
    finally:
        sys.setprofile(None)
    assert 1 < len(files) <= MOST_FILES, list(files)
