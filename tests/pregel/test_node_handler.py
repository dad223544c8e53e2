"""How a handler of callbacks finds the graph that has called it: `stream` and `astream` keep it in their frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.graph import START, StateGraph

from agentmatrix import Dag
from agentmatrix.pregel.node_handler import calling_graph
from tests.pregel.door import State, mend


class Finder(BaseCallbackHandler):
    """Notes the graph whose run begins."""

    run_inline = True

    def __init__(self) -> None:
        self.found: list[Any] = []

    def on_chain_start(self, *args: Any, parent_run_id: Any = None, **kwargs: Any) -> None:
        if parent_run_id is None:
            self.found.append(calling_graph())


def native() -> Any:
    return StateGraph(State).add_node("node", lambda state: {}).add_edge(START, "node").compile()


def ours() -> Any:
    return Dag(State).add_node("node", lambda state: {}).compile()


@pytest.mark.parametrize("verb", ["invoke", "stream", "ainvoke", "astream"])
@pytest.mark.parametrize("make", [native, ours])
async def test_the_graph_of_a_run_that_begins_is_found(make: Callable[[], Any], verb: str) -> None:
    graph, finder = make(), Finder()
    config: Any = {"callbacks": [finder], "configurable": {"thread_id": "1", "user": "ann"}}
    called = getattr(graph, verb)({}, config)
    if verb == "ainvoke":
        await called
    elif verb == "astream":
        _ = [part async for part in called]
    elif verb == "stream":
        list(called)
    ((found, said),) = finder.found
    assert found is graph, mend("node_handler.py", verb)
    assert said["configurable"].items() >= {"thread_id": "1", "user": "ann"}.items()
    assert not [key for key in said["configurable"] if key.startswith("__pregel_")]


def test_elsewhere_there_is_none() -> None:
    assert calling_graph() == (None, {})
