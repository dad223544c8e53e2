"""What has run: a log that only grows, until its beginning is folded for good.

An entry is a bit. What an activation sees, a depth and the writers of a key are sets of entries: plain integers, so
that union, difference and containment cost nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentmatrix.scheduling.scheduled_activation import Order, ScheduledActivation, Write

__all__ = ["ActivationLog", "Rebase", "entries_of"]


def entries_of(bits: int) -> Iterator[int]:
    """The numbers of the entries in a bit set, lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


@dataclass(frozen=True)
class Rebase:
    """How entries and depths are called once the beginning of a log has been folded for good.

    Attributes:
        dropped: the entries that have been folded, as a bit set.
        first: the number of the entry that is the first one now. Entries between others that are gone stay holes.
        floor: how many depths are gone.
    """

    dropped: int
    first: int
    floor: int

    def bits(self, bits: int) -> int:
        """The entries of a bit set that are left, by their new numbers."""
        return (bits & ~self.dropped) >> self.first

    def depth(self, depth: int) -> int:
        """A depth, counted from the new floor."""
        return max(0, depth - self.floor)


class ActivationLog:
    """The activations that have finished, and the events from outside, in the order of recording.

    Attributes:
        nodes: by entry, the node; of an event its label.
        depths: by entry, the depth above `floor`.
        orders: by entry, its place among those of its depth.
        writes: by entry, what it wrote to the state.
        ancestors: by entry, what it saw.
        levels: by depth, the entries of that depth.
        loud: the depths that have an entry which is not silent, in their order.
        writers: by key, the entries that wrote it.
        written: by key, the depths of these, in their order.
        all: all entries.
        outside: the entries that are events from outside.
        silent: those of them that write nothing, such as signals.
        earlier: the entries that do not know an event from outside which all to come knows, and which is not in the
            log any more: they conflict with nothing that is to come.
        floor: how many depths have been folded for good.
    """

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.depths: list[int] = []
        self.orders: list[Order] = []
        self.writes: list[Sequence[Write]] = []
        self.ancestors: list[int] = []
        self.levels: list[int] = []
        self.loud: list[int] = []
        self.written: dict[str, list[int]] = {}
        self.writers: dict[str, int] = {}
        self.all = 0
        self.outside = 0
        self.silent = 0
        self.earlier = 0
        self.floor = 0

    def __len__(self) -> int:
        return len(self.nodes)

    def append(self, activation: ScheduledActivation, writes: Sequence[Write], *, outside: bool = False) -> int:
        """Record an activation that has finished.

        Args:
            activation: what has run.
            writes: what it wrote to the state.
            outside: whether it is an event from outside.

        Returns:
            The entry, as a bit.
        """
        bit = 1 << len(self.nodes)
        self.nodes.append(activation.node)
        self.depths.append(activation.depth)
        self.orders.append(activation.order)
        self.writes.append(writes)
        self.ancestors.append(activation.ancestors)
        while len(self.levels) <= activation.depth:
            self.levels.append(0)
        self.levels[activation.depth] |= bit
        self.all |= bit
        if outside:
            self.outside |= bit
        if outside and not writes:
            self.silent |= bit
        else:
            _note(self.loud, activation.depth)
        for key, _ in writes:
            self.writers[key] = self.writers.get(key, 0) | bit
            _note(self.written.setdefault(key, []), activation.depth)
        return bit

    def of(self, node: str) -> list[int]:
        """The entries of a node, in the order of recording."""
        inner = self.all & ~self.outside
        return [entry for entry, name in enumerate(self.nodes) if name == node and inner >> entry & 1]

    def nodes_by_key(self) -> dict[str, list[str]]:
        """By key, the nodes that have written it, by name."""
        return {
            key: sorted({self.nodes[entry] for entry in entries_of(bits)}) for key, bits in self.writers.items() if bits
        }

    def in_order(self, bits: int) -> list[int]:
        """The entries of a bit set in canonical order: by depth, then by their place in it."""
        return sorted(entries_of(bits), key=lambda entry: (self.depths[entry], self.orders[entry]))

    def last(self) -> list[str]:
        """The nodes of the greatest depth, in canonical order."""
        inner = self.all & ~self.outside
        for level in reversed(self.levels):
            if level & inner:
                return [self.nodes[entry] for entry in self.in_order(level & inner)]
        return []

    def folded(self, pinned: Iterable[tuple[int, int]]) -> tuple[int, int]:
        """How far the beginning of the log is seen in full by all to come.

        Args:
            pinned: what each activation to come sees at least, as a bit set of entries, and its depth.

        Returns:
            The entries that all see, and their depth.
        """
        common, floor = self.all, len(self.levels)
        for known, depth in pinned:
            common, floor = common & known, min(floor, depth)
        floor = next((depth for depth, level in enumerate(self.levels[:floor]) if level & ~common), floor)
        first = 0
        for level in self.levels[:floor]:
            first |= level
        return first, floor

    def compact(self, floor: int) -> Rebase:
        """Forget the entries of the first depths.

        Args:
            floor: how many depths. Whatever is recorded from here on sees all of their entries.

        Returns:
            How the rest is called now.
        """
        dropped = 0
        for level in self.levels[:floor]:
            dropped |= level
        kept = self.all & ~dropped
        first = (kept & -kept).bit_length() - 1 if kept else len(self.nodes)
        rebase = Rebase(dropped, first, floor)
        if events := dropped & self.outside:
            self.earlier |= sum(1 << entry for entry in entries_of(kept) if events & ~self.ancestors[entry])
        for entry in entries_of(dropped >> first):
            self.writes[first + entry] = ()
        self.nodes, self.orders, self.writes = self.nodes[first:], self.orders[first:], self.writes[first:]
        self.depths = list(map(rebase.depth, self.depths[first:]))
        self.ancestors = list(map(rebase.bits, self.ancestors[first:]))
        self.levels = list(map(rebase.bits, self.levels[floor:]))
        self.loud = [depth - floor for depth in self.loud if depth >= floor]
        self.written = {key: [d - floor for d in depths if d >= floor] for key, depths in self.written.items()}
        self.writers = {key: rebase.bits(entries) for key, entries in self.writers.items()}
        self.all, self.outside, self.silent = map(rebase.bits, (self.all, self.outside, self.silent))
        self.earlier = rebase.bits(self.earlier)
        self.floor += floor
        return rebase


def _note(depths: list[int], depth: int) -> None:
    """Keep a depth in its place, once."""
    if not depths or depth > depths[-1]:
        depths.append(depth)
    elif depths[place := bisect_left(depths, depth)] != depth:
        depths.insert(place, depth)
