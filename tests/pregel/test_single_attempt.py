"""A task with one try runs as LangGraph runs it: what it is told, what it raises and what that means."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable
from concurrent.futures import CancelledError as FutureCancelledError
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.errors import NodeCancelledError, ParentCommand
from langgraph.func import task
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import Command, RetryPolicy, interrupt

from agentmatrix import Dag


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


@task
def doubled(value: int) -> int:
    return 2 * value


def refuses(state: State) -> Any:
    raise ValueError("refused")


def is_cancelled(state: State) -> Any:
    raise asyncio.CancelledError("by itself")


def is_cancelled_by_a_future(state: State) -> Any:
    raise FutureCancelledError("by itself")


def asks(state: State) -> Any:
    return {"log": [interrupt("which?"), interrupt("why?")]}


def commands_itself(state: State) -> Any:
    return Command(goto=END, update={"log": ["command"]})


def commands_its_parent(state: State) -> Any:
    return Command(graph=Command.PARENT, update={"log": ["to the parent"]})


def writes_and_commands_itself(state: State) -> Any:
    get_config()["configurable"]["__pregel_send"]([("log", ["written"])])
    raise ParentCommand(Command(graph="node", update={"log": ["command"]}))


def calls(state: State) -> Any:
    return {"log": [doubled(1).result(), doubled(2).result()]}


def ends_the_iteration(state: State) -> Any:
    raise StopAsyncIteration("odd")


NODES = [
    *(refuses, is_cancelled, is_cancelled_by_a_future, asks, commands_itself, commands_its_parent, calls),
    *(ends_the_iteration, writes_and_commands_itself),
]


def outcome(kind: Any, node: Callable[[State], Any], is_async: bool) -> Any:
    """What a user sees of a node inside a graph inside a graph: results, pauses and errors with their notes."""

    async def anode(state: State) -> Any:
        return node(state)

    run: Any = anode if is_async else node
    inner = kind(State).add_node("node", run).add_edge(START, "node").compile()
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    graph = kind(State).add_node("inner", inner).add_edge(START, "inner").compile(saver)
    seen: list[Any] = []
    for given in ({"log": []}, Command(resume="this"), Command(resume="because")):
        try:
            result = asyncio.run(graph.ainvoke(given, config)) if is_async else graph.invoke(given, config)
        except BaseException as error:
            notes = [note.split(" and id ")[0] for note in getattr(error, "__notes__", ())]
            seen.append((type(error), str(error), notes, type(error.__cause__)))
            break
        asked = [one.value for one in graph.get_state(config).interrupts]
        seen.append((result["log"], asked))
        if not asked:
            break
    return seen


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("node", NODES)
def test_what_a_node_does_means_what_it_means_in_langgraph(node: Callable[[State], Any], is_async: bool) -> None:
    assert outcome(Dag, node, is_async) == outcome(StateGraph, node, is_async)


def test_a_node_that_is_cancelled_by_itself_fails() -> None:
    (found,) = outcome(Dag, is_cancelled, False)
    assert found[0] is NodeCancelledError


@pytest.mark.parametrize("kind", [Dag, StateGraph])
def test_a_node_is_told_of_its_run(kind: Any) -> None:
    begin, found = time.time(), list[Runtime[Any]]()

    def node(state: State) -> State:
        found.append(get_runtime())
        return {}

    graph = kind(State, context_schema=dict).add_node("node", node).add_edge(START, "node").compile(InMemorySaver())
    graph.invoke({"log": []}, {"configurable": {"thread_id": "1"}}, context={"who": "me"})
    info = found[0].execution_info
    assert info is not None and info.node_attempt == 1 and info.thread_id == "1" and found[0].context == {"who": "me"}
    assert begin <= (info.node_first_attempt_time or 0) <= time.time()
    assert info.checkpoint_ns == f"node:{info.task_id}" and info.checkpoint_id


@pytest.mark.parametrize("kind", [Dag, StateGraph])
def test_a_node_that_is_tried_again_is_told_so(kind: Any) -> None:
    found: list[Any] = []

    def node(state: State) -> State:
        info = get_runtime().execution_info
        assert info is not None
        found.append((info.node_attempt, info.node_first_attempt_time))
        if len(found) < 3:
            raise ConnectionError
        return {}

    policy = RetryPolicy(initial_interval=0.001, jitter=False)
    kind(State).add_node("node", node, retry_policy=policy).add_edge(START, "node").compile().invoke({"log": []})
    assert [number for number, _ in found] == [1, 2, 3] and len({begun for _, begun in found}) == 1


def test_what_a_task_has_written_before_it_asks_is_kept() -> None:
    """An answer that a node has taken is among its writes when it asks again."""
    found = outcome(Dag, asks, False)
    assert found == [([], ["which?"]), ([], ["why?"]), (["this", "because"], [])]


async def test_a_node_that_is_cancelled_from_outside_is_cancelled() -> None:
    begun = asyncio.Event()

    async def waits(state: State) -> State:
        begun.set()
        await asyncio.Event().wait()
        return {}

    graph = Dag(State).add_node("waits", waits).add_edge(START, "waits").compile()
    run = asyncio.create_task(graph.ainvoke({"log": []}))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
