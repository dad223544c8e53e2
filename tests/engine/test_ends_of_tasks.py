"""How single tasks end: their time limit, their error handler, a question deep inside of one."""

from __future__ import annotations

import asyncio
import operator
import threading
import time
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError
from langgraph.func import task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import CyclicGraph, Dag, all_of
from agentmatrix.testing import loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
KINDS = ["Dag", "barriers", "CyclicGraph", "Dag with triggers", "CyclicGraph with triggers"]


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def chain(kind: str, saver: Any = None, **nodes: Any) -> Any:
    """The nodes one after the other; a pair is a node and its error handler."""
    builders: dict[str, Any] = {"StateGraph": StateGraph, "CyclicGraph": CyclicGraph, "Dag": Dag, "barriers": Dag}
    builder = builders[kind.split()[0]](State)
    for name, node in nodes.items():
        action, handler = node if isinstance(node, tuple) else (node, None)
        builder.add_node(name, action, **({"error_handler": handler} if handler else {}))
    first, *_ = nodes
    builder.add_edge(START, first)
    for before, after in zip(nodes, [*nodes][1:], strict=False):
        if "triggers" in kind:
            builder.add_trigger(after, all_of(before))
        else:
            builder.add_edge(before, after)
    return builder.compile(checkpointer=saver, **({"barriers": True} if kind == "barriers" else {}))


def run(graph: Any, verb: str, input: Any, config: Any = None) -> Any:
    return graph.invoke(input, config) if verb == "sync" else asyncio.run(graph.ainvoke(input, config))


@pytest.mark.parametrize("kind", ["Dag", "barriers", "CyclicGraph with triggers"])
def test_a_time_limit_is_each_node_s_own(kind: str) -> None:
    """Nodes that take less than the limit each, and more than it together."""

    def slow(name: str) -> Any:
        return lambda state: time.sleep(0.3) or {"log": [name]}

    graph = chain(kind, **{name: slow(name) for name in "abcdefgh"})
    graph.step_timeout = 2.2
    assert graph.invoke({"log": []})["log"] == list("abcdefgh")


@pytest.mark.parametrize("kind", ["Dag", "CyclicGraph with triggers"])
@pytest.mark.parametrize("verb", ["sync", "async"])
def test_a_node_that_takes_too_long_ends_the_run(kind: str, verb: str) -> None:
    """And can be run again. A local function in a thread runs out: here until the run has given it up."""
    given_up = threading.Event()
    tries: list[str] = []

    def slow(state: State) -> State:
        tries.append("slow")
        if len(tries) == 1:
            given_up.wait(2.5)
        return {"log": ["slow"]}

    graph = chain(kind, InMemorySaver(), a=lambda state: {"log": ["a"]}, slow=slow, c=lambda state: {"log": ["c"]})
    graph.step_timeout = 1
    with pytest.raises(TimeoutError):
        run(graph, verb, {"log": []}, THREAD)
    given_up.set()
    graph.step_timeout = None
    snapshot = graph.get_state(THREAD)
    # What a thread has brought after all is kept, and its result is taken.
    assert snapshot.values["log"][:1] == ["a"] and len(snapshot.values["log"]) <= 2
    assert run(graph, verb, None, THREAD)["log"] == ["a", "slow", "c"]


@pytest.mark.parametrize("kind", ["StateGraph", *KINDS])
@pytest.mark.parametrize("verb", ["sync", "async"])
def test_an_error_handler_is_not_run_again(kind: str, verb: str) -> None:
    """Neither it nor what it answers for, when the run goes on after a pause."""
    calls: list[str] = []

    def breaks(state: State) -> State:
        calls.append("breaks")
        raise ValueError("broken")

    def mends(state: State, error: NodeError) -> Any:
        calls.append("mends")
        return Command(goto="asks", update={"log": [f"mended: {error.error}"]})

    def asks(state: State) -> State:
        return {"log": [interrupt("?")]}

    graph = chain(kind.replace(" with triggers", ""), InMemorySaver(), breaks=(breaks, mends), asks=asks)
    assert [asked.value for asked in run(graph, verb, {"log": []}, THREAD)["__interrupt__"]] == ["?"]
    assert run(graph, verb, Command(resume="yes"), THREAD)["log"] == ["mended: broken", "yes"]
    assert calls == ["breaks", "mends"]


@pytest.mark.parametrize("kind", ["StateGraph", *KINDS])
@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize("place", ["alone", "nested", "remote"])
def test_a_question_of_a_task_in_a_task_is_shown_once(kind: str, verb: str, place: str) -> None:
    """Also where a StateGraph in a StateGraph shows it three times."""
    calls: list[str] = []

    @task
    def inner(name: str) -> str:
        return f"{name}: {interrupt('who?')}"

    @task
    def outer(name: str) -> str:
        calls.append(name)
        return inner(name).result()

    def asks(state: State) -> State:
        return {"log": [outer("asks").result()]}

    graph = chain(kind, InMemorySaver() if place == "alone" else None, a=lambda state: {"log": ["a"]}, asks=asks)
    if place != "alone":
        builder = Dag(State)
        builder.add_node("inside", loopback(graph) if place == "remote" else graph)
        graph = builder.compile(checkpointer=InMemorySaver())

    parts: list[Any]
    if verb == "sync":
        parts = [*graph.stream({"log": []}, THREAD, stream_mode="updates")]
    else:

        async def collect() -> list[Any]:
            return [part async for part in graph.astream({"log": []}, THREAD, stream_mode="updates")]

        parts = asyncio.run(collect())
    shown = [asked.value for part in parts for asked in part.get("__interrupt__", ())]
    assert shown == ["who?"]
    assert [asked.value for asked in graph.get_state(THREAD).interrupts] == ["who?"]
    assert run(graph, verb, Command(resume="me"), THREAD)["log"] == ["a", "asks: me"]
