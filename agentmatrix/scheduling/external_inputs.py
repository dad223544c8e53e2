"""What reaches a run from outside: signals, timers, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentmatrix.scheduling.topology import Topology
from agentmatrix.triggers import After, Every

__all__ = ["ExternalInputs"]


class ExternalInputs:
    """A graph without signals and timers has one too: nothing is open, nothing is awaited.

    Args:
        topology: the shape of the graph.

    Attributes:
        signals: the names of the signals that it declares.
        open: whether signals may come.
        ended: whether the run has reached END, so that nothing from outside counts any more.
        pending: the labels of the timers that are still to fire once.
    """

    def __init__(self, topology: Topology) -> None:
        self.signals = topology.signals
        self._timers = topology.timers
        self._ids: dict[str, None] = {}
        self._counts: dict[str, int] = {}
        self.open = bool(self.signals) and not topology.deaf
        self.ended = False
        self.pending = {timer.name for timer in self._timers if isinstance(timer, After)}

    def knows(self, id: str) -> bool:
        """Whether a signal of this id has come before."""
        return id in self._ids

    def hear(self, id: str) -> None:
        """A signal has come."""
        self._ids[id] = None

    def tick(self, label: str) -> int:
        """A timer has fired. Returns how often it has."""
        self.pending.discard(label)
        self._counts[label] = count = self._counts.get(label, 0) + 1
        return count

    def repeats(self, label: str) -> bool:
        """Whether this is a timer that fires again and again."""
        return any(timer.name == label and isinstance(timer, Every) for timer in self._timers)

    def timers(self) -> dict[str, tuple[float, bool]]:
        """The timers that are to fire: by label, the seconds and whether it fires again and again."""
        return {
            timer.name: (timer.seconds, isinstance(timer, Every))
            for timer in self._timers
            if isinstance(timer, Every) or timer.name in self.pending
        }

    def labels(self) -> set[str]:
        """The labels of all signals and timers."""
        return {*self.signals, *(timer.name for timer in self._timers)}

    def end(self) -> None:
        """The run has reached END."""
        self.ended, self.open = True, False
        self.pending.clear()

    def plain(self) -> dict[str, Any]:
        """As plain values. Whether signals may come is for the next run to say."""
        return {
            "ids": list(self._ids),
            "counts": dict(self._counts),
            "ended": self.ended,
            "pending": sorted(self.pending),
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Out of plain values."""
        self._ids, self._counts = dict.fromkeys(plain["ids"]), dict(plain["counts"])
        self.ended, self.pending = plain["ended"], {*plain["pending"]}
        self.open = self.open and not self.ended
