"""The ledger of a `Dag` among LangGraph's channels.

One hidden channel keeps the ledger. The keys of the state, the triggers of the nodes and the pending packets are views
of it: channels that hold nothing and answer from the ledger. So LangGraph's own loop plans, streams, checkpoints,
pauses and resumes a graph whose joins and views it does not know.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypedDict

from langgraph.channels.base import BaseChannel
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.errors import EmptyChannelError
from langgraph.types import Send

from agentmatrix.compose.agenda import LEDGER, LedgerAgenda
from agentmatrix.compose.cycles import CyclicLedger
from agentmatrix.compose.entries import Entry
from agentmatrix.compose.folding import Write
from agentmatrix.compose.ledger import Ledger
from agentmatrix.compose.triggered import DagLedger, TriggeredLedger
from agentmatrix.ledger_engine.scheduler import AgendaChannel
from agentmatrix.pregel.compiled_graph import MISSING
from agentmatrix.scheduling.topology import Topology

__all__ = ["LEDGER", "InputView", "LedgerChannel", "PendingView", "Report", "StateView", "TriggerView"]


Channel = BaseChannel[Any, Any, Any]
Origin = tuple[int, int]


class Report(TypedDict, total=False):
    """What the writer of a node tells the ledger.

    Attributes:
        node: the node.
        packet: the number of the packet that started it, among those pending; None where an edge did.
        update: whether it is no run of the node, but `update_state` in its name.
        turn: the name of the activation, where the step stays open and packets have no numbers.
        event: not of a node, but a signal, a tick, or whether signals may come.
        knew: how many updates from outside had come since the checkpoint when it ended.
        at: its place in the order in which turns ended and events came.
        close: nothing more; the run is over.
        writes: what it wrote, less what it handed back unchanged.
        keys: the keys of all its writes, as they reach the channels besides.
    """

    node: str
    packet: int | None
    update: bool
    turn: str
    event: dict[str, Any]
    knew: int
    at: int
    close: bool
    writes: list[Write]
    keys: list[str]
    chosen: list[str]
    sends: list[Send]
    follows: bool


# LangGraph makes the channels of a loop one after another in one go, the ledger first: the views that follow are of it.
_current = threading.local()


def _kind(topology: Topology) -> type[Ledger]:
    """The ledger that keeps the rules of such a graph."""
    if topology.max_rounds:
        return CyclicLedger
    return DagLedger if topology.groups else Ledger


class LedgerChannel(AgendaChannel):
    """Keeps the ledger, and tells the views that they have changed."""

    __slots__ = ("__weakref__", "announced", "channels", "closing", "ledger", "moved", "saved", "topology")

    ahead: LedgerAgenda | None

    def __init__(self, topology: Topology, channels: Mapping[str, Channel]) -> None:
        super().__init__(dict, LEDGER)
        self.topology = topology
        self.channels = channels
        self.ledger = _kind(topology)(topology, channels)
        self.announced: Counter[str] = Counter()
        self.closing = False
        self.moved = False
        self.ahead = None
        self.saved = 0

    def agenda(self) -> LedgerAgenda:
        return LedgerAgenda(self.ledger, self.saved)

    def opens(self) -> bool:
        return not self.closing

    def listens(self) -> bool:
        outside = self.topology.signals or self.topology.timers
        return bool(outside) and not self.topology.deaf and bool(self.ledger.activations)

    @property
    def live(self) -> Ledger:
        """The ledger with what has finished in an open step."""
        return self.ahead.ledger if self.ahead else self.ledger

    @property
    def ValueType(self) -> Any:
        return dict

    @property
    def UpdateType(self) -> Any:
        return dict

    def from_checkpoint(self, checkpoint: Any) -> Self:
        channel = type(self)(self.topology, self.channels)
        saved = {} if checkpoint is MISSING else checkpoint
        base = {k: c.from_checkpoint(saved.get("base", {}).get(k, MISSING)) for k, c in self.channels.items()}
        activations = Ledger.activations_of(saved) if saved else []
        channel.saved = len(activations)
        called = saved.get("called", ())
        channel.ledger = _kind(self.topology)(self.topology, self.channels, base, activations, called)
        if isinstance(channel.ledger, TriggeredLedger) and "triggers" in saved:
            channel.ledger.restore(saved["triggers"], called)
        _current.ledger = weakref.ref(channel)
        return channel

    def checkpoint(self) -> Any:
        untracked = {key for key, channel in self.channels.items() if isinstance(channel, UntrackedValue)}
        kept = self.ledger.plain()
        for activation in kept["activations"] if untracked else ():
            activation["writes"] = [w for w in activation.get("writes", ()) if w[0] not in untracked]
        base = {key: _kept(channel) for key, channel in self.ledger.base.items() if key not in untracked}
        return {"base": {key: value for key, value in base.items() if value is not MISSING}, **kept}

    def get(self) -> Ledger:
        return self.ledger

    def is_available(self) -> bool:
        return True

    def update(self, values: Sequence[Report]) -> bool:
        changed, self.moved = bool(values) or self.moved, False
        for report in values:
            self.announced.update(report.get("keys", ()))
        if values and self.ahead is not None:
            self.ledger, self.ahead = self.ahead.ledger, None
        elif values and all("turn" in report or "event" in report for report in values):
            self.ledger = self.agenda().take(values)
        else:
            for report, origin in zip(values, self._origins(values), strict=True):
                self._note(report, origin)
        if values:
            self.saved = len(self.ledger.activations)
        return changed

    def _note(self, report: Report, origin: Origin | None) -> None:
        ledger = self.ledger
        if report.get("close"):
            ledger.close()
            return
        node, writes, chosen, sends = report["node"], report["writes"], report["chosen"], report["sends"]
        if report["update"]:
            ledger.update(node, writes, chosen, sends)
        elif node == self.topology.start:
            ledger.begin(writes, chosen, sends)
        else:
            ledger.record(Entry(node, tuple(writes), tuple(chosen), tuple(sends), report["follows"], origin))
        self.closing = self.closing and node != self.topology.start

    def _origins(self, reports: Sequence[Report]) -> list[Origin | None]:
        """Which packet started each of them. Where all packets of a node report, their order tells, for a number out
        of a cache may be that of another run; where only some do, their numbers tell."""
        packets: dict[str, list[Origin]] = {}
        pending = self.ledger.plan().pending
        for packet in pending:
            packets.setdefault(packet.send.node, []).append(packet.origin)
        counts = Counter(report["node"] for report in reports if report.get("packet") is not None)
        origins: list[Origin | None] = []
        for report in reports:
            number, mine = report.get("packet"), packets.get(report.get("node", ""), [])
            if number is None or not mine:
                origins.append(None)
                continue
            some = counts[report["node"]] < len(mine) and number < len(pending)
            origin = pending[number].origin if some and pending[number].origin in mine else mine[0]
            origins.append(origin)
            mine.remove(origin)
            counts[report["node"]] -= 1
        return origins


def _kept(channel: Channel) -> Any:
    """What a checkpoint keeps of a channel; of one that LangGraph would rebuild from its history, the value."""
    kept = channel.checkpoint()
    if kept is not MISSING:
        return kept
    try:
        return channel.get()
    except EmptyChannelError:
        return MISSING


class _View(BaseChannel[Any, Any, Any]):
    """A channel that holds nothing of its own."""

    __slots__ = ("source",)

    def __init__(self, key: str, typ: Any = Any) -> None:
        super().__init__(typ, key)
        self.source: LedgerChannel | None = None

    @property
    def ValueType(self) -> Any:
        return self.typ

    @property
    def UpdateType(self) -> Any:
        return self.typ

    @property
    def ledger(self) -> Ledger:
        """The ledger that this is a view of."""
        return self._source.ledger

    @property
    def _source(self) -> LedgerChannel:
        if self.source is None:
            raise RuntimeError(f"the channel {self.key!r} of a Dag was used outside of a run")
        return self.source

    def _clone(self) -> Self:
        return type(self)(self.key, self.typ)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        view = self._clone()
        view.source = _current.ledger()
        return view

    def checkpoint(self) -> Any:
        return MISSING

    def _intervened(self) -> bool:
        self._source.moved = True
        return True


class StateView(_View):
    """A key of the state."""

    __slots__ = ("spec",)

    def __init__(self, key: str, spec: Channel) -> None:
        super().__init__(key, spec.typ)
        self.spec = spec

    @property
    def ValueType(self) -> Any:
        return self.spec.ValueType

    @property
    def UpdateType(self) -> Any:
        return self.spec.UpdateType

    def _clone(self) -> Self:
        return type(self)(self.key, self.spec)

    def get(self) -> Any:
        return self._source.live.final()[self.key].get()

    def is_available(self) -> bool:
        return self._source.live.final()[self.key].is_available()

    def checkpoint(self) -> Any:
        return self.ledger.final()[self.key].checkpoint()

    def update(self, values: Sequence[Any]) -> bool:
        # A node's writes have reached the ledger already; what nobody announced came from outside of the run.
        if values and not self._source.announced.pop(self.key, 0):
            self.ledger.intervene([(self.key, value) for value in values])
            return self._intervened()
        return bool(values)


class TriggerView(_View):
    """Whether a node may run now."""

    __slots__ = ()

    def get(self) -> Any:
        if not self.is_available():
            raise EmptyChannelError
        return None

    def is_available(self) -> bool:
        source = self._source
        return not source.closing and self.typ in source.ledger.plan().ready

    def update(self, values: Sequence[Any]) -> bool:
        if values:
            self.ledger.call(self.typ)
            return self._intervened()
        return self.is_available()


class PendingView(_View):
    """The packets that are still to be delivered."""

    __slots__ = ()

    def get(self) -> list[Send]:
        if not self.is_available():
            raise EmptyChannelError
        return self.ledger.plan().packets

    def is_available(self) -> bool:
        return not self._source.closing and bool(self.ledger.plan().pending)

    def update(self, values: Sequence[Any]) -> bool:
        if values:
            self.ledger.intervene(sends=list(values))
            return self._intervened()
        return False


class InputView(_View):
    """The input of a run, as LangGraph keeps it until START has run. It ends what was still to run before it."""

    __slots__ = ("spec",)

    def __init__(self, key: str, spec: Channel) -> None:
        super().__init__(key, spec.typ)
        self.spec = spec

    def _clone(self) -> Self:
        return type(self)(self.key, self.spec)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        view = super().from_checkpoint(checkpoint)
        view.spec = self.spec.from_checkpoint(checkpoint)
        view._source.closing = view.spec.is_available()
        return view

    def checkpoint(self) -> Any:
        return self.spec.checkpoint()

    def get(self) -> Any:
        return self.spec.get()

    def is_available(self) -> bool:
        return self.spec.is_available()

    def update(self, values: Sequence[Any]) -> bool:
        changed = self.spec.update(values)
        if values:
            self._source.closing = True
        return changed
