"""The ledger of a graph as the agenda of a superstep that stays open: what may start, what it sees, what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentmatrix.compose.activation import LEDGER, Activation, activation_of
from agentmatrix.compose.entries import Entry, Firing, Pending
from agentmatrix.compose.folding import Fold, Write
from agentmatrix.compose.ledger import Ledger
from agentmatrix.compose.triggered import DagLedger, TriggeredLedger, name_of
from agentmatrix.ledger_engine.scheduler import Turn
from agentmatrix.triggers import Every

__all__ = ["LEDGER", "LedgerAgenda", "Reading"]

Origin = tuple[int, int]
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """What the task of one turn reads of the ledger, as it was when the turn became ready."""

    ledger: Ledger
    fold: Fold
    way: _Way

    def seen(self, node: str, number: int | None) -> Fold:
        """What the node sees."""
        return self.fold

    def packet(self, number: int) -> Any:
        """What the packet carries that started it."""
        return self.way.pending.send.arg if self.way.pending else None

    def activated(self, node: str) -> Activation:
        """What started it."""
        return activation_of(self.ledger, self.way.node, self.way.firing, self.way.pending)

    def error(self, node: str) -> Exception | None:
        """What it raises instead of running."""
        return self.way.firing.error if self.way.firing else None


@dataclass(frozen=True)
class _Way:
    """How a turn came about: by a packet, by a trigger group, or by edges."""

    node: str
    pending: Pending | None = None
    firing: Firing | None = None

    @property
    def origin(self) -> Origin | None:
        return self.pending.origin if self.pending else None

    @property
    def key(self) -> tuple[str, Origin | None, int]:
        return self.node, self.origin, self.firing.number if self.firing else 0


@dataclass(frozen=True)
class _Ready:
    """A turn with what was settled when it became ready: timing changes neither its causes nor what it sees."""

    turn: Turn
    way: _Way
    causes: tuple[int, ...]
    reading: Reading


class LedgerAgenda:
    """A copy of the ledger, and the turns that follow from it.

    Attributes:
        ordered: whether it matters in which order things happened.
    """

    def __init__(self, ledger: Ledger, saved: int) -> None:
        self.ledger, self._outside = ledger.before(saved)
        self.ordered = isinstance(ledger, TriggeredLedger)
        self._released = 0
        self._last = 0
        self._depths: dict[int, int] = {}
        self._ready: dict[str, _Ready] = {}
        self._tell: Callable[[Mapping[str, str]], None] | None = None
        self._told: Mapping[str, str] = {}
        self._known: set[tuple[str, Origin | None, int]] = set()
        if not self.ledger.unfinished():
            self.ledger, self._outside = ledger.copy(), []

    # what may start

    def turns(self) -> Sequence[Turn]:
        plan = self.ledger.plan()
        ways = [_Way(pending.send.node, pending) for pending in plan.pending]
        ways += [_Way(firing.node, firing=firing) for firing in plan.fired]
        ways += [_Way(node) for node in plan.ready if not plan.fired]
        return [self._turn(way) for way in ways if way.key not in self._known]

    def _turn(self, way: _Way) -> Turn:
        self._known.add(way.key)
        name = name_of(way.firing) if way.firing else self.ledger.name(way.node, way.origin)
        if name not in self._ready:
            self._ready[name] = self._made(name, way)
        return self._ready[name].turn

    def _made(self, name: str, way: _Way) -> _Ready:
        ledger, pending = self.ledger, way.pending
        causes = ledger.causes(way.node, way.origin)
        if way.firing is not None and isinstance(ledger, TriggeredLedger):
            causes = ledger.causes_of(way.firing)
        here = [cause for cause in causes if cause in self._depths]
        packet = (pending.origin[1], pending.send) if pending else None
        depth = self._depth(way, here)
        after = tuple(ledger.activations[cause].node for cause in here)
        reading = Reading(ledger, ledger.after(causes), way)
        return _Ready(Turn(way.node, name, packet, depth, after), way, causes, reading)

    def _depth(self, way: _Way, causes: Iterable[int]) -> int:
        if way.node in self.ledger.topology.deferred:
            causes = self._depths
        elif way.firing is not None and self.ledger.repeats:
            causes = [cause for cause in way.firing.chain if cause in self._depths]
        return max((self._depths[cause] + 1 for cause in causes), default=0)

    def reading(self, turn: Turn) -> Reading:
        return self._ready[turn.name].reading

    def given(self, turn: Turn) -> Any:
        firing = self._ready[turn.name].way.firing
        if firing is None or firing.group is None:
            return None
        return firing.group, activation_of(self.ledger, turn.node, firing, None).items

    def take_dropped(self) -> Sequence[Turn]:
        if not (isinstance(self.ledger, TriggeredLedger) and self.ledger.dropped):
            return ()
        nodes, self.ledger.dropped = set(self.ledger.dropped), []
        dropped = [ready.turn for ready in self._ready.values() if ready.turn.node in nodes]
        for turn in dropped:
            del self._ready[turn.name]
        return dropped

    # what comes from outside

    @property
    def signals(self) -> frozenset[str]:
        return self.ledger.topology.signals

    @property
    def timers(self) -> Mapping[str, tuple[float, bool]]:
        if not isinstance(self.ledger, TriggeredLedger):
            return {}
        pending = self.ledger.arrivals.timers
        timers = self.ledger.topology.timers
        return {t.name: (t.seconds, isinstance(t, Every)) for t in timers if isinstance(t, Every) or t.name in pending}

    @property
    def open(self) -> bool:
        return isinstance(self.ledger, TriggeredLedger) and self.ledger.arrivals.open

    def unread(self, name: str) -> int:
        return self.ledger.arrivals.unread(name) if isinstance(self.ledger, TriggeredLedger) else 0

    def knows(self, id: str) -> bool:
        return isinstance(self.ledger, TriggeredLedger) and self.ledger.arrivals.knows(id)

    def is_idle(self) -> bool:
        return not self.ledger.unfinished()

    def expects(self) -> bool:
        return isinstance(self.ledger, TriggeredLedger) and self.ledger.expects()

    def is_going(self) -> bool:
        return not isinstance(self.ledger, TriggeredLedger) or self.ledger.is_going()

    def reads(self) -> bool:
        return isinstance(self.ledger, DagLedger) and self.ledger.reads()

    def watch(self, tell: Callable[[Mapping[str, str]], None]) -> None:
        self._tell, self._told = tell, {}
        self._look()

    def _look(self) -> None:
        if self._tell is not None and (over := self.ledger.over()) != self._told:
            self._told = over
            self._tell(over)

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

    def arrival(self, writes: Iterable[Write]) -> int:
        return int(_report(writes).get("at", 0))

    def counted(self, arrival: int) -> None:
        self._last = max(self._last, arrival)

    def happened(self, event: Mapping[str, Any]) -> Sequence[Write]:
        """What an event from outside is kept as, so that a resumed run meets it again."""
        self._last += 1
        return [(LEDGER, {"event": dict(event), "knew": self._released, "at": self._last})]

    def heed(self, writes: Iterable[Write]) -> None:
        """Let an event from outside count."""
        report = _report(writes)
        event, ledger = report["event"], self.ledger
        self.counted(report["at"])
        if not isinstance(ledger, TriggeredLedger):
            return
        if "signal" in event:
            ledger.hear(event["signal"], event["value"], event["id"])
        elif "tick" in event:
            ledger.tick(event["tick"])
        else:
            ledger.listen(open=event["open"])
        self._look()

    # what has run

    def accepted(self, turn: Turn, writes: Iterable[Write]) -> Sequence[Write]:
        said = {"turn": turn.name, "knew": self._released, "at": self._last + 1}
        kept = [(key, {**value, **said} if key == LEDGER else value) for key, value in writes]
        self.ledger.checked(self._entry(turn, kept))
        self._last += 1
        return kept

    def finish(self, turn: Turn, writes: Iterable[Write]) -> None:
        written = list(writes)
        self.counted(self.arrival(written))
        self.ledger.record(self._entry(turn, written))
        self._depths[len(self.ledger.activations) - 1] = turn.depth
        self._known.discard(self._ready.pop(turn.name).way.key)
        self._look()

    def take(self, reports: Iterable[Report]) -> Ledger:
        """The ledger with all that turns and events report, and with all updates from outside."""
        left = sorted(reports, key=lambda report: report.get("at", 0))
        while self._take(left) or self.release():
            pass
        return self.ledger

    def _take(self, left: list[Report]) -> bool:
        self.turns()
        reached = [report for report in left if report["knew"] <= self._released and self._reached(report)]
        for report in reached[:1] if self.ordered else reached:
            left.remove(report)
            if "event" in report:
                self.heed([(LEDGER, report)])
            else:
                self.finish(self._ready[report["turn"]].turn, [(LEDGER, report)])
        return bool(reached)

    def _reached(self, report: Report) -> bool:
        return "event" in report or report["turn"] in self._ready

    def _entry(self, turn: Turn, writes: Iterable[Write]) -> Entry:
        ready = self._ready[turn.name]
        origin, firing, report = ready.way.origin, ready.way.firing, _report(writes)
        number = firing.number if firing else 0
        if not report:
            return Entry(turn.node, follows=False, origin=origin, causes=ready.causes, number=number)
        return Entry(
            turn.node,
            tuple(report["writes"]),
            tuple(report["chosen"]),
            tuple(report["sends"]),
            report["follows"],
            origin,
            ready.causes,
            number=number,
        )


def _report(writes: Iterable[Write]) -> Report:
    return next((value for key, value in writes if key == LEDGER), {})
