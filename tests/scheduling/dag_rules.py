"""The rules of a whole Dag with trigger groups: who runs when, with what, and who is skipped. No engine, no state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.scheduling.rules import Group

EDGES = "edges"


@dataclass(frozen=True)
class Plot:
    """A random Dag. A node leads only to nodes with a higher number; all are called `n<number>`.

    Attributes:
        added: the names in the order of add_node.
        groups: by node, its groups; edges into it stand first, as a tolerant all_of of the name `EDGES`.
        routed: by node that only a router leads to, the router's node and whether it does.
        cancels: the names of the groups with cancel_rest=True.
    """

    added: Sequence[str]
    groups: Mapping[str, Sequence[Group]]
    routed: Mapping[str, tuple[str, bool]]
    cancels: frozenset[str] = frozenset()

    def sources(self, node: str) -> set[str]:
        if node in self.routed:
            return {self.routed[node][0]}
        kinds = ("sources", "gate", "latest", "optional")
        return {label for group in self.groups[node] for kind in kinds for label in getattr(group, kind)}


@dataclass
class Running:
    """A run of a plot by the rules.

    Attributes:
        running: the nodes at work, by name: the group that fired and the labels of its items.
        done, skipped, cancelled: those that have settled.
        failed: by node that ended the run, the names of its groups that demanded.
    """

    plot: Plot
    running: dict[str, tuple[str | None, frozenset[str]]] = field(default_factory=dict)
    begun: dict[str, tuple[str | None, frozenset[str]]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    failed: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._settle()

    def end(self, node: str) -> None:
        """A node has run."""
        del self.running[node]
        self.done.append(node)
        self._settle()

    def ancestors(self, node: str) -> set[str]:
        """All that led to an activation."""
        causes = self.begun[node][1]
        return set(causes).union(*(self.ancestors(cause) for cause in causes))

    def depth(self, node: str) -> int:
        """How long the longest chain of activations is that led to an activation."""
        return max((1 + self.depth(cause) for cause in self.begun[node][1]), default=0)

    def in_order(self, nodes: Iterable[str]) -> list[str]:
        """These activations by causal depth, then by name."""
        return sorted(nodes, key=lambda node: (self.depth(node), node))

    def _settle(self) -> None:
        changed = True
        while changed:
            changed = False
            for node in sorted(self.plot.added):
                if node not in self.begun and node not in self.skipped and node not in self.failed:
                    changed |= self._decide(node)

    def _decide(self, node: str) -> bool:
        gone = [label for label in self.plot.sources(node) if label in self.skipped]
        if node in self.plot.routed:
            source, taken = self.plot.routed[node]
            if source in self.done and taken:
                return self._begin(node, None, {source})
            return self._skip(node) if source in self.done or gone else False
        groups = self.plot.groups[node]
        if not groups:
            return self._begin(node, None, set())
        for group in groups:
            used = group.used(self.done, gone)
            if used is not None:
                self._begin(node, None if group.name == EDGES else group.name, set(used))
                if group.name in self.plot.cancels:
                    self._cancel(label for label in group.sources if label not in self.done)
                return True
        if not all(group.closed(self.done, gone) for group in groups):
            return False
        if demanding := {group.name for group in groups if group.demands(gone)}:
            self.failed[node] = demanding
            return True
        return self._skip(node)

    def _begin(self, node: str, group: str | None, labels: set[str]) -> bool:
        self.running[node] = self.begun[node] = (group, frozenset(labels))
        return True

    def _skip(self, node: str) -> bool:
        self.skipped.add(node)
        return True

    def _cancel(self, losers: object) -> None:
        for loser in losers:  # type: ignore[attr-defined]
            if loser in self.running:
                del self.running[loser]
            self.cancelled.add(loser)
            self.skipped.add(loser)
            self.begun.pop(loser, None)
