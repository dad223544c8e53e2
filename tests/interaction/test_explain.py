"""`explain` of a graph on a host: the same as of a local one."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.errors import TriggerError
from tests.live.triggered_graphs import THREAD, above, waiter


async def test_explain(place: Any, verbs: Any) -> None:
    graph = waiter(checkpointer=InMemorySaver())
    with pytest.raises(TriggerError):
        await verbs.invoke(graph, {"heard": []}, THREAD)
    there = place(graph)
    explanation = await verbs.call(there, "explain", THREAD)
    assert str(explanation) == str(graph.explain(THREAD))
    assert type(explanation) is type(graph.explain(THREAD)) and "pair" in explanation


async def test_a_graph_that_explains_nothing(place: Any, verbs: Any) -> None:
    with pytest.raises(AttributeError, match="explain"):
        await verbs.call(place(above(lambda state: {}, checkpointer=InMemorySaver())), "explain", THREAD)
