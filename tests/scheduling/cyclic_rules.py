"""The rules of triggers in a CyclicGraph: queues, activations and quiescence, with no engine and no state."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.scheduling.rules import Group


@dataclass(frozen=True)
class Activation:
    """One activation: which group started it and, by label, the items that it has."""

    node: str
    number: int
    group: str | None
    items: Mapping[str, str]

    @property
    def key(self) -> str:
        return f"{self.node}#{self.number}"


@dataclass
class Cycles:
    """Nodes with queues. An item is called as the activation that made it.

    Attributes:
        groups: by node, what starts it, in the order of declaration. A name stands for an edge from that node.
        concurrent: the nodes that may have several activations at a time.
        running: the activations that have not ended.
        begun: all activations, in order.
    """

    groups: Mapping[str, Sequence[Group | str]]
    concurrent: frozenset[str] = frozenset()
    running: dict[str, Activation] = field(default_factory=dict)
    begun: list[Activation] = field(default_factory=list)
    queues: dict[str, dict[str, deque[tuple[int, str]]]] = field(default_factory=dict)
    newest: dict[tuple[str, str], str] = field(default_factory=dict)
    arrivals: int = 0

    def __post_init__(self) -> None:
        self.queues = {node: {} for node in self.groups}

    def deliver(self, label: str, item: str) -> None:
        """An item of `label` arrives at every node that has it as a source (not by an edge: see `lead`)."""
        for node, groups in self.groups.items():
            self.newest[node, label] = item
            if any(isinstance(group, Group) and label in _consumed(group) for group in groups):
                self._queue(node, label).append((self.arrivals, item))
        self.arrivals += 1
        for node in self.groups:
            self._fire(node)

    def lead(self, source: str, node: str, item: str) -> None:
        """An edge, a router or a command of `source` leads to `node`."""
        self._queue(node, f"edge {source}").append((self.arrivals, item))
        self.arrivals += 1
        self._fire(node)

    def end(self, key: str) -> None:
        """An activation has ended; its node may start another one."""
        self._fire(self.running.pop(key).node)

    def rest(self) -> tuple[list[tuple[str, str]], list[Activation]]:
        """At quiescence: the demanding groups that lack a part of their items, and what fires with what is there."""
        lacking, begun = [], len(self.begun)
        for node, groups in self.groups.items():
            for group in groups:
                if not isinstance(group, Group) or group.kind == "any_of":
                    continue
                there = [label for label in (*group.sources, *group.gate) if self._queue(node, label)]
                if there and group.skipped == "error":
                    lacking.append((node, group.name))
                if group.skipped == "ok":
                    self._fire(node, exhausted=True)
        return lacking, self.begun[begun:]

    def _queue(self, node: str, label: str) -> deque[tuple[int, str]]:
        return self.queues[node].setdefault(label, deque())

    def _fire(self, node: str, exhausted: bool = False) -> None:
        while node in self.concurrent or not any(a.node == node for a in self.running.values()):
            found = next((f for g in self.groups[node] if (f := self._complete(node, g, exhausted)) is not None), None)
            if found is None:
                return
            group, taken = found
            items = {label: self._queue(node, label).popleft()[1] for label in taken}
            if group is not None:
                items |= {label: self.newest[node, label] for label in group.latest if (node, label) in self.newest}
            number = 1 + sum(a.node == node for a in self.begun)
            activation = Activation(node, number, group.name if group else None, items)
            self.begun.append(activation)
            self.running[activation.key] = activation

    def _complete(self, node: str, group: Group | str, exhausted: bool) -> tuple[Group | None, list[str]] | None:
        if isinstance(group, str):
            return (None, [f"edge {group}"]) if self._queue(node, f"edge {group}") else None
        heads = sorted((queue[0][0], label) for label, queue in self.queues[node].items() if queue)
        came = [label for _, label in heads if label in _consumed(group)]
        gone = [label for label in _consumed(group) if label not in came] if exhausted else []
        used = group.used(came, gone)
        return None if used is None else (group, [label for label in used if label not in group.latest])


def _consumed(group: Group) -> tuple[str, ...]:
    return (*group.sources, *group.gate, *group.optional)
