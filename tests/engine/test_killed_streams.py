"""A run that was killed after any operation of its saver: the one that goes on streams what had finished."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentmatrix import Dag
from tests.conftest import Verbs
from tests.live.prefix_saver import RecordingSaver

CONFIG: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def two(builder: Any, saver: Any, **options: Any) -> Any:
    """Two nodes in one superstep."""
    graph = builder(State)
    for name in ("a", "b"):
        graph.add_node(name, lambda state, name=name: {"log": [name]}).add_edge(START, name)
    return graph.compile(checkpointer=saver, **options)


def chain(saver: Any, **options: Any) -> Any:
    graph = Dag(State)
    for name in ("a", "b", "c"):
        graph.add_node(name, lambda state, name=name: {"log": [name]})
    return graph.add_edge("a", "b").add_edge("b", "c").compile(checkpointer=saver, **options)


async def resumed(verbs: Verbs, graph: Any, left: InMemorySaver) -> tuple[list[Any], list[Any]]:
    """The updates that a run streams which goes on, and its values."""
    given = None if left.get_tuple(CONFIG) else {"log": []}
    parts = await verbs.listed(graph, "stream", given, CONFIG, stream_mode=["updates", "values"])
    return [part for mode, part in parts if mode == "updates"], [part for mode, part in parts if mode == "values"]


def in_order(saver: RecordingSaver) -> RecordingSaver:
    """The writes of a step before the checkpoint after it: LangGraph's executor may put them behind it."""

    def place(operation: tuple[str, tuple[Any, ...]]) -> tuple[str, bool]:
        name, given = operation
        id = given[1]["id"] if name == "put" else given[0]["configurable"]["checkpoint_id"]
        return id, name == "put_writes"

    saver.operations.sort(key=place)
    return saver


def a_first(saver: RecordingSaver) -> RecordingSaver:
    """The writes of `a` before those of `b`: which of two threads comes first is chance, here as in a StateGraph."""
    places = [place for place, (name, given) in enumerate(saver.operations) if name == "put_writes" and node_of(given)]
    ordered = sorted((saver.operations[place] for place in places), key=lambda operation: node_of(operation[1]))
    for place, operation in zip(places, ordered, strict=True):
        saver.operations[place] = operation
    return saver


def node_of(given: tuple[Any, ...]) -> str:
    """The node that some writes are of; "" for START's."""
    return "".join(value[0] for key, value in given[1] if key == "log" and value)


@pytest.mark.parametrize("options", [{}, {"barriers": True}], ids=["dag", "barriers"])
async def test_as_a_state_graph(verbs: Verbs, options: Any) -> None:
    savers = RecordingSaver(), RecordingSaver()
    await verbs.call(two(StateGraph, savers[0]), "invoke", {"log": []}, CONFIG, durability="sync")
    await verbs.call(two(Dag, savers[1], **options), "invoke", {"log": []}, CONFIG, durability="sync")
    for (theirs, _), (ours, _) in zip(a_first(in_order(savers[0])).kills(), a_first(savers[1]).kills(), strict=True):
        expected = await resumed(verbs, two(StateGraph, theirs), theirs)
        updates, values = await resumed(verbs, two(Dag, ours, **options), ours)
        assert sorted(map(str, updates)) == sorted(map(str, expected[0]))
        assert (values[0], values[-1]) == (expected[1][0], expected[1][-1])


@pytest.mark.parametrize("options", [{}, {"barriers": True}], ids=["dag", "barriers"])
async def test_the_last_values_are_the_result(verbs: Verbs, options: Any) -> None:
    saver = RecordingSaver()
    await verbs.call(chain(saver, **options), "invoke", {"log": []}, CONFIG, durability="async")
    for left, _ in saver.kills():
        graph = chain(left, **options)
        _, values = await resumed(verbs, graph, left)
        state = await verbs.call(graph, "get_state", CONFIG)
        assert values[-1] == state.values == {"log": ["a", "b", "c"]}
