"""The ledger of a graph with loops and trigger groups: each completion of a group is an activation. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langgraph.graph import END
from langgraph.types import Send

from agentmatrix.compose.entries import Entry, Firing, Item, Plan
from agentmatrix.compose.folding import Fold, Write, folded
from agentmatrix.compose.triggered import TriggeredLedger
from agentmatrix.errors import BoundError
from agentmatrix.scheduling.topology import drawn
from agentmatrix.triggers import After, Every, Group, GroupState, Signal, Source, label_of

__all__ = ["CyclicLedger"]

_EDGE = "edge:"
_OUTSIDE = 1 << 60


class CyclicLedger(TriggeredLedger):
    """A node starts each time that one of its groups is complete, and that an edge, a router or a command leads to it.

    It has one activation at a time, each after the one before, unless it is among the topology's `concurrent` nodes.
    """

    repeats = True
    _kept = 100

    def _load(self, base: Fold, activations: Iterable[Entry], called: Iterable[str] = ()) -> None:
        self._depths: list[int] = []
        self._rounds: list[Mapping[str, int]] = []
        self._ticked: list[bool] = []
        super()._load(base, activations, called)

    # what has happened

    def _began(self) -> None:
        self._deliver(0)

    def _append(self, activation: Entry) -> None:
        depths = (self._depths[cause] for cause in activation.causes)
        self._depths.append(
            _OUTSIDE if activation.outside else max((d for d in depths if d < _OUTSIDE), default=-1) + 1
        )
        rounds: Counter[str] = Counter()
        for cause in activation.chain:
            rounds |= Counter(self._rounds[cause])
        if not activation.outside and activation.node != self.topology.start:
            rounds[activation.node] += 1
        self._rounds.append(dict(rounds))
        origin, is_inside = activation.origin, not activation.outside
        chain = activation.chain if origin is None else origin[:1]
        self._ticked.append(is_inside and self._is_ticked(activation.node, activation.group, chain))
        super()._append(activation)

    def _key(self, activation: Entry) -> tuple[Any, ...]:
        sender, number = activation.origin or (-1, -1)
        nodes = self.topology.nodes
        place = nodes.index(activation.node) if activation.node in nodes else -1
        return (self._depths[-1], place, activation.number, self._keys[sender] if sender >= 0 else (), number)

    def _recorded(self, index: int) -> None:
        activation = self.activations[index]
        if END in activation.chosen or (activation.follows and activation.node in self.topology.ends):
            self.arrivals.end()
        self._deliver(index)

    def _deliver(self, index: int) -> None:
        """What an activation leads to. Packets of one sender are delivered together, once all of them have run."""
        activation = self.activations[index]
        node, origin = activation.node, activation.origin
        batch: tuple[int, ...] = (index,)
        if origin is not None:
            sender = origin[0]
            if any(key[0] == sender and p.send.node == node for key, p in self._undelivered.items()):
                return
            mine = (i for i in self._of(node) if (self.activations[i].origin or (-1,))[0] == sender)
            batch = tuple(sorted(mine, key=lambda i: self._keys[i]))
        direct = self._follow(batch, several=origin is not None)
        followed = tuple(i for i in batch if self.activations[i].follows)
        if followed:
            item = self.arrivals.newest[node] = self.arrivals.item(followed, several=origin is not None)
            for listener in self.topology.listeners.get(node, ()):
                if listener not in direct:
                    self.arrivals.deliver(listener, node, item)

    def _follow(self, batch: tuple[int, ...], *, several: bool) -> set[str]:
        """Lets the followers by edges and choices have their items. Returns those that need nothing else to start."""
        node = self.activations[batch[0]].node
        reached = {
            target for i in batch for target in (*self.topology.edges.get(node, ()), *self.activations[i].chosen)
        }
        direct: set[str] = set()
        for target in (other for other in self.topology.nodes if other in reached):
            if leads := tuple(i for i in batch if self._leads(i, target)):
                direct.add(target)
                self.arrivals.deliver(target, _EDGE, self.arrivals.item(leads, several=several))
        for target, joins in self.topology.joins.items():
            for join in joins:
                if node in join and self.activations[batch[0]].follows:
                    self.arrivals.deliver(target, _joined(join, node), self.arrivals.item(batch, several=several))
        return direct

    def update(self, node: str, writes: Sequence[Write], chosen: Sequence[str], sends: Sequence[Send]) -> None:
        if node == self.topology.start and not self.unfinished():
            self.begin(writes, chosen, sends)
            return
        if not self.activations:
            self._load(self.final(), [Entry(self.topology.start, follows=False)])
        origin = next((p.origin for p in self.plan().pending if p.send.node == node), None)
        if origin is not None or any(firing.node == node for firing in self.due):
            self.record(Entry(node, tuple(writes), tuple(chosen), tuple(sends), origin=origin))
        elif self.unfinished() or self.arrivals.open:
            self.intervene(writes, node)
        else:
            self._reopen(Entry(node, (), tuple(chosen), tuple(sends)), writes)

    def _reopen(self, activation: Entry, writes: Iterable[Write]) -> None:
        self._load(folded(self.final(), writes), [Entry(self.topology.start, follows=False)])
        self.record(replace(activation, causes=(0,)))

    def _others(self, node: str) -> list[Entry]:
        return [Entry(self.topology.start, follows=False)]

    # what is due

    def _planned(self) -> Plan:
        self._stuck = []
        while any(self._next(node) for node in self.topology.nodes):
            pass
        pending = tuple(self._pending())
        if not (self.due or pending or self.expects()):
            self._come_to_rest()
        return self._bounded(self._shown(Plan((), pending)))

    def _next(self, node: str) -> bool:
        """Starts the node if something leads to it and it is not at work. Returns whether it did."""
        if node in self.called and not any(firing.called and firing.node == node for firing in self.due):
            self._fire(node, None, {}, called=True)
            return True
        if node not in self.topology.concurrent and any(firing.node == node for firing in self.due):
            return False
        if queue := self.arrivals.queue(node, _EDGE):
            self._activate(node, None, self._named({_EDGE: queue.pop(0)}), ())
            return True
        for join in self.topology.joins.get(node, ()):
            if all(self.arrivals.queue(node, _joined(join, source)) for source in join):
                self._join(node, join)
                return True
        if (found := self._complete(node)) is not None:
            self._trigger(node, *found)
            return True
        return False

    def _join(self, node: str, join: Sequence[str]) -> None:
        queues = (self.arrivals.queue(node, _joined(join, source)) for source in join)
        items = {str(number): queue.pop(0) for number, queue in enumerate(queues) if queue}
        self._activate(node, None, self._named(items), ())

    def _trigger(self, node: str, group: Group, have: Mapping[str, Item]) -> None:
        taken = self.arrivals.take(node, group, have)
        self._activate(node, group.name, taken, {label_of(source) for source in (*group.latest, *group.optional)})
        if group.cancel_rest:
            late = {label_of(source) for source in group.regular} - taken.keys()
            losers = sorted(late.intersection(self.topology.nodes))
            self.dropped.extend(losers)
            for loser in losers:
                # What was about to start, and has only not been looked at yet, does not start either.
                self.arrivals.queue(loser, _EDGE).clear()
            self.due = [firing for firing in self.due if firing.node not in losers]
            self._undelivered = {o: p for o, p in self._undelivered.items() if p.send.node not in losers}

    def _activate(self, node: str, group: str | None, items: Mapping[str, Item], aside: Iterable[str]) -> None:
        chain = {entry for label, item in items.items() if label not in set(aside) for entry in item.entries}
        firing = self._fire(node, group, items, chain=tuple(sorted(chain)))
        own = [] if node in self.topology.concurrent else self._of(node)[-1:]
        if own:
            self.due[-1] = replace(firing, causes=tuple(sorted({*firing.causes, *own})))

    def _named(self, items: Mapping[str, Item]) -> dict[str, Item]:
        return {self.activations[item.entries[0]].node: item for item in items.values()}

    def is_going(self) -> bool:
        at_work = any(not self._is_ticked(firing.node, firing.group, firing.chain) for firing in self.due)
        return at_work or any(not self._ticked[sender] for sender, _ in self._undelivered)

    def _is_ticked(self, node: str, group: str | None, chain: Sequence[int]) -> bool:
        """Whether nothing but ticks has led to an activation, directly or through others."""
        if chain:
            return all(self._ticked[index] for index in chain)
        groups = [other for other in self.topology.groups.get(node, ()) if other.name == group]
        return any(isinstance(source, Every) for other in groups for source in other.triggering)

    def over(self) -> dict[str, str]:
        alive = {firing.node for firing in self.due} | {pending.send.node for pending in self._undelivered.values()}
        alive |= {node for node, _ in self.arrivals.left()} | {*self.called} | self._listening()
        frontier = list(alive)
        while frontier:
            fresh = {*self.topology.followers(frontier.pop())} - alive
            alive |= fresh
            frontier.extend(fresh)
        return {node: f"nothing starts {node!r} any more" for node in self.topology.nodes if node not in alive}

    def _listening(self) -> set[str]:
        """The nodes for which something may come from outside."""
        open = self.topology.signals if self.arrivals.open else frozenset()
        timers = [t.name for t in self.topology.timers if t.name in self.arrivals.timers or isinstance(t, Every)]
        labels = () if self.arrivals.ended else (*open, *timers)
        return {node for label in labels for node in self.topology.listeners[label]}

    def _may_come(self, node: str, source: Source) -> bool:
        if isinstance(source, Signal):
            return self.arrivals.open
        if isinstance(source, After):
            return source.name in self.arrivals.timers
        return not self._quiet

    def _come_to_rest(self) -> None:
        """Nothing is at work and nothing can come: what has waited for something starts without it, or is an error."""
        if self.arrivals.ended:
            return
        self._quiet = True
        for node in self.topology.nodes:
            self._rest(node)
        self._quiet = False

    def _rest(self, node: str) -> None:
        for join in self.topology.joins.get(node, ()):
            if any(self.arrivals.queue(node, _joined(join, source)) for source in join):
                self._join(node, join)
                return
        for group in self.topology.groups.get(node, ()):
            have, gone = self.standing(node, group)
            waiting = [label_of(s) for s in group.triggering if self._waits(node, s)]
            state = group.state(have, gone) if waiting else GroupState.WAITING
            if state is GroupState.COMPLETE:
                self._trigger(node, group, have)
                return
            if state is GroupState.BROKEN:
                self._stuck = [*self._stuck, self._broken(node, group, gone)]
                return

    def _waits(self, node: str, source: Source) -> bool:
        return bool(self.arrivals.queue(node, label_of(source)))

    def blame(self, label: str) -> str:
        if label in self.topology.nodes:
            count = len(self._of(label))
            routers = [name for name, targets in self.topology.choices.items() if label in targets and self._of(name)]
            if not count and routers:
                return f"the router or command of {routers[0]!r} never led to it, and nothing can start it any more"
            return f"it has run {count} {'time' if count == 1 else 'times'}, and nothing can start it any more"
        return super().blame(label)

    def _bounded(self, plan: Plan) -> Plan:
        """The plan in which loops that have gone round too often are errors."""
        return replace(plan, fired=tuple(self._within_bound(firing) for firing in plan.fired))

    def _within_bound(self, firing: Firing) -> Firing:
        limit = self.topology.max_rounds
        rounds: Counter[str] = Counter()
        for cause in firing.chain:
            rounds |= Counter(self._rounds[cause])
        if rounds[firing.node] < limit:
            return firing
        busy = {node for node, count in rounds.items() if count >= limit - 1}
        loop = self.topology.loop_through(firing.node, busy) or self.topology.loop_through(firing.node) or [firing.node]
        return replace(firing, error=BoundError(
            f"the loop {drawn(loop)} has gone round {limit} times in this run without an end: "
            f"give it a way out, or raise the bound with compile(max_rounds=...)"
        ))  # fmt: skip


def _joined(join: Sequence[str], source: str) -> str:
    return f"{_EDGE}{'+'.join(join)}:{source}"
