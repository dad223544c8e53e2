"""The shape of a graph: who may follow whom, in which order, and what cannot work. Pure; knows no engine."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from agentmatrix.scheduling.actors import Actors, split_path
from agentmatrix.triggers import After, Every, Group, Idle, Signal, label_of

__all__ = ["Topology", "drawn", "join_key"]


def drawn(cycle: Sequence[str]) -> str:
    """`"a -> b -> c -> a"` of the nodes a, b, c."""
    return " -> ".join([*cycle, cycle[0]])


def join_key(sources: Sequence[str], node: str) -> str:
    """What LangGraph calls the channel of a join: of one edge that leads from several nodes."""
    return f"join:{'+'.join(sources)}:{node}"


@dataclass(frozen=True)
class Topology:
    """Nodes in the order in which they were added, and the edges between them.

    Attributes:
        start: the name of the entry, which is no node of its own.
        nodes: the nodes, in the order of add_node.
        edges: the edges that are always taken, by source.
        choices: the edges that a router, a `Command` or a `Send` may take, by source.
        deferred: the nodes that wait until the run is about to end.
        groups: the trigger groups, by node.
        concurrent: the nodes that may be activated while they are at work.
        joins: sources whose edges to a node wait for each other, by node; only where nodes may run more than once.
        ends: the nodes after which a run takes no more signals.
        max_rounds: how often a node may occur in one chain of activations.
        unbounded: whether nodes may run again and again, without such a bound.
        actors: the nodes that stand for many agents by key; they are not among `nodes`.
        members: by member of a chat group that has no node of its own, the node that stands for it and for others.
        deaf: whether nothing reaches a run from outside, as where supersteps follow each other.
        reads_items: whether nodes may ask what their sources have delivered.
    """

    start: str
    nodes: tuple[str, ...]
    edges: Mapping[str, tuple[str, ...]]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deferred: frozenset[str] = frozenset()
    groups: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)
    concurrent: frozenset[str] = frozenset()
    joins: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    ends: frozenset[str] = frozenset()
    max_rounds: int = 0
    unbounded: bool = False
    deaf: bool = False
    reads_items: bool = True
    actors: Mapping[str, Actors] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)

    @property
    def may_repeat(self) -> bool:
        """Whether a node may run more than once in a run, other than by Sends."""
        return self.max_rounds > 0 or self.unbounded

    @cached_property
    def consumed(self) -> dict[str, frozenset[str]]:
        """By node with trigger groups: the labels of the sources that it consumes deliveries of."""
        return {
            node: frozenset(
                label_of(source) for group in groups for source in (*group.regular, *group.gates, *group.optional)
            )
            for node, groups in self.groups.items()
        }

    @cached_property
    def optional(self) -> dict[str, frozenset[str]]:
        """Of those, the labels of the sources that are optional in each group that has them."""
        return {
            node: self.consumed[node].difference(*(group.regular_labels | group.gate_labels for group in groups))
            for node, groups in self.groups.items()
        }

    @cached_property
    def choosers(self) -> dict[str, list[str]]:
        """By node: the sources of its edges that choose it, or send to it."""
        return {
            node: [source for source in sources if node in self.choices.get(source, ())]
            for node, sources in self.edge_sources.items()
        }

    @cached_property
    def listeners(self) -> dict[str, tuple[str, ...]]:
        """By label of a source: the nodes with a trigger group that has it."""
        listeners: dict[str, dict[str, None]] = {}
        for node, groups in self.groups.items():
            for group in groups:
                for source in group.sources:
                    listeners.setdefault(label_of(source), {})[node] = None
        return {label: tuple(nodes) for label, nodes in listeners.items()}

    @cached_property
    def external_nodes(self) -> tuple[str, ...]:
        """The nodes with a trigger group that has a source outside of the graph."""
        return tuple(
            node
            for node, groups in self.groups.items()
            if any(not isinstance(source, str) for group in groups for source in group.sources)
        )

    @cached_property
    def signals(self) -> frozenset[str]:
        """The signals that some group has."""
        groups = [group for groups in self.groups.values() for group in groups]
        return frozenset(source.name for group in groups for source in group.sources if isinstance(source, Signal))

    @cached_property
    def timers(self) -> tuple[After | Every, ...]:
        """The timers that some group has."""
        sources = [source for groups in self.groups.values() for group in groups for source in group.sources]
        return tuple(dict.fromkeys(source for source in sources if isinstance(source, After | Every)))

    @cached_property
    def idles(self) -> frozenset[str]:
        """The labels of the sources that fire when nothing is at work."""
        sources = [source for groups in self.groups.values() for group in groups for source in group.sources]
        return frozenset(source.name for source in sources if isinstance(source, Idle))

    @cached_property
    def places(self) -> dict[str, int]:
        """The nodes, each with its place in the order of add_node."""
        return {node: place for place, node in enumerate(self.nodes)}

    @cached_property
    def edge_sources(self) -> dict[str, tuple[str, ...]]:
        """By node: the sources whose edges and choices lead to it, START first, in the order of add_node."""
        sources: dict[str, list[str]] = {node: [] for node in self.nodes}
        for source in (self.start, *self.nodes):
            for node in {*self.edges.get(source, ()), *self.choices.get(source, ())} & sources.keys():
                sources[node].append(source)
        return {node: tuple(found) for node, found in sources.items()}

    def followers(self, node: str) -> list[str]:
        """Every node that may follow `node`, in the order of add_node."""
        after = {*self.edges.get(node, ()), *self.choices.get(node, ()), *self.listeners.get(node, ())}
        return sorted(after & self.places.keys(), key=self.places.__getitem__)

    @cached_property
    def follow(self) -> dict[str, list[str]]:
        """By node, and for START: every node that may follow it, in the order of add_node."""
        # Members of a group all have the same followers, the whole group: they share one list.
        shared: dict[tuple[int, ...], list[str]] = {}
        follow: dict[str, list[str]] = {}
        for source in (self.start, *self.nodes, *self.actors):
            key = tuple(id(of.get(source)) for of in (self.edges, self.choices, self.listeners))
            if key not in shared:
                shared[key] = self.followers(source)
            follow[source] = shared[key]
        return follow

    @cached_property
    def allowed(self) -> dict[str, frozenset[str]]:
        """By node, and for START: the nodes that its edges, routers, commands and Sends may lead to."""
        # Members of a group all have the same followers, the whole group: they share one set.
        shared: dict[tuple[int, int], frozenset[str]] = {}
        allowed: dict[str, frozenset[str]] = {}
        for source in (self.start, *self.nodes):
            edges, choices = self.edges.get(source, ()), self.choices.get(source, ())
            key = id(edges), id(choices)
            if key not in shared:
                shared[key] = frozenset((*edges, *choices))
            allowed[source] = shared[key]
        return allowed

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """By node: every source that may lead to it, START first, then in the order of add_node."""
        sources: dict[str, list[str]] = {node: [] for node in self.nodes}
        for source in (self.start, *self.nodes):
            for follower in self.follow[source]:
                sources[follower].append(source)
        return sources

    @cached_property
    def rank(self) -> dict[str, int]:
        """The canonical order: topological (Kahn), ties by the order of add_node. START is 0; a cycle has no rank."""
        added = self.places
        waiting = {node: sum(s != self.start for s in sources) for node, sources in self.sources.items()}
        ready = [added[node] for node, count in waiting.items() if count == 0]
        heapq.heapify(ready)
        rank = {self.start: 0}
        while ready:
            node = self.nodes[heapq.heappop(ready)]
            rank[node] = len(rank)
            for follower in self.follow[node]:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    heapq.heappush(ready, added[follower])
        return rank

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes in canonical order."""
        return tuple(sorted((node for node in self.nodes if node in self.rank), key=lambda node: self.rank[node]))

    @cached_property
    def entry_nodes(self) -> tuple[str, ...]:
        """The nodes that may start, or be skipped, before any node has run: START is among their sources, or something
        from outside, or they have none."""
        return tuple(
            node
            for node, sources in self.sources.items()
            if not sources or self.start in sources or node in self.external_nodes
        )

    def cycle(self) -> list[str] | None:
        """The nodes of one cycle, or None."""
        left = {node for node in self.nodes if node not in self.rank}
        for node in self.nodes:
            if node in left and (cycle := self.loop_through(node, left)):
                return cycle
        return None

    def loop_through(self, node: str, within: Iterable[str] | None = None, *, always: bool = False) -> list[str] | None:
        """The shortest loop through `node`, starting with it, or None.

        Args:
            node: a node of the loop.
            within: only loops inside these nodes.
            always: only loops of edges that are always taken.
        """
        allowed = set(self.nodes if within is None else within)
        came_from: dict[str, str] = {}
        frontier = [node]
        while frontier:
            reached: list[str] = []
            for source in frontier:
                for follower in self._certain(source) if always else self.follow[source]:
                    if follower == node:
                        return _path(node, source, came_from)
                    if follower in allowed and follower not in came_from:
                        came_from[follower] = source
                        reached.append(follower)
            frontier = reached
        return None

    def _certain(self, source: str) -> list[str]:
        """The nodes that start whenever `source` has run."""
        alone = (node for node, groups in self.groups.items() if any(group.needs_only(source) for group in groups))
        return [*self.edges.get(source, ()), *alone]

    def reachable(self) -> set[str]:
        """The nodes that START may lead to."""
        alone = {node for node, groups in self.groups.items() if any(group.is_external for group in groups)}
        return alone | self.descendants([self.start, *alone, *self.actors])

    def takes(self, name: str) -> bool:
        """Whether a `Send` may name this: a node or an actor."""
        return (name in self.follow and name != self.start and name not in self.actors) or self.is_actor(name)

    def is_actor(self, path: str) -> bool:
        """Whether a path is one of an actor."""
        found, key = split_path(path)
        return bool(key) and found in self.actors

    def node_of(self, name: str) -> str:
        """The node that stands for whatever a task is called: of an actor, or of a member, that of all of them."""
        if (node := self.members.get(name)) is not None:
            return node
        return split_path(name)[0] if self.is_actor(name) else name

    def descendants(self, nodes: Iterable[str]) -> set[str]:
        """The nodes that one of these, of which START may be one, may lead to; themselves only through a loop."""
        follow, seen = self.follow, set[str]()
        frontier = list(nodes)
        while frontier:
            for follower in follow[frontier.pop()]:
                if follower not in seen:
                    seen.add(follower)
                    frontier.append(follower)
        return seen

    def ancestors(self, node: str) -> set[str]:
        """The nodes that may lead to `node`, without START."""
        seen: set[str] = set()
        frontier = [node]
        while frontier:
            for source in self.sources[frontier.pop()]:
                if source != self.start and source not in seen:
                    seen.add(source)
                    frontier.append(source)
        return seen

    def endless(self) -> list[str] | None:
        """A loop that can never end: each of its edges is always taken, and START leads to it. Or None."""
        reachable = self.reachable()
        for node in self.nodes:
            if node in reachable and (loop := self.loop_through(node, always=True)):
                return loop
        return None


def _path(node: str, last: str, came_from: Mapping[str, str]) -> list[str]:
    path = [last]
    while path[-1] != node:
        path.append(came_from[path[-1]])
    return path[::-1]
