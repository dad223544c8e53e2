"""The rules of a graph with loops and trigger groups: each completion of a group is an activation.

Edges, routers and commands that lead to a node are one source of it, a join of several edges is a group. A node has
one activation at a time, each after the one before, unless it is concurrent; those that `Send` starts run at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langgraph.types import Send

from agentmatrix.scheduling.bounds import bound_error
from agentmatrix.scheduling.group_rules import ReplayPhase
from agentmatrix.scheduling.loop_state import LastActivation, LoopState, SendBatch, sender_of
from agentmatrix.scheduling.rules import NodeResult, Opening
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Delivery, join_rounds, merged
from agentmatrix.scheduling.topology import join_key
from agentmatrix.triggers import Group, GroupState, label_of

__all__ = ["LoopRules"]

_EDGE = "edge:"


class LoopRules(LoopState):
    """Starts a node each time that one of its groups is complete, and that an edge, a router or a command leads to it.

    The k-th activation of a node that no `Send` has started is called `node#k`, the first one as the node. Its choice
    is which deliveries it takes, and after which of its node's batches of Sends it comes.
    """

    # opening

    def open(self, opening: Opening) -> None:
        self.numbers = dict(opening.numbers)
        saved = opening.saved
        if saved is not None:
            self._restore(saved)
        for activation in opening.resumed:
            activation.error = self._bound_error(activation.node, activation.rounds)
            self._begin(activation)
            self._busy[activation.node] = self._busy.get(activation.node, 0) + 1
        for activation in opening.sends:
            if saved is None:
                activation.number = self._numbered(activation.node)
            self._begin(activation)
            if saved is None or (sender_of(activation), activation.node) not in self._batches:
                self._batches.setdefault((sender_of(activation), activation.node), SendBatch()).left += 1
        if opening.begins:
            start = Delivery(self.topology.start, self.topology.start, value={})
            joins = [(join_key(j, n), n) for n, js in self.topology.joins.items() for j in js]
            own = [(key, node) for key, node in joins if self.topology.start in self._sources_of(node, key)]
            self._lead([(start, NodeResult(targets=tuple(opening.ready), joins=own))])
        else:
            again = {activation.node for activation in opening.resumed} | {*(saved["failed"] if saved else ())}
            for node, activation in opening.ready.items():
                if node not in again:
                    known, depth = activation.ancestors, activation.depth
                    self._put(node, _EDGE, Delivery(self.topology.start, self.topology.start, known, depth, {}))
        for activation, result in opening.updated:
            self._done(activation, 0, result)
        self._decide_opening(self.topology.nodes)

    def _sources_of(self, node: str, key: str) -> Sequence[str]:
        return next(sources for name, sources in self._joins[node] if name == key)

    # what has run

    def check(self, activation: ScheduledActivation, result: NodeResult) -> None:
        """A node may lead wherever there is a node."""

    def finish(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        self._remove_at_work(activation)
        if activation.send is None:
            self._busy[activation.node] -= 1
        self._done(activation, bit, result)
        self._wave()

    def _done(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        node, delivery = activation.node, self._delivery_of(activation, bit, result)
        if result.ends or (result.delivers and node in self.topology.ends):
            self.inputs.end()
            self.queues.drop(self.inputs.labels())
        self._send(activation, result.sends, delivery.ancestors)
        if activation.send is None:
            self._pasts[node] = self._past(delivery.id, delivery)
            self._lead([(delivery, result)])
        else:
            self._deliver_batch(activation, delivery, result)

    def _past(self, key: str, delivery: Delivery) -> LastActivation:
        past = LastActivation(key, delivery.ancestors, delivery.depth)
        if not self.decides:
            self._known_pasts[key] = past
        return past

    def _deliver_batch(self, activation: ScheduledActivation, delivery: Delivery, result: NodeResult) -> None:
        node, sender = activation.node, sender_of(activation)
        batch = self._batches.get((sender, node))
        if batch is None:
            return
        batch.left -= 1
        batch.outcomes.append((delivery, result))
        if batch.left == 0:
            del self._batches[sender, node]
            whole = merged((outcome for outcome, _ in batch.outcomes), f"{sender}>{node}")
            self._batch_pasts[node] = self._past(whole.id, whole)
            self._lead(batch.outcomes, whole.id)

    def _lead(self, outcomes: list[tuple[Delivery, NodeResult]], id: str = "") -> None:
        """What an activation, or a batch, leads to by edges, choices, joins, and as a source of groups."""
        source = outcomes[0][0].source
        direct: set[str] = set()
        for node in self.topology.nodes:
            if leads := [delivery for delivery, result in outcomes if node in result.targets]:
                direct.add(node)
                self._put(node, _EDGE, self.queues.arrives(merged(leads, id)))
        for key, node in dict.fromkeys(join for _, result in outcomes for join in result.joins):
            self._put(node, f"{key}|{source}", self.queues.arrives(merged((d for d, _ in outcomes), id)))
        if delivering := [delivery for delivery, result in outcomes if result.delivers]:
            delivery = self._arrived(merged(delivering, id))
            for node in self.topology.listeners.get(source, ()):
                self._looks.add(node)
                if node not in direct and self.queues.consumes(node, source):
                    self._put(node, source, delivery)

    def _put(self, node: str, label: str, delivery: Delivery) -> None:
        if (node, label, delivery.id) not in self._dropped:
            self.queues.put(node, label, delivery)
            self._looks.add(node)

    def _send(self, sender: ScheduledActivation, sends: Sequence[Send], ancestors: int) -> None:
        by_node: dict[str, list[tuple[int, Send]]] = {}
        for position, send in enumerate(sends):
            if send.node in self._places:
                by_node.setdefault(send.node, []).append((position, send))
        if not by_node:
            return
        recorded = self._recorded_sends.get(sender.key, {})
        to = {n: recorded.get(n) or [0, *(past.key for past in self._pasts_of(n))] for n in by_node}
        pasts = {node: list(map(self._past_called, keys)) for node, (_, *keys) in to.items()}
        if any(past is None for found in pasts.values() for past in found):
            # It comes after something that had finished then, and is told later.
            self._unsent.append((sender, sends, ancestors))
            return
        for node, found in by_node.items():
            to[node][0] = self._numbered(node, to[node][0], len(found))
            self._send_batch(sender, found, ancestors, [past for past in pasts[node] if past], to[node][0])
        self.choices.append({"sends": sender.key, "to": to})

    def _send_batch(
        self,
        sender: ScheduledActivation,
        found: list[tuple[int, Send]],
        ancestors: int,
        pasts: list[LastActivation],
        first: int,
    ) -> None:
        batch, is_lost = SendBatch(), False
        for number, (position, send) in enumerate(found, first):
            activation = sender.sent(send, position, ancestors)
            activation.number, activation.is_ticked = number, sender.is_ticked
            if activation.key in self._lost:
                is_lost = True
                continue
            for past in pasts:
                activation.ancestors |= past.ancestors
                activation.depth = max(activation.depth, past.depth)
            activation.error = self._bound_error(send.node, sender.rounds)
            activation.rounds = {**sender.rounds, send.node: sender.rounds.get(send.node, 0) + 1}
            batch.left += 1
            self._begin(activation)
        if batch.left and not is_lost:
            self._batches[sender.sender_key, found[0][1].node] = batch

    def _pasts_of(self, node: str) -> list[LastActivation]:
        if node in self.topology.concurrent:
            return []
        return [pasts[node] for pasts in (self._pasts, self._batch_pasts) if node in pasts]

    def _past_called(self, key: str) -> LastActivation | None:
        if (past := self._known_pasts.get(key)) is not None:
            return past
        known = (*self._pasts.values(), *self._batch_pasts.values())
        return next((past for past in known if past.key == key), None)

    # what starts

    def _repeat_all(self) -> None:
        super()._repeat_all()
        self._known_pasts = {past.key: past for past in (*self._pasts.values(), *self._batch_pasts.values())}

    def _wave(self) -> None:
        while True:
            if self._unsent:
                unsent, self._unsent = self._unsent, []
                for sender, sends, ancestors in unsent:
                    self._send(sender, sends, ancestors)
            while self._looks:
                # A node that is concurrent may start several times.
                if not self._start_next(self._looks.first):
                    self._looks.pop()
            if not self._come_to_rest():
                return

    def _start_next(self, node: str) -> bool:
        """Start the node if something leads to it and it is not at work. Returns whether it did."""
        if self._busy.get(node) and node not in self.topology.concurrent:
            return False
        if (choice := self._recorded.get(self._next_key(node))) is not None:
            return self._is_due(choice) and self._repeat(node, choice)
        if not self.decides:
            return False
        if (first := self.queues.first(node, _EDGE)) is not None:
            self._start(node, None, {_EDGE: first})
            return True
        for key, sources in self._joins.get(node, ()):
            labels = [f"{key}|{source}" for source in sources]
            items = {label: first for label in labels if (first := self.queues.first(node, label)) is not None}
            if len(items) == len(labels):
                self._start(node, None, items)
                return True
        if (found := self.complete(node)) is not None:
            group, have = found
            self._start(node, group, self.queues.choose(group, have))
            return True
        return False

    def _next_key(self, node: str) -> str:
        index = self._indices.get(node, 0) + 1
        return node if index == 1 else f"{node}#{index}"

    def _index(self, node: str) -> int:
        self._indices[node] = index = self._indices.get(node, 0) + 1
        return index

    def _repeat(self, node: str, choice: Mapping[str, Any]) -> bool:
        """Start the node as it was started before, once all is there that it was given."""
        items: dict[str, Delivery] = {}
        for label, id in choice["items"]:
            found = self.queues.find(node, label, id) or self._known.get((label, id))
            if found is None and (newest := self.queues.newest.get(label)) is not None and newest.id == id:
                found = newest
            if found is None:
                return False
            items[label] = found
        if choice["past"] is not None and self._past_called(choice["past"]) is None:
            return False
        named = (group for group in self.topology.groups.get(node, ()) if group.name == choice["group"])
        self._start(node, next(named, None), items, choice)
        return True

    def _start(
        self,
        node: str,
        group: Group | None,
        items: Mapping[str, Delivery],
        choice: Mapping[str, Any] | None = None,
    ) -> None:
        key, index = self._next_key(node), self._index(node)
        read = {label_of(source) for source in group.latest} if group else ()
        beside = {label_of(source) for source in (*group.latest, *group.optional)} if group else ()
        for label, delivery in items.items():
            if label not in read:
                self.queues.remove(node, label, delivery)
        past = self._batch_pasts.get(node) if node not in self.topology.concurrent else None
        if choice is not None:
            past = self._past_called(choice["past"]) if choice["past"] is not None else None
        activation = self._activation(node, index, items, beside, past)
        activation.number = self._numbered(node, choice["number"] if choice else 0)
        activation.group = choice["group"] if choice else (group.name if group else None)
        if group is None:
            activation.items = {d.source: d for d in items.values() if d.source != self.topology.start}
        self._groups_of[node] = activation.group or ""
        losers = choice["losers"] if choice else []
        dropped = choice["dropped"] if choice else []
        if choice is None and group is not None and group.cancel_rest:
            late = sorted({label_of(source) for source in group.regular}.intersection(self._places) - items.keys())
            losers = [a.key for node in late for a in self.at_work if a.node == node]
            # What was about to start, and has only not been looked at yet, does not start either.
            dropped = [[node, _EDGE, id] for node in late for id in self.queues.clear(node, _EDGE)]
        self.choices.append(
            {
                "start": key,
                "number": activation.number,
                "group": activation.group,
                "items": [[label, delivery.id] for label, delivery in items.items()],
                "past": past.key if past is not None else None,
                "losers": losers,
                "dropped": dropped,
            }
        )
        if key not in self._lost:
            self._busy[node] = self._busy.get(node, 0) + 1
            self._begin(activation)
        self._lose(losers, dropped)

    def _activation(
        self, node: str, index: int, items: Mapping[str, Delivery], beside: Iterable[str], batch: LastActivation | None
    ) -> ScheduledActivation:
        ancestors = depth = 0
        rounds: dict[str, int] = {}
        for label, delivery in items.items():
            ancestors |= delivery.ancestors
            depth = max(depth, delivery.depth)
            if label not in beside:
                join_rounds(rounds, delivery.rounds)
        own = self._pasts.get(node) if node not in self.topology.concurrent else None
        for past in (own, batch):
            if past is not None:
                ancestors |= past.ancestors
                depth = max(depth, past.depth)
        order = (0, node) if index == 1 else (0, node, index)
        after = tuple(dict.fromkeys(d.source for d in items.values() if d.source in self._places))
        error = self._bound_error(node, rounds)
        rounds[node] = rounds.get(node, 0) + 1
        name = "" if index == 1 else f"{node}#{index}"
        causes = [delivery for label, delivery in items.items() if label not in beside]
        activation = ScheduledActivation(
            node, ancestors, depth, name, order=order, items=items, rounds=rounds, error=error, after=after
        )
        activation.is_ticked = bool(causes) and all(delivery.is_ticked for delivery in causes)
        return activation

    def _bound_error(self, node: str, rounds: Mapping[str, int]) -> Exception | None:
        return bound_error(self.topology, node, rounds, "it a way out")

    def _lose(self, losers: Iterable[str], dropped: Iterable[Sequence[str]]) -> None:
        keys = {*losers}
        late = [activation for activation in self.at_work if activation.key in keys]
        self._cancel(late)
        for loser in late:
            if loser.send is None:
                self._busy[loser.node] -= 1
            else:
                self._batches.pop((sender_of(loser), loser.node), None)
            self._looks.add(loser.node)
        if not self.decides:
            self._lost |= keys.difference(loser.key for loser in late)
            self._dropped |= {(node, label, id) for node, label, id in dropped}
            for node, label, id in dropped:
                if (found := self.queues.find(node, label, id)) is not None:
                    self.queues.remove(node, label, found)

    # rest

    def _come_to_rest(self) -> bool:
        """Nothing is at work and nothing can come: what has waited for something starts without it, or is an error.
        Returns whether something has started."""
        if self.at_work or self.failed or self.inputs.ended or self.phase is not ReplayPhase.DECIDING:
            return False
        if self.awaits_external():
            return False
        self._is_quiet = True
        for node in self.topology.nodes:
            self._rest(node)
        self._is_quiet = False
        return bool(self.at_work)

    def _rest(self, node: str) -> None:
        # Whoever starts here is no longer quiet; those beside it are looked at in the same moment.
        self._is_quiet = True
        for key, sources in self._joins.get(node, ()):
            labels = [f"{key}|{source}" for source in sources]
            if items := {label: first for label in labels if (first := self.queues.first(node, label)) is not None}:
                self._start(node, None, items)
                return
        for group in self.topology.groups.get(node, ()):
            have, gone = self.standing(node, group)
            if not any(self.queues.length(node, label_of(source)) for source in group.triggering):
                continue
            verdict = group.state(have, gone)
            if verdict is GroupState.COMPLETE:
                self._start(node, group, self.queues.choose(group, have))
                return
            if verdict is GroupState.BROKEN:
                self._fail(node, group, gone)
                return

    def node_may_come(self, node: str) -> bool:
        return not self._is_quiet

    def blame_node(self, node: str) -> str:
        count = self._times.get(node, 0)
        routers = [name for name, found in self.topology.choices.items() if node in found and self._times.get(name)]
        if not count and routers:
            return f"the router or command of {routers[0]!r} never led to it, and nothing can start it any more"
        return f"it has run {count} {'time' if count == 1 else 'times'}, and nothing can start it any more"

    # events

    def awaits_external(self) -> bool:
        return self.inputs.open or bool(self.inputs.pending) or self.is_idle_due()

    def _begin(self, activation: ScheduledActivation) -> None:
        super()._begin(activation)
        # What idle() has started is no new work: it fires again when that has led to something else.
        self._has_worked = self._has_worked or self.topology.idles.isdisjoint(activation.items)

    def is_idle_due(self) -> bool:
        if not self.topology.idles or self.phase is not ReplayPhase.DECIDING or not self._has_worked:
            return False
        return not (self.at_work or self.failed or self.inputs.ended)

    def fire_idle(self, id: str, bit: int, depth: int) -> None:
        self._has_worked = False
        self._idle_count += 1
        for label in sorted(self.topology.idles):
            for node in self.topology.listeners[label]:
                rounds = {node: self._idle_count - 1}
                delivery = Delivery(id, label, self.log.all, depth + 1, self._idle_count, False, rounds=rounds)
                self._arrived(delivery)
                if self.queues.consumes(node, label) and not self.queues.length(node, label):
                    self.queues.put(node, label, delivery)
                self._looks.add(node)
        self._wave()

    def reads_external(self) -> bool:
        return False

    def is_going(self) -> bool:
        return any(not activation.is_ticked for activation in self.at_work)

    # explanations

    def waits_for(self, node: str) -> str:
        return "; ".join(self._groups_wait(node))
