"""`explain` of a graph on a host: the same as of a local one."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from agentmatrix import ChatGroup, members
from agentmatrix.errors import TriggerError
from agentmatrix.speakers import broadcast, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
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


@pytest.mark.parametrize("speaker", [round_robin(), broadcast()], ids=["in turns", "at once"])
async def test_a_group_tells_who_has_had_how_many_turns(speaker: Any, place: Any, verbs: Any) -> None:
    def ask(messages: list[Any]) -> str:
        return str(interrupt("Well?"))

    def make(key: str) -> Any:
        return ask if key == "bob" else ScriptedChatModel("Yes.", cycle=True)

    given = {"ann": make("ann"), "staff": members(["bob", "cid"], make)}
    graph = place(ChatGroup(given, speaker=speaker, stop=max_turns(2)).compile(InMemorySaver()))
    result = await verbs.invoke(graph, {"messages": "Go."}, THREAD)
    asked = await verbs.call(graph, "explain", THREAD)
    assert (asked["bob"].state, asked["bob"].why) == ("paused", "by the interrupt 'Well?'")
    while "__interrupt__" in result:
        result = await verbs.invoke(graph, Command(resume="Mine."), THREAD)
    explanation = await verbs.call(graph, "explain", THREAD)
    states = {node: (status.state, status.times) for node, status in explanation.items()}
    turns = (1, 1) if speaker.label == "round_robin" else (2, 4)
    assert states == {"ann": ("ran", turns[0]), "staff": ("ran", turns[1])}
