"""What a graph inside a node has sent is kept before that graph goes on: a run that is killed after any operation of
its saver loses none of it, and counts none of it twice, however late each operation is."""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from agentmatrix import CyclicGraph, Dag, get_activation, idle
from agentmatrix.engine import listener
from agentmatrix.session import send_forwarding
from agentmatrix.testing import loopback
from tests.conftest import Verbs
from tests.live.prefix_saver import RecordingSaver

THREAD: Any = {"configurable": {"thread_id": "1"}}
PATIENCE = 0.01


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def sends(state: State) -> State:
    me = get_activation()
    for path in ("office", "staff/ann", "staff/bob"):
        me.send(path, {"log": ["sent"]})
    me.dismiss("staff/carl")
    return {"log": ["first"]}


async def awaits(state: State) -> State:
    me = get_activation()
    for path in ("office", "staff/ann", "staff/bob"):
        await me.asend(path, {"log": ["sent"]})
    await me.adismiss("staff/carl")
    return {"log": ["first"]}


async def sends_on_the_loop(state: State) -> State:
    return sends(state)


async def sends_in_a_thread(state: State) -> State:
    return await asyncio.to_thread(sends, state)


@task
def work(state: State) -> State:
    return sends(state)


def calls_a_task(state: State) -> State:
    return work(state).result()


def commands(state: State) -> Any:
    return Command(update=sends(state), goto=[Send("office", {"log": ["commanded"]}), Send("staff/ann", {"log": []})])


def inner(node: Any, kind: Any = StateGraph) -> Any:
    """A graph that goes on after it has sent."""
    builder = kind(State).add_node("first", node).add_node("second", lambda state: {"log": ["second"]})
    return builder.add_edge(START, "first").add_edge("first", "second").compile()


def around(graph: Any, kind: Any = StateGraph) -> Any:
    return kind(State).add_node("inside", graph).add_edge(START, "inside").compile()


@cache
def hosted(node: Any) -> Any:
    return loopback(inner(node, Dag if node is commands else StateGraph))


PLACES: dict[str, Callable[[Any], Any]] = {
    "StateGraph": inner,
    "Dag": lambda node: inner(node, Dag),
    "StateGraph in a Dag": lambda node: around(inner(node), Dag),
    "Dag in a StateGraph": lambda node: around(inner(node, Dag)),
    "remote": hosted,
}


def firm(agent: Any, saver: Any) -> Any:
    """The agent works when carl has been hired and the first checkpoint was followed by another one."""

    def rest(state: State) -> Any:
        return Command(update={"log": ["rested"]}, goto="agent") if "rested" not in state["log"] else None

    builder = CyclicGraph(State, name="firm")
    builder.add_node("begin", lambda state: Command(goto=Send("staff/carl", {"log": ["begin"]})))
    builder.add_node("agent", agent, destinations=("office", "staff"), input_map=lambda state: {"log": []})
    builder.add_node("office", lambda state: {"log": [f"noted {state['log'][-1]}"]})
    builder.add_actors("staff", lambda state: {"log": ["read"]}, state=State)
    builder.add_node("rest", rest, destinations=("agent",))
    builder.add_edge(START, "begin").add_trigger("rest", idle())
    return builder.compile(checkpointer=saver)


async def outcome(verbs: Verbs, agent: Any, saver: Any, durability: str) -> tuple[list[str], dict[str, Any]]:
    graph, given = firm(agent, saver), None if saver.get_tuple(THREAD) else {"log": []}
    result = await verbs.call(graph, "invoke", given, THREAD, durability=durability)
    staff = graph.actors(THREAD)
    return sorted(result["log"]), {path: (one.count, one.dismissed) for path, one in staff.items()}


LATE: list[tuple[Any, str | None]] = [("put", None), ("put_writes", ""), ("put", "")]
CASES = [
    *[("StateGraph", node, ways) for node, ways in ((calls_a_task, 2), (sends_on_the_loop, 1), (sends_in_a_thread, 1))],
    *[(place, node, ways) for place in PLACES for node, ways in ((sends, 2), (awaits, 1))],
    *[(place, commands, 2) for place in ("Dag", "Dag in a StateGraph", "remote")],
]


@pytest.mark.parametrize(
    ("place", "node", "ways", "late"), [(*case, late) for case, late in zip(CASES, itertools.cycle(LATE))]
)
async def test_a_run_killed_anywhere(
    monkeypatch: pytest.MonkeyPatch, verbs: Verbs, place: str, node: Any, ways: int, late: Any
) -> None:
    """With ways=1 the node wants an event loop."""
    if ways == 1 and not verbs.is_async:
        return
    monkeypatch.setattr(listener, "LONG", 1)
    saver, agent = RecordingSaver(*late, patience=PATIENCE), PLACES[place](node)
    expected = await outcome(verbs, agent, saver, "async")
    times = 2 if node is commands else 1
    assert expected[1] == {"staff/carl": (1, True), "staff/ann": (times, False), "staff/bob": (1, False)}
    for left, _ in saver.kills():
        assert await outcome(verbs, agent, left, "async") == expected


@pytest.mark.parametrize("node", [sends, awaits, sends_in_a_thread, sends_on_the_loop])
async def test_a_send_on_the_loop_of_a_host_says_once_that_it_does_not_wait(
    node: Any, caplog: pytest.LogCaptureFixture
) -> None:
    send_forwarding._warn_of_order.cache_clear()
    for saver in (None, InMemorySaver(), InMemorySaver()):
        await firm(hosted(node), saver).ainvoke({"log": []}, THREAD)
        told = ["await asend instead", "await adismiss instead"] if saver and node is sends_on_the_loop else []
        said = [record.getMessage() for record in caplog.records if "does not wait" in record.getMessage()]
        assert len(said) == len(told) and all(words in text for words, text in zip(told, said, strict=True))
