"""Which graphs cannot run without an event loop, and which node a thread is in."""

from __future__ import annotations

import threading
from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, StateGraph

from agentmatrix import CyclicGraph, Dag, RemoteAgent
from agentmatrix.pregel.node_functions import is_async_only, node_on_stack


class Text(TypedDict, total=False):
    text: str


def sync_node(state: Text) -> Text:
    return {}


async def async_node(state: Text) -> Text:
    return {}


async def route(state: Text) -> str:
    return "b"


def graph(builder: Any, node: Any) -> Any:
    return builder(Text).add_node("a", node).add_edge(START, "a").compile()


both = RunnableLambda(sync_node, async_node)


@pytest.mark.parametrize("builder", [StateGraph, Dag, CyclicGraph])
@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (sync_node, False),
        (async_node, True),
        (both, False),
        (RunnableLambda(async_node), True),
        (RunnableLambda(sync_node) | RunnableLambda(async_node), True),
    ],
)
def test_a_graph_with_a_node_that_has_no_sync_function(builder: Any, node: Any, expected: bool) -> None:
    assert is_async_only(graph(builder, node)) is expected
    assert is_async_only(graph(builder, graph(StateGraph, node))) is expected


def test_a_router_counts_and_a_remote_agent_does_not() -> None:
    routed = StateGraph(Text).add_node("a", sync_node).add_node("b", sync_node).add_edge(START, "a")
    routed.add_conditional_edges("a", route, ["b"])
    assert is_async_only(routed.compile())
    assert not is_async_only(graph(StateGraph, RemoteAgent("127.0.0.1:1/x")))


def test_the_node_that_a_thread_is_in() -> None:
    entered, leave = threading.Event(), threading.Event()
    threads: list[int] = []

    def hold(state: Text) -> Text:
        threads.append(threading.get_ident())
        entered.set()
        leave.wait(60)
        return {}

    running = threading.Thread(target=graph(StateGraph, hold).invoke, args=({},))
    running.start()
    assert entered.wait(60)
    found = node_on_stack(threads[0])
    leave.set()
    running.join()
    assert found is not None and found[0] == "a"
    assert node_on_stack(threading.get_ident()) is None and node_on_stack(0) is None
