"""A group of thousands: what it knows of who may follow whom grows with the members, not with their square."""

from __future__ import annotations

from agentmatrix import ChatGroup
from agentmatrix.engine.checkpoint import schedule_of
from agentmatrix.speakers import broadcast
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel


def test_members_share_what_may_follow_them() -> None:
    voice = ScriptedChatModel("hello", cycle=True)
    members = {f"m{number}": voice for number in range(200)}
    graph = ChatGroup(members, speaker=broadcast(), stop=max_turns(1), reply="transcript").compile()
    allowed = schedule_of(graph.channels).topology.allowed
    assert allowed["m0"] == {*members, "next_turn", "together"}
    assert len({id(known) for known in allowed.values()}) <= 3
    assert len(graph.invoke({"messages": "Hello?"})["messages"]) == 201
