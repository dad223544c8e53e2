"""The shape of a graph, as the scheduler asks for it."""

from __future__ import annotations

from agentmatrix.scheduling.topology import Topology
from agentmatrix.triggers import Group


def test_followers_stand_in_the_order_of_add_node() -> None:
    edges = {"START": ("c", "a"), "a": ("c",), "b": ("nobody",)}
    topology = Topology("START", ("a", "b", "c"), edges, choices={"a": ("b",)}, groups={"a": (Group("", 1, ("c",)),)})
    assert topology.follow == {"START": ["a", "c"], "a": ["b", "c"], "b": [], "c": ["a"]}
    assert [topology.followers(node) for node in topology.follow] == list(topology.follow.values())


def test_members_of_a_group_share_their_followers() -> None:
    nodes = tuple(f"m{index}" for index in range(20_000))
    follow = Topology("START", nodes, {"START": nodes[:1]}, choices=dict.fromkeys(nodes, nodes), unbounded=True).follow
    assert len({id(followers) for followers in follow.values()}) == 2 and follow["m7"] == list(nodes)
