"""A group of many members: one box in pictures and cards, and still each by its name in streams."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from agentmatrix import ChatGroup, Dag
from agentmatrix.chat.group_drawing import MAX_DRAWN
from agentmatrix.display import draw_mermaid, draw_svg, draw_text
from agentmatrix.speakers import broadcast, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback


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


@pytest.mark.parametrize("count", [MAX_DRAWN, MAX_DRAWN + 1])
def test_each_of_many_goes_on_to_the_next(count: int) -> None:
    members = {f"m{number}": lambda messages: "aye" for number in range(count)}
    group = ChatGroup(members, speaker=round_robin(), max_turns=count, reply="transcript").compile()
    said = group.invoke({"messages": "go"})["messages"]
    assert [message.name for message in said[1:]] == list(members)


def test_a_member_takes_little_memory_beside_its_model() -> None:
    members = {f"m{number}": ScriptedChatModel("aye") for number in range(1_000)}
    ChatGroup(dict(list(members.items())[:100])).compile()  # What is made once for all groups counts for none.
    gc.collect()
    tracemalloc.start()
    group = ChatGroup(members, speaker=broadcast()).compile()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert group and size / len(members) < 4 * 1024
