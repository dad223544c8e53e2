"""A group of many members: one box in pictures and cards, and still each by its name in streams."""

from __future__ import annotations

from typing import Any

import pytest

from agentmatrix import ChatGroup, Dag
from agentmatrix.chat.group_drawing import MAX_DRAWN
from agentmatrix.display import draw_mermaid, draw_svg, draw_text
from agentmatrix.speakers import broadcast
from agentmatrix.stops import max_turns
from agentmatrix.testing import loopback


def crowd(count: int) -> Any:
    members = {f"m{number}": lambda messages: "aye" for number in range(count)}
    return ChatGroup(members, speaker=broadcast(), stop=max_turns(1), name="crowd").compile()


@pytest.mark.parametrize("place", ["local", "remote"])
def test_many_members_are_one_box_with_their_number(place: str) -> None:
    group = loopback(crowd(600)) if place == "remote" else crowd(600)
    group.invoke({"messages": "go"})
    dag = Dag()
    dag.add_node("crowd", group)
    graph = dag.compile()
    assert "600 members" in draw_text(graph) and "m17" not in draw_text(graph)
    assert len(draw_svg(graph)) < 10_000 and len(draw_mermaid(graph)) < 2_000
    assert list(group.get_graph().nodes) == ["__start__", "next_turn", "600 members", "__end__"]
    assert list(group.get_graph(xray=True).nodes) == list(group.get_graph().nodes)


def test_as_many_as_a_picture_has_room_for_are_drawn() -> None:
    assert f"m{MAX_DRAWN - 1}" in crowd(MAX_DRAWN).get_graph().nodes
    assert f"{MAX_DRAWN + 1} members" in crowd(MAX_DRAWN + 1).get_graph().nodes


def test_streams_name_each_member_of_many() -> None:
    parts = list(crowd(70).stream({"messages": "go"}, stream_mode="updates"))
    assert {f"m{number}" for number in range(70)} <= {name for part in parts for name in part}
