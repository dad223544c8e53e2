"""What has arrived at the nodes of a graph with trigger groups and was not used yet. Pure; knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentmatrix.compose.entries import Item
from agentmatrix.scheduling.topology import Topology
from agentmatrix.triggers import After, Every, Group, label_of

__all__ = ["Arrivals"]


class Arrivals:
    """One queue for each node and each of its sources; the values of signals; what may still come from outside.

    Attributes:
        open: whether signals may come.
        ended: whether the run has reached END, so that nothing from outside counts any more.
        timers: the labels of the timers that are still to fire once.
        newest: by label, what came last.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._queues: dict[tuple[str, str], list[Item]] = {}
        self._values: dict[tuple[str, int], Any] = {}
        self._numbers: dict[str, int] = {}
        self._given: set[tuple[str, int]] = set()
        self._heard: set[str] = set()
        self._clock = 0
        self.newest: dict[str, Item] = {}
        self.open = bool(topology.signals) and not topology.deaf
        self.ended = False
        self.timers = {source.name for source in topology.timers if isinstance(source, After)}

    # what comes

    def deliver(self, node: str, label: str, item: Item) -> None:
        """An item for one node."""
        self._queues.setdefault((node, label), []).append(item)

    def item(self, entries: tuple[int, ...] = (), *, number: int = 0, several: bool = False) -> Item:
        """A new item, the last one to arrive so far."""
        self._clock += 1
        return Item(entries, number, self._clock, several)

    def knows(self, id: str) -> bool:
        """Whether a signal of this id has come before."""
        return id in self._heard

    def hear(self, label: str, value: Any, id: str) -> None:
        """A signal has come. The second one of an id is none."""
        if id not in self._heard and not self.ended:
            self._heard.add(id)
            self._arrive(label, value)

    def tick(self, label: str) -> None:
        """A timer has fired."""
        self.timers.discard(label)
        count = self._numbers.get(label, 0) + 1
        every = any(source.name == label and isinstance(source, Every) for source in self._topology.timers)
        self._arrive(label, count, one=every)

    def _arrive(self, label: str, value: Any, *, one: bool = False) -> None:
        number = self._numbers[label] = self._numbers.get(label, 0) + 1
        item = self.item(number=number)
        before = self.newest.get(label)
        self.newest[label] = item
        for node in self._topology.listeners.get(label, ()):
            if self._takes(node, label) and not (one and self._queues.get((node, label))):
                self.deliver(node, label, item)
        self._values[label, number] = value
        if before is not None:
            self._drop(label, before.number)

    def _takes(self, node: str, label: str) -> bool:
        """Whether some group of the node consumes items of this source, rather than only read the newest."""
        groups = self._topology.groups[node]
        return any(label_of(s) == label for group in groups for s in (*group.triggering, *group.optional))

    def end(self) -> None:
        """The run has reached END: what nobody has read is dropped."""
        self.ended, self.open = True, False
        self.timers.clear()
        outside = {*self._topology.signals, *(source.name for source in self._topology.timers)}
        for node, label in [key for key in self._queues if key[1] in outside]:
            for item in self._queues.pop((node, label)):
                self._drop(label, item.number)

    # what is there

    def queue(self, node: str, label: str) -> list[Item]:
        """What the node has not used of a source, in the order of arrival."""
        return self._queues.get((node, label), [])

    def unread(self, label: str) -> int:
        """How many signals or ticks of this name somebody has not consumed."""
        listeners = self._topology.listeners.get(label, ())
        return max((len(self.queue(node, label)) for node in listeners), default=0)

    def value(self, label: str, item: Item) -> Any:
        """What a signal or tick carries."""
        return self._values.get((label, item.number))

    def forget(self, label: str, number: int) -> None:
        """The nodes that were given the value of a signal have run."""
        self._given.discard((label, number))
        self._drop(label, number)

    def _drop(self, label: str, number: int) -> None:
        """The value of a signal is kept as long as somebody is to read it."""
        newest = self.newest.get(label)
        if (label, number) in self._given or (newest and newest.number == number):
            return
        queues = (self.queue(node, label) for node in self._topology.listeners.get(label, ()))
        if not any(queue and queue[0].number <= number for queue in queues):
            self._values.pop((label, number), None)

    def take(self, node: str, group: Group, have: Mapping[str, Item]) -> dict[str, Item]:
        """Takes from the queues what the group consumes and reads.

        Args:
            node: the node of the group.
            group: a group that is complete.
            have: by label, the next item of each of its sources that has one.
        """
        came = [label for label in map(label_of, group.regular) if label in have]
        consumed = sorted(came, key=lambda label: have[label].at)[: group.need]
        consumed += [label_of(source) for source in (*group.gates, *group.optional) if label_of(source) in have]
        for label in consumed:
            if queue := self._queues.get((node, label)):
                queue.pop(0)
        read = [label_of(source) for source in group.latest if label_of(source) in have]
        taken = {label: have[label] for label in (*consumed, *read)}
        self._given.update((label, item.number) for label, item in taken.items() if item.number)
        return taken

    # what a checkpoint keeps

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "queues": [[*key, [_plain(item) for item in items]] for key, items in self._queues.items() if items],
            "values": [[*key, value] for key, value in self._values.items()],
            "newest": {label: _plain(item) for label, item in self.newest.items()},
            "given": sorted([*key] for key in self._given),
            "numbers": dict(self._numbers),
            "heard": sorted(self._heard),
            "clock": self._clock,
            "open": self.open,
            "ended": self.ended,
            "timers": sorted(self.timers),
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Out of plain values."""
        self._queues = {(node, label): [_item(item) for item in items] for node, label, items in plain["queues"]}
        self._values = {(label, number): value for label, number, value in plain["values"]}
        self.newest = {label: _item(item) for label, item in plain["newest"].items()}
        self._given = {(label, number) for label, number in plain["given"]}
        self._numbers, self._heard = dict(plain["numbers"]), set(plain["heard"])
        self._clock, self.open, self.ended = plain["clock"], plain["open"], plain["ended"]
        self.timers = set(plain["timers"])

    def left(self) -> Iterator[tuple[str, str]]:
        """The nodes and labels with items that nobody has used."""
        return (key for key, items in self._queues.items() if items)


def _plain(item: Item) -> list[Any]:
    return [list(item.entries), item.number, item.at, item.several]


def _item(plain: list[Any]) -> Item:
    entries, number, at, several = plain
    return Item(tuple(entries), number, at, several)
