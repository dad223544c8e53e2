"""The ledger of a `Dag` as the agenda of a superstep that stays open: what may start, what it sees, what it wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.types import Send

from agentmatrix.compose.folding import Fold, Write
from agentmatrix.compose.ledger import Activation, Ledger
from agentmatrix.pregel_turns import Turn

__all__ = ["LEDGER", "LedgerAgenda", "Reading"]

LEDGER = "dag:ledger"
Origin = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """What the task of one turn reads of the ledger, as it was when the turn became ready."""

    fold: Fold
    packed: Any

    def seen(self, node: str, number: int | None) -> Fold:
        """What the node sees."""
        return self.fold

    def packet(self, number: int) -> Any:
        """What the packet carries that started it."""
        return self.packed


@dataclass(frozen=True)
class _Ready:
    """A turn with what was settled when it became ready: timing changes neither its causes nor what it sees."""

    turn: Turn
    origin: Origin | None
    causes: tuple[int, ...]
    reading: Reading


class LedgerAgenda:
    """A copy of the ledger, and the turns that follow from it."""

    def __init__(self, ledger: Ledger, saved: int) -> None:
        self.ledger, self._outside = ledger.before(saved)
        self._released = 0
        self._depths: dict[int, int] = {}
        self._ready: dict[str, _Ready] = {}
        self._known: set[tuple[str, Origin | None]] = set()
        if not self.ledger.unfinished():
            self.ledger, self._outside = ledger.copy(), []

    def turns(self) -> Sequence[Turn]:
        plan = self.ledger.plan()
        ways = [(p.send.node, p.origin, p.send) for p in plan.pending] + [(node, None, None) for node in plan.ready]
        return [self._turn(*way) for way in ways if way[:2] not in self._known]

    def _turn(self, node: str, origin: Origin | None, send: Send | None) -> Turn:
        self._known.add((node, origin))
        name = self.ledger.name(node, origin)
        if name not in self._ready:
            causes = self.ledger.causes(node, origin)
            here = [cause for cause in causes if cause in self._depths]
            packet = (origin[1], send) if origin is not None and send is not None else None
            depth = self._depth(node, here)
            after = tuple(self.ledger.activations[cause].node for cause in here)
            reading = Reading(self.ledger.view(node, origin), send.arg if send else None)
            self._ready[name] = _Ready(Turn(node, name, packet, depth, after), origin, causes, reading)
        return self._ready[name].turn

    def _depth(self, node: str, causes: Sequence[int]) -> int:
        last = self._depths if node in self.ledger.topology.deferred else causes
        return max((self._depths[cause] + 1 for cause in last), default=0)

    def reading(self, turn: Turn) -> Reading:
        return self._ready[turn.name].reading

    def release(self) -> bool:
        if self._released == len(self._outside):
            return False
        self.ledger.replay(self._outside[self._released])
        self._released += 1
        self._ready.clear()
        self._known.clear()
        return True

    def knew(self, writes: Iterable[Write]) -> bool:
        return bool(_report(writes).get("knew", 0) <= self._released)

    def accepted(self, turn: Turn, writes: Iterable[Write]) -> Sequence[Write]:
        said = {"turn": turn.name, "knew": self._released}
        kept = [(key, {**value, **said} if key == LEDGER else value) for key, value in writes]
        self.ledger.checked(self._activation(turn, kept))
        return kept

    def finish(self, turn: Turn, writes: Iterable[Write]) -> None:
        self.ledger.record(self._activation(turn, writes))
        self._depths[len(self.ledger.activations) - 1] = turn.depth
        self._known.discard((turn.node, self._ready.pop(turn.name).origin))

    def take(self, reports: Iterable[Mapping[str, Any]]) -> Ledger:
        """The ledger with all that turns report, and with all updates from outside."""
        left = list(reports)
        while self._take(left) or self.release():
            pass
        return self.ledger

    def _take(self, left: list[Mapping[str, Any]]) -> bool:
        self.turns()
        reached = [r for r in left if r["turn"] in self._ready and r["knew"] <= self._released]
        for report in reached:
            self.finish(self._ready[report["turn"]].turn, [(LEDGER, report)])
            left.remove(report)
        return bool(reached)

    def _activation(self, turn: Turn, writes: Iterable[Write]) -> Activation:
        ready = self._ready[turn.name]
        report = _report(writes)
        if not report:
            return Activation(turn.node, follows=False, origin=ready.origin, causes=ready.causes)
        return Activation(
            turn.node,
            tuple(report["writes"]),
            tuple(report["chosen"]),
            tuple(report["sends"]),
            report["follows"],
            ready.origin,
            ready.causes,
        )


def _report(writes: Iterable[Write]) -> Mapping[str, Any]:
    return next((value for key, value in writes if key == LEDGER), {})
