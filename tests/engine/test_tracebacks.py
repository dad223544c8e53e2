"""The traceback of a node's error is that of a StateGraph, with few frames more, here and in nested graphs."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import CyclicGraph, Dag
from tests.conftest import Verbs


def fail(state: MessagesState) -> None:
    raise ValueError("no luck")


def nested(builder: Any, depth: int) -> Any:
    node: Any = fail
    for level in range(depth):
        graph = builder(MessagesState).add_node(f"level{level}", node)
        node = graph.add_edge(START, f"level{level}").compile()
    return node


async def frames(verbs: Verbs, graph: Any) -> list[str]:
    with pytest.raises(ValueError, match="no luck") as failure:
        await verbs.invoke(graph, {"messages": "hello"})
    return [frame.filename for frame in traceback.extract_tb(failure.value.__traceback__)]


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("builder", [Dag, CyclicGraph])
async def test_an_error_has_few_frames_more_than_in_langgraph(verbs: Verbs, builder: Any, depth: int) -> None:
    own, theirs = await frames(verbs, nested(builder, depth)), await frames(verbs, nested(StateGraph, depth))
    assert own[-1] == theirs[-1] == __file__
    assert len(own) <= len(theirs) + 3, "\n".join(own)
