"""The ledger of a `Dag` with trigger groups, and what it shares with that of a graph with loops. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from langgraph.types import Send

from agentmatrix.compose.arrivals import Arrivals
from agentmatrix.compose.entries import Entry, Firing, Item, Plan, firing_of, plain_firing
from agentmatrix.compose.folding import Fold, Write
from agentmatrix.compose.ledger import Ledger
from agentmatrix.errors import TriggerError
from agentmatrix.triggers import After, Every, Group, GroupState, Signal, Source, label_of

__all__ = ["DagLedger", "TriggeredLedger"]


class TriggeredLedger(Ledger):
    """A ledger of nodes that trigger groups start. What is decided follows from the order in which things happen, and
    happens in that order again where a run is resumed.

    Attributes:
        arrivals: what has come and was not used yet.
        due: what has been started, and has not finished.
        dropped: nodes whose work was cancelled since the last look.
    """

    def _load(self, base: Fold, activations: Iterable[Entry], called: Iterable[str] = ()) -> None:
        self.arrivals = Arrivals(self.topology)
        self.due: list[Firing] = []
        self.dropped: list[str] = []
        self._lost: set[str] = set()
        self._numbers: dict[str, int] = {}
        super()._load(base, activations, called)

    def copy(self) -> Self:
        other = super().copy()
        other.restore(self._state(), other.called)
        return other

    def before(self, count: int) -> tuple[Self, list[Entry]]:
        other, later = super().before(count)
        if later:
            other.restore(self._state(), other.called)
        return other, later

    # what has happened

    def begin(self, writes: Iterable[Write], chosen: Sequence[str] = (), sends: Sequence[Send] = ()) -> None:
        super().begin(writes, chosen, sends)
        self._began()
        self.plan()

    def _began(self) -> None:
        """START has run."""

    def record(self, activation: Entry) -> None:
        index = len(self.activations)
        firing = None if activation.outside or activation.origin else self._due(activation)
        if firing is not None:
            causes = activation.causes or self.causes_of(firing)
            number, group, chain = firing.number, firing.group, firing.chain
            activation = replace(activation, number=number, group=group, chain=chain, causes=causes)
            self.due.remove(firing)
        super().record(activation)
        if firing is not None:
            self._forget(firing)
        if not activation.outside:
            self._recorded(index)
        self.plan()

    def _due(self, activation: Entry) -> Firing | None:
        mine = (firing for firing in self.due if firing.node == activation.node)
        return next((f for f in mine if activation.number in (0, f.number)), None)

    def _recorded(self, index: int) -> None:
        """A node has run."""

    def hear(self, label: str, value: Any, id: str) -> None:
        """A signal has come."""
        self._happened()
        self.arrivals.hear(label, value, id)
        self.plan()

    def tick(self, label: str) -> None:
        """A timer has fired."""
        self._happened()
        self.arrivals.tick(label)
        self.plan()

    def listen(self, *, open: bool) -> None:
        """Whether signals may come from here on."""
        self._happened()
        self.arrivals.open = open and not self.arrivals.ended
        self.plan()

    def call(self, node: str) -> None:
        super().call(node)
        self.plan()

    def _happened(self) -> None:
        self._plan = None

    def _forget(self, firing: Firing) -> None:
        for label, item in firing.items.items():
            if item.number and all(other.items.get(label) != item for other in self.due):
                self.arrivals.forget(label, item.number)

    # what is due

    def _numbered(self, node: str) -> int:
        self._numbers[node] = number = self._numbers.get(node, 0) + 1
        return number

    def _fire(self, node: str, group: str | None, items: Mapping[str, Item], **options: Any) -> Firing:
        """The node starts."""
        number = self._numbered(node)
        causes = {entry for item in items.values() for entry in item.entries} or {0}
        firing = Firing(node, number, group, dict(items), tuple(sorted(causes)), **options)
        self.due.append(firing)
        return firing

    def _complete(self, node: str) -> tuple[Group, dict[str, Item]] | None:
        """The first group of the node that is complete, with the next items of its sources."""
        for group in self.topology.groups.get(node, ()):
            have, missing = self.standing(node, group)
            if group.state(have, missing) is GroupState.COMPLETE:
                return group, have
        return None

    def standing(self, node: str, group: Group) -> tuple[dict[str, Item], set[str]]:
        """What the sources of a group have for the node: the next item of each; and those that can deliver none."""
        have: dict[str, Item] = {}
        gone: set[str] = set()
        for source in group.sources:
            label = label_of(source)
            if (item := self._next_item(node, source, latest=source in group.latest)) is not None:
                have[label] = item
            elif not self._may_come(node, source):
                gone.add(label)
        return have, gone

    def _next_item(self, node: str, source: Source, *, latest: bool) -> Item | None:
        label = label_of(source)
        if latest:
            return self.arrivals.newest.get(label)
        return next(iter(self.arrivals.queue(node, label)), None)

    def _may_come(self, node: str, source: Source) -> bool:
        if isinstance(source, Signal):
            return self.arrivals.open
        return source.name in self.arrivals.timers if isinstance(source, After) else not self._quiet

    _quiet = False

    def expects(self) -> bool:
        """Whether something from outside may still start a node."""
        return self.arrivals.open or bool(self.arrivals.timers)

    def is_going(self) -> bool:
        """Whether something is at work that ticks alone have not started. Ticks by themselves keep no run going."""
        return True

    def causes_of(self, firing: Firing) -> tuple[int, ...]:
        """The activations that led to it, with all updates from outside."""
        if firing.called:
            return tuple(range(self._outside[-1] + 1)) if self._outside else (0,)
        return tuple(sorted({*firing.causes, *self._outside}))

    def causes(self, node: str, origin: tuple[int, int] | None = None) -> tuple[int, ...]:
        firing = next((f for f in self.due if f.node == node), None)
        return super().causes(node, origin) if origin is not None or firing is None else self.causes_of(firing)

    def _name(self, activation: Entry) -> str:
        return name_of(activation) if activation.number else self.name(activation.node, activation.origin)

    def _shown(self, plan: Plan) -> Plan:
        """The plan with what is due."""
        due = [*self.due, *self._stuck]
        eager = [firing for firing in due if firing.node not in self.topology.deferred]
        fired = tuple(eager if eager or plan.pending else due)
        names = tuple(dict.fromkeys(firing.node for firing in fired))
        return replace(plan, ready=names, fired=fired)

    _stuck: Sequence[Firing] = ()

    def _broken(self, node: str, group: Group, gone: Iterable[str]) -> Firing:
        """What stands for a node that waits in vain."""
        skipped = tuple(label for label in group.labels if label in set(gone))
        why = "; ".join(f"{label!r}: {self.blame(label)}" for label in skipped)
        names = " and ".join(map(repr, skipped))
        error = TriggerError(
            f"the node {node!r} waits for {group.name}, and {names} can no longer come ({why}): let the group do "
            f'without, skipped="ok", or give the node another group',
            node,
            group.name,
            skipped,
        )
        return Firing(node, self._numbers.get(node, 0) + 1, group.name, error=error)

    def blame(self, label: str) -> str:
        """Why a source has not delivered."""
        if label in self.topology.signals:
            live = "signals come only in a live run, graph.live(...), until its input is closed"
            return "the run has ended" if self.arrivals.ended else live
        if label not in self.topology.nodes:
            return "the timer does not fire any more"
        if label in self._lost:
            return "it was cancelled when another source of a group with cancel_rest came first"
        if self._of(label):
            return "it failed, and its error handler answered"
        return super().blame(label)

    # what a checkpoint keeps

    def plain(self) -> dict[str, Any]:
        return {**super().plain(), "triggers": self._state()}

    def _state(self) -> dict[str, Any]:
        return {
            "due": [plain_firing(firing) for firing in self.due],
            "lost": sorted(self._lost),
            "firings": dict(self._numbers),
            "packets": [[*origin, pending.number] for origin, pending in self._undelivered.items()],
            **self.arrivals.plain(),
        }

    def restore(self, state: Mapping[str, Any], called: Sequence[str]) -> None:
        """Take over what another ledger of the same activations has kept."""
        due = [firing_of(values) for values in state["due"]]
        self.due = [firing for firing in due if not firing.called or firing.node in called]
        self._lost, self._numbers = set(state["lost"]), dict(state["firings"])
        for *origin, number in state["packets"]:
            if (pending := self._undelivered.get((origin[0], origin[1]))) is not None:
                self._undelivered[pending.origin] = replace(pending, number=number)
        self.arrivals.restore(state)
        self._look_again()


def name_of(activation: Entry | Firing) -> str:
    """What tells it from the other activations of its node, whatever the order in which they finish."""
    return activation.node if activation.number < 2 else f"{activation.node}#{activation.number - 1}"


class DagLedger(TriggeredLedger):
    """The ledger of a `Dag` with trigger groups: each node starts once, by the first of its groups that is complete."""

    def _planned(self) -> Plan:
        self._stuck, self._quiet = [], False
        while self._pass() or self._hush():
            pass
        pending = tuple(self._pending())
        skipped = self._done - self._by_node.keys()
        return self._shown(Plan((), pending, frozenset(skipped), frozenset(self._done - {self.topology.start})))

    def _hush(self) -> bool:
        """Ticks keep nothing going: where nothing else happens any more, no further one is waited for."""
        if self._quiet or self.due or self._stuck or self._undelivered or self.expects():
            return False
        self._quiet = True
        return True

    def _pass(self) -> bool:
        """Looks at every node that has not settled, sources first. Returns whether to look again."""
        waiting = {pending.send.node for pending in self._undelivered.values()}
        due = {firing.node for firing in (*self.due, *self._stuck)}
        left: list[str] = []
        again = False
        for node in self._left:
            if node in due:
                left.append(node)
            elif node in self.called:
                self._fire(node, None, {}, called=True)
                left.append(node)
            elif node in self._triggered or node in self._lost:
                self._settle(node, node in waiting, left)
            elif (fired := self._start(node)) is not None:
                left.append(node)
                again = self._cancel_rest(fired) or again
            elif not self._hopes(node):
                if (broken := self._demand(node)) is not None:
                    self._stuck = [*self._stuck, broken]
                    left.append(node)
                else:
                    self._settle(node, node in waiting, left)
            else:
                left.append(node)
        self._left = left
        return again

    def _note_ways(self, index: int, activation: Entry) -> None:
        super()._note_ways(index, activation)
        self._call_off(self._lost)

    def _call_off(self, losers: Collection[str]) -> None:
        """Packets for nodes that have lost are not delivered."""
        packets = {origin: p for origin, p in self._undelivered.items() if p.send.node not in losers}
        self._undelivered = packets

    def _settle(self, node: str, waits: bool, left: list[str]) -> None:
        if waits:
            left.append(node)
            return
        self._done.add(node)
        known = self.arrivals.newest.get(node)
        if (entries := self._delivered(node)) and (known is None or known.entries != entries):
            several = any(self.activations[i].origin for i in entries)
            self.arrivals.newest[node] = self.arrivals.item(entries, several=several)

    def _delivered(self, node: str) -> tuple[int, ...]:
        if node in self._lost:
            return ()
        return tuple(sorted((i for i in self._of(node) if self.activations[i].follows), key=lambda i: self._keys[i]))

    def _start(self, node: str) -> Group | str | None:
        """What starts the node now, if anything does."""
        edges = self.topology.edge_sources[node]
        if edges and self._done.issuperset(edges) and self._deliverers(node):
            self._fire(node, None, self.delivered_to(node))
            return node
        found = self._complete(node)
        if found is None:
            return None
        group, have = found
        self._fire(node, group.name, self.arrivals.take(node, group, have))
        return group

    def _next_item(self, node: str, source: Source, *, latest: bool) -> Item | None:
        if isinstance(source, str):
            if source == self.topology.start:
                return Item((0,))
            return self.arrivals.newest.get(source) if source in self._done else None
        return super()._next_item(node, source, latest=latest)

    def _may_come(self, node: str, source: Source) -> bool:
        return source not in self._done if isinstance(source, str) else super()._may_come(node, source)

    def _hopes(self, node: str) -> bool:
        """Whether some group of the node may still become complete."""
        if not self._done.issuperset(self.topology.edge_sources[node]):
            return True
        groups = self.topology.groups.get(node, ())
        return any(group.state(*self.standing(node, group)) is GroupState.WAITING for group in groups)

    def _demand(self, node: str) -> Firing | None:
        for group in self.topology.groups.get(node, ()):
            have, gone = self.standing(node, group)
            if group.state(have, gone) is GroupState.BROKEN:
                return self._broken(node, group, gone)
        return None

    def _cancel_rest(self, group: Group | str) -> bool:
        """Sources that come too late are cancelled, and count as skipped. Returns whether there are any."""
        if isinstance(group, str) or not group.cancel_rest:
            return False
        settled = {*self._done, *(firing.node for firing in self._stuck)}
        losers = [s for s in group.regular if isinstance(s, str) and s not in settled and s in self.topology.nodes]
        self._lost.update(losers)
        self._done.update(losers)
        self.dropped.extend(losers)
        self.due = [firing for firing in self.due if firing.node not in losers]
        self._call_off(losers)
        return bool(losers)

    def restore(self, state: Mapping[str, Any], called: Sequence[str]) -> None:
        super().restore(state, called)
        self._call_off(self._lost)

    def expects(self) -> bool:
        outside = (s for node in self._left if not self._started(node) for s in self._outer(node))
        # An open input keeps a run going, and with it the timers that fire again and again.
        return any(self.arrivals.open if isinstance(s, Every) else self._may_come("", s) for s in outside)

    def reads(self) -> bool:
        """Whether a signal may come that starts nothing by itself, and that a node to come is given."""
        return self.arrivals.open and any(map(self._waited_for, self.topology.signals))

    def over(self) -> dict[str, str]:
        late = [name for name in self.topology.signals if not self._waited_for(name)]
        return {**super().over(), **dict.fromkeys(late, "nothing waits for it any more")}

    def _waited_for(self, label: str) -> bool:
        """Whether the source is one of a node that has not started."""
        return any(node in self._left and not self._started(node) for node in self.topology.listeners[label])

    def _outer(self, node: str) -> Iterable[Source]:
        groups = self.topology.groups.get(node, ())
        return (source for group in groups for source in group.triggering if not isinstance(source, str))

    def _started(self, node: str) -> bool:
        return node in self._triggered or node in self._lost or any(f.node == node for f in self.due)
