"""The rules of a `Dag` with trigger groups: each node starts once, by the first of its groups that is complete.

The edges into a node are one more group, before all others. Sources are looked at before the nodes that follow them,
so that all skips have spread before a group is picked: the order of settling does not pick it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentmatrix.scheduling.dag_rules import check_declared, skip_reason
from agentmatrix.scheduling.rules import NodeResult, Opening
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.sends import numbered_sends
from agentmatrix.scheduling.source_queues import Delivery, merged
from agentmatrix.scheduling.trigger_state import TriggeredDagState
from agentmatrix.triggers import Every, Group, GroupState, Source

__all__ = ["TriggeredDagRules"]


class TriggeredDagRules(TriggeredDagState):
    """Starts each node of a Dag once."""

    # opening

    def open(self, opening: Opening) -> None:
        self.numbers = dict(opening.numbers)
        self._ran_before = opening.done
        if opening.saved is not None:
            self._restore(opening.saved)
            for activation in opening.resumed:
                self._add_at_work(activation)
        else:
            self._begin_anew(opening)
        for activation in opening.sends:
            self._begin(activation)
            if opening.saved is None:
                activation.number = self._numbered(activation.node)
        self.ready = list(self.at_work)
        for node, activation in opening.ready.items():
            if opening.saved is None or (activation not in self.at_work and node not in opening.saved["failed"]):
                start = self.topology.start
                self._lead(node, Delivery(start, start, activation.ancestors, activation.depth, {}))
                if opening.saved is not None:
                    self.settled.discard(node)
                    self.started.discard(node)
        for activation, result in opening.updated:
            self.started.add(activation.node)
            self._done(activation, 0, result)
        begins = opening.begins and opening.saved is None and not opening.sends
        self._decide_opening(self.topology.entry_nodes if begins else self.topology.nodes)

    def _begin_anew(self, opening: Opening) -> None:
        roots = {*opening.ready, *opening.waiting, *(send.node for send in opening.sends)}
        start = self.topology.start
        if opening.begins:
            self._deliveries[start] = self._arrived(Delivery(start, start, value={}))
        else:
            self.settled = {*self.topology.nodes} - roots - self.topology.descendants(roots)
        for node, (known, depth) in opening.waiting.items():
            self._lead(node, Delivery(start, start, known, depth, {}))

    # what has run

    def check(self, activation: ScheduledActivation, result: NodeResult) -> None:
        check_declared(self.topology, activation.node, result)

    def finish(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        self._remove_at_work(activation)
        self._done(activation, bit, result)
        self._wave()

    def _done(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        node, delivery = activation.node, self._delivery_of(activation, bit, result)
        for target in (*result.targets, *(target for _, target in result.joins)):
            if target in self._places:
                self._lead(target, delivery)
        if result.delivers and node not in self.lost:
            self._outcomes.setdefault(node, []).append(delivery)
            if node in self.settled:
                self._deliver(node)
        self._send(activation, result, delivery.ancestors)

    def _lead(self, target: str, delivery: Delivery) -> None:
        self._led.setdefault(target, {}).setdefault(delivery.source, []).append(delivery)
        self._awaited.pop(target, None)
        self._looks.add(target)

    def _send(self, sender: ScheduledActivation, result: NodeResult, ancestors: int) -> None:
        if not result.sends:
            return
        activations, first = numbered_sends(
            sender,
            result.sends,
            ancestors,
            nodes=self._places.keys() - self.lost,
            numbers=self.numbers,
            recorded=self._recorded_sends.get(sender.key, {}),
        )
        for activation in activations:
            self._begin(activation)
        if first:
            self.choices.append({"sends": sender.key, "to": first})

    # what starts

    def _wave(self) -> None:
        while True:
            while self._looks:
                self._look_at(self._looks.pop())
            if not (self._start_deferred() or self._fall_quiet()):
                return

    def _look_at(self, node: str) -> None:
        if node in self.settled or node in self.failed or node in self._deferred:
            return
        if node in self.started or node in self.lost:
            self._settle(node)
        elif (choice := self._recorded.get(node)) is not None:
            if self._is_due(choice):
                self._repeat(node, choice)
        elif self.decides or node not in self.topology.groups:
            self._decide(node)
        elif not (self._edges_are_complete(node) or self._edges_may_come(node)):
            if all(state is GroupState.CLOSED for _, state, *_ in self.standings(node)):
                self._settle(node)

    def _decide(self, node: str) -> None:
        if (source := self._awaited.pop(node, None)) is not None and self.node_may_come(source):
            self._awaited[node] = source
            return
        if self._edges_are_complete(node):
            self._start(node, None, self._led_items(node))
            return
        waits, broken = self._edges_may_come(node), None
        for group, state, have, gone in self.standings(node):
            if state is GroupState.COMPLETE:
                self._start(node, group, self.queues.choose(group, have))
                return
            waits = waits or state is GroupState.WAITING
            if state is GroupState.BROKEN and broken is None:
                broken = group, gone
        if waits:
            self._note_awaited(node)
            return
        if broken is not None:
            self._fail(node, *broken)
        else:
            self._settle(node)

    def _note_awaited(self, node: str) -> None:
        """Note a node that this one waits for in any case."""
        [group, *others] = self.topology.groups.get(node) or [None]
        if group is None or others or self.topology.edge_sources[node] or not group.needs_all_nodes:
            return
        # The last one: of nodes that start together it is likely the last to end.
        pending = (source for source in reversed(group.labels) if self.node_may_come(source))
        if (source := next(pending, None)) is not None:
            self._awaited[node] = source

    def _edges_are_complete(self, node: str) -> bool:
        sources = self.topology.edge_sources[node]
        return node in self._led and all(s in self.settled or s == self.topology.start for s in sources)

    def _led_items(self, node: str) -> dict[str, Delivery]:
        return {source: merged(parts) for source, parts in self._led[node].items()}

    def _repeat(self, node: str, choice: Mapping[str, Any]) -> None:
        """Start the node as it was started before, once all is there that it was given."""
        if choice["group"] is None:
            if self._edges_are_complete(node):
                self._start(node, None, self._led_items(node), choice)
            return
        items: dict[str, Delivery] = {}
        for label, id in choice["items"]:
            found = self.queues.find(node, label, id) or self._known.get((label, id)) or self._deliveries.get(label)
            if found is None:
                newest = self.queues.newest.get(label)
                found = newest if newest is not None and newest.id == id else None
            if found is None:
                return
            items[label] = found
        named = (group for group in self.topology.groups.get(node, ()) if group.name == choice["group"])
        self._start(node, next(named, None), items, choice)

    def _start(
        self,
        node: str,
        group: Group | None,
        items: Mapping[str, Delivery],
        choice: Mapping[str, Any] | None = None,
    ) -> None:
        ancestors = depth = 0
        for label, delivery in items.items():
            ancestors |= delivery.ancestors
            depth = max(depth, delivery.depth)
            self.queues.remove(node, label, delivery)
        name: str | None = choice["group"] if choice else (group.name if group else None)
        number = self._numbered(node, choice["number"] if choice else 0)
        after = tuple([label for label in items if label in self.topology.edge_sources])
        given = {**items}
        if group is None:
            given.pop(self.topology.start, None)
        activation = ScheduledActivation(
            node, ancestors, depth, order=(0, node), number=number, group=name, items=given, after=after
        )
        self.started.add(node)
        self._groups_of[node] = name or ""
        if node in self.topology.deferred:
            self._deferred[node] = activation
        else:
            self._begin(activation)
        losers: list[str] = choice["losers"] if choice else self._losers(group)
        if node in self.topology.groups:
            taken = [[label, delivery.id] for label, delivery in items.items()] if name else []
            self.choices.append({"start": node, "number": number, "group": name, "items": taken, "losers": losers})
        if losers:
            self._lose(losers)

    def _losers(self, group: Group | None) -> list[str]:
        """The sources of a group that come too late."""
        if group is None or not group.cancel_rest:
            return []
        nodes = [source for source in group.regular if isinstance(source, str) and source in self._places]
        settled = {*self.settled, *self.failed, self.topology.start}
        return sorted(node for node in nodes if node not in settled)

    def _lose(self, losers: Iterable[str]) -> None:
        for node in losers:
            self.lost.add(node)
            self._outcomes.pop(node, None)
            self._deferred.pop(node, None)
            self._cancel([activation for activation in self.at_work if activation.node == node])
            self._looks.add(node)

    def _settle(self, node: str) -> None:
        if self._counts_at_work.get(node):
            return
        # A group may have started it before its other sources have settled. One of them may still `Send` to it.
        if node not in self.lost and any(map(self.node_may_come, self.topology.choosers[node])):
            return
        self.settled.add(node)
        self._deliver(node)
        followers = self.topology.follow[node]
        if node not in self._deliveries:
            for follower in followers:
                self._awaited.pop(follower, None)
        self._looks.update(followers)

    def _deliver(self, node: str) -> None:
        if outcomes := self._outcomes.get(node):
            first = outcomes[0]
            is_whole = len(outcomes) == 1 and first.id == node and not first.is_sent
            self._deliveries[node] = self._arrived(first if is_whole else merged(outcomes, node))

    def _start_deferred(self) -> bool:
        """Deferred nodes come after all else: they see everything that has run, and fold after it."""
        if not self._deferred or self.at_work or self.ready or not self.is_outside_settled or self.awaits_external():
            return False
        for activation in self._deferred.values():
            activation.ancestors = self.log.all
            activation.depth = max(activation.depth, len(self.log.levels))
            self._begin(activation)
        self._deferred = {}
        return True

    def _fall_quiet(self) -> bool:
        """Ticks keep nothing going: where nothing else happens any more, no further one is waited for."""
        idle = not (self.at_work or self.ready or self._deferred or self.failed)
        if self._is_quiet or not idle or not self.is_outside_settled or self.awaits_external():
            return False
        self._is_quiet = True
        self._looks.update(node for node in self.topology.groups if node not in self.settled)
        return True

    # where a group stands

    def next_delivery(self, node: str, source: Source, *, latest: bool) -> Delivery | None:
        return (
            self._deliveries.get(source)
            if isinstance(source, str)
            else super().next_delivery(node, source, latest=latest)
        )

    def node_may_come(self, node: str) -> bool:
        return node != self.topology.start and node not in self.settled

    def _edges_may_come(self, node: str) -> bool:
        return any(map(self.node_may_come, self.topology.edge_sources[node]))

    def blame_node(self, node: str) -> str:
        if node in self.lost:
            return "it was cancelled when another source of a group with cancel_rest came first"
        if self._times.get(node):
            return "it failed, and its error handler answered"
        return skip_reason(self.topology, {*self._times, *self._ran_before}, node)

    # events

    def awaits_external(self) -> bool:
        # An open input keeps a run going, and with it the timers that fire again and again.
        return any(
            self.inputs.open if isinstance(source, Every) else self.may_come(source)
            for node, groups in self.topology.groups.items()
            if self._may_start(node)
            for group in groups
            for source in group.triggering
            if not isinstance(source, str)
        )

    def reads_external(self) -> bool:
        return self.inputs.open and any(map(self._is_waited_for, self.inputs.signals))

    def _is_waited_for(self, label: str) -> bool:
        """Whether the source is one of a node that has not started."""
        return any(map(self._may_start, self.topology.listeners[label]))

    # explanations

    def skip_reason(self, node: str) -> str | None:
        return None if node not in self.settled or self._times.get(node) else self.blame_node(node)

    def closed_targets(self) -> Mapping[str, str]:
        over = {*self.settled, self.topology.start}
        # A Send starts also a node that has run.
        others = {target for source, found in self.topology.choices.items() if source not in over for target in found}
        closed = {
            node: f"{node!r} has ended" if self._times.get(node) else f"{node!r} was skipped ({self.blame_node(node)})"
            for node in self.topology.nodes
            if node in self.settled and node not in others
        }
        late = [name for name in self.inputs.signals if not self._is_waited_for(name)]
        return {**closed, **dict.fromkeys(late, "nothing waits for it any more")}

    def waits_for(self, node: str) -> str:
        if self._times.get(node):
            return ""
        waits = self._groups_wait(node)
        if left := [source for source in self.topology.edge_sources[node] if self.node_may_come(source)]:
            waits[:0] = [f"its edges wait for {' and '.join(left)}"]
        return "; ".join(waits)
