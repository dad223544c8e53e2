"""A DeltaChannel keeps what was written and replays it: a Dag keeps no more than a StateGraph, and reads the same."""

from __future__ import annotations

from itertools import chain
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Overwrite, Send, interrupt

from agentmatrix import Dag


def appended(lines: list[str], updates: list[list[str]]) -> list[str]:
    return [*lines, *chain.from_iterable(updates)]


class State(TypedDict, total=False):
    lines: Annotated[list[str], DeltaChannel(appended)]
    turn: int


def says(text: str) -> Any:
    return lambda state: {"lines": [f"{text} after {len(state['lines'])}"]}


def asks(state: State) -> dict[str, Any]:
    return {"lines": [interrupt("who?")]}


def replaces(state: State) -> dict[str, Any]:
    return {"lines": Overwrite(["anew", *state["lines"][-2:]])}


def sends(state: State) -> Command[Any]:
    return Command(goto=[Send("b", state), Send("a", state)], update={"lines": ["sent"]})


def one(builder: Any) -> Any:
    return builder.add_node("a", says("a")).add_edge(START, "a")


def in_order_of_names(builder: Any) -> Any:
    return one(builder).add_node("b", says("b")).add_edge("a", "b")


def against_it(builder: Any) -> Any:
    return builder.add_node("b", says("b")).add_node("a", says("a")).add_edge(START, "b").add_edge("b", "a")


def diamond(builder: Any) -> Any:
    builder = against_it(builder).add_node("c", says("c")).add_node("d", says("d"))
    return builder.add_edge("b", "c").add_edge(["a", "c"], "d")


def with_a_pause(builder: Any) -> Any:
    return in_order_of_names(builder).add_node("ask", asks).add_edge(START, "ask").add_edge("ask", "b")


def with_overwrite(builder: Any) -> Any:
    return in_order_of_names(builder).add_node("c", replaces).add_edge("b", "c")


def with_sends(builder: Any) -> Any:
    builder = builder.add_node("s", sends, destinations=("a", "b")).add_edge(START, "s")
    return builder.add_node("a", says("a")).add_node("b", says("b"))


SHAPES = (one, in_order_of_names, against_it, diamond, with_a_pause, with_overwrite, with_sends)


@pytest.mark.parametrize("durability", ["sync", "exit"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_what_is_read_again_is_what_the_run_has_made(verbs: Any, shape: Any, durability: Any) -> None:
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    graph, again = (shape(Dag(State)).compile(checkpointer=saver) for _ in range(2))
    past: list[Any] = []
    for turn in range(4):
        made = await verbs.invoke(graph, {"lines": [f"turn {turn}"], "turn": turn}, config, durability=durability)
        while "__interrupt__" in made:
            assert again.get_state(config).values["lines"] == made["lines"]
            made = await verbs.invoke(graph, Command(resume=f"answer {turn}"), config, durability=durability)
        past.append(made["lines"])
        assert again.get_state(config).values["lines"] == made["lines"]
    ends = [state.values["lines"] for state in again.get_state_history(config) if not state.next]
    assert [lines for lines in reversed(ends) if lines in past] == past
    earlier = [state for state in again.get_state_history(config) if state.values.get("lines") == past[1]]
    forked = await verbs.invoke(graph, {"lines": ["fork"]}, earlier[0].config)
    if "__interrupt__" not in forked:
        assert again.get_state(config).values["lines"] == forked["lines"]


async def test_a_dag_keeps_no_snapshot_that_a_state_graph_does_not_keep(verbs: Any) -> None:
    kept = []
    for builder in (StateGraph, Dag):
        saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
        graph = in_order_of_names(builder(State)).compile(checkpointer=saver)
        for turn in range(10):
            await verbs.invoke(graph, {"lines": [f"turn {turn}"]}, config)
        kept.append(sum("lines" in saved.checkpoint["channel_values"] for saved in saver.list(config)))
    assert kept == [0, 0]


class Plain(TypedDict, total=False):
    lines: Annotated[list[str], add]
    turn: int


async def test_a_write_from_outside_beside_an_unfinished_step(verbs: Any) -> None:
    def fails(state: Any) -> dict[str, Any]:
        if "by hand" not in state["lines"]:
            raise ValueError("not yet")
        return {"lines": ["at last"]}

    seen = []
    for state in (State, Plain):
        saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
        builder = against_it(Dag(state)).add_node("fails", fails).add_edge("b", "fails").add_edge("a", "fails")
        graph, again = builder.compile(checkpointer=saver), builder.compile(checkpointer=saver)
        with pytest.raises(ValueError):
            await verbs.invoke(graph, {"lines": ["turn"]}, config)
        before = again.get_state(config).values["lines"]
        graph.update_state(config, {"lines": ["by hand"]}, as_node="b")
        after = again.get_state(config).values["lines"]
        made = await verbs.invoke(graph, None, config)
        assert again.get_state(config).values["lines"] == made["lines"]
        seen.append((before, after, made["lines"]))
    assert seen[0] == seen[1]
