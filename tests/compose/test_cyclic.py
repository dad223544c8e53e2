"""Loops go on as long as their routers say, and no longer than their bound."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from agentmatrix.compose import CyclicGraph, Dag
from agentmatrix.errors import BoundError, BuildError

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    n: Annotated[int, operator.add]
    until: int


def step(state: State) -> State:
    return {"n": 1}


def ping_pong(**options: Any) -> CyclicGraph:
    graph = CyclicGraph(State, **options)
    graph.add_node("ping", step)
    graph.add_node("pong", lambda state: {})
    graph.add_edge(START, "ping")
    graph.add_edge("ping", "pong")
    graph.add_conditional_edges("pong", lambda s: END if s["n"] >= s["until"] else "ping", ["ping", END])
    return graph


async def test_a_loop_ends_where_its_router_says_so() -> None:
    assert ping_pong().compile().invoke({"n": 0, "until": 25})["n"] == 25
    assert (await ping_pong().compile().ainvoke({"n": 0, "until": 25}))["n"] == 25


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_loop_without_end_is_stopped_and_named(asynchronous: bool) -> None:
    graph = ping_pong().compile()
    with pytest.raises(BoundError, match=r"ping -> pong -> ping has gone round 25 times.*max_rounds"):
        if asynchronous:
            await graph.ainvoke({"n": 0, "until": 1000})
        else:
            graph.invoke({"n": 0, "until": 1000})


def test_the_bound_can_be_raised_where_the_run_stopped() -> None:
    saver = InMemorySaver()
    graph = ping_pong(max_rounds=5).compile(checkpointer=saver)
    with pytest.raises(BoundError):
        graph.invoke({"n": 0, "until": 8}, THREAD)
    assert (graph.get_state(THREAD).next, graph.get_state(THREAD).values["n"]) == (("ping",), 5)
    assert ping_pong().compile(checkpointer=saver, max_rounds=8).invoke(None, THREAD)["n"] == 8


def test_each_run_counts_from_the_start_and_a_pause_does_not() -> None:
    graph = CyclicGraph(State, max_rounds=3)
    graph.add_node("ask", lambda state: {"n": interrupt("?")})
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", lambda s: END if s["n"] >= s["until"] else "ask", ["ask", END])
    compiled = graph.compile(checkpointer=InMemorySaver())
    for run in (1, 2):
        compiled.invoke({"until": run * 3}, THREAD)
        for _ in range(3):
            result = compiled.invoke(Command(resume=1), THREAD)
        assert result["n"] == run * 3
    compiled.invoke({"until": 100}, THREAD)
    with pytest.raises(BoundError, match="ask -> ask"):
        for _ in range(4):
            compiled.invoke(Command(resume=1), THREAD)


def test_the_loop_that_was_stopped_is_told_from_the_others() -> None:
    graph = ping_pong(max_rounds=4)
    graph.add_node("side", lambda state: {})
    graph.add_edge("side", "ping")
    graph.add_conditional_edges("ping", lambda state: END, ["side", END])
    with pytest.raises(BoundError, match="ping -> pong -> ping"):
        graph.compile().invoke({"n": 0, "until": 100})


def test_a_fan_out_counts_as_one_round() -> None:
    graph = CyclicGraph(State, max_rounds=2)
    graph.add_node("work", step)
    graph.add_conditional_edges(START, lambda state: [Send("work", {}) for _ in range(50)], ["work"])
    assert graph.compile().invoke({"n": 0})["n"] == 50


def test_a_loop_of_edges_that_are_always_taken_is_refused() -> None:
    graph = CyclicGraph(State)
    for name in "abc":
        graph.add_node(name, step)
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    graph.add_edge("b", "c")
    graph.add_edge("c", "b")
    with pytest.raises(BuildError, match="b -> c -> b can never end.*add_conditional_edges"):
        graph.compile()


def test_what_nothing_leads_to_is_refused_until_it_is_declared() -> None:
    def goes(state: State) -> Any:
        return Command(goto="hidden", update={"n": 1})

    graph = CyclicGraph(State)
    graph.add_node("a", goes)
    graph.add_node("hidden", step)
    graph.add_edge(START, "a")
    with pytest.raises(BuildError, match="nothing leads to the node 'hidden'.*destinations="):
        graph.compile()
    graph = CyclicGraph(State)
    graph.add_node("a", goes, destinations=("hidden",))
    graph.add_node("hidden", step)
    graph.add_edge(START, "a")
    assert graph.compile().invoke({"n": 0})["n"] == 2


def test_a_graph_that_nothing_starts_is_refused() -> None:
    graph = CyclicGraph(State)
    graph.add_node("a", step)
    with pytest.raises(BuildError, match="nothing starts"):
        graph.compile()


def test_loops_in_dags_in_loops() -> None:
    dag = Dag(State)
    dag.add_node("loop", ping_pong(), input_map=lambda s: {"n": 0, "until": 3}, output_map=lambda r: {"n": r["n"]})
    graph = CyclicGraph(State)
    graph.add_node("dag", dag, input_map=lambda s: {"n": 0}, output_map=lambda r: {"n": r["n"]})
    graph.add_edge(START, "dag")
    graph.add_conditional_edges("dag", lambda s: END if s["n"] >= 9 else "dag", ["dag", END])
    assert graph.compile().invoke({"n": 0})["n"] == 9


def test_an_error_handler_cannot_outlive_the_bound() -> None:
    def broken(state: State) -> State:
        raise ValueError("broken")

    def again(state: State) -> Command[Literal["broken"]]:
        return Command(goto="broken", update={"n": 1})

    graph = CyclicGraph(State, max_rounds=3)
    graph.add_node("broken", broken, error_handler=again)
    graph.add_edge(START, "broken")
    with pytest.raises(BoundError, match="broken"):
        graph.compile().invoke({"n": 0})
