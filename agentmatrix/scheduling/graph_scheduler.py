"""What has run, what a node sees and what may start, put together: what the engine asks, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from agentmatrix.scheduling.log import ActivationLog, entries_of
from agentmatrix.scheduling.rules import Delivered, NodeResult, Opening, Rules
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.state import Channels, State, StateKeys
from agentmatrix.scheduling.topology import Topology

__all__ = ["GraphScheduler", "RulesFactory"]

RulesFactory = Callable[[Topology, ActivationLog], Rules]


class GraphScheduler:
    """Grows with the run and is never copied.

    Args:
        topology: the shape of the graph.
        keys: how the channels of its state take writes.
        rules: makes the rules that start its nodes.
        base: the channels that the run begins with, by key.
    """

    def __init__(self, topology: Topology, keys: StateKeys, rules: RulesFactory, base: Channels) -> None:
        self.topology = topology
        self.log = ActivationLog()
        self.state = State(self.log, keys, base)
        self.rules = rules(topology, self.log)
        self.already_done: frozenset[str] = frozenset()
        self._levels_before = 0

    def open(self, opening: Opening) -> None:
        """Begin where a checkpoint is."""
        self.rules.open(opening)

    def take_ready(self) -> list[ScheduledActivation]:
        """The activations that have become ready since the last look."""
        ready, self.rules.ready = self.rules.ready, []
        return ready

    def take_cancelled(self) -> list[ScheduledActivation]:
        """The activations that have been given up since the last look."""
        cancelled, self.rules.cancelled = self.rules.cancelled, []
        return cancelled

    def view(self, activation: ScheduledActivation) -> Channels:
        """What an activation sees. Shared: not to be changed."""
        return self.state.fold(activation.ancestors, activation.depth)

    def level(self, activation: ScheduledActivation) -> int:
        """How many levels of activations of this step come before an activation."""
        return max(0, self.log.floor + activation.depth - self._levels_before)

    def levels(self) -> int:
        """How many levels of activations this step has."""
        return max(0, self.log.floor + len(self.log.levels) - self._levels_before)

    def finish(self, activation: ScheduledActivation, result: NodeResult, *, recorded: bool = False) -> None:
        """An activation has ended.

        Args:
            activation: the activation.
            result: what it has done.
            recorded: whether it ended in an earlier run of this process or another, and is only told again. The code
                may have changed since: nothing is checked.

        Raises:
            InvalidUpdateError: it leads where it may not, or writes what another one has written. Nothing has changed.
        """
        if not recorded:
            self.rules.check(activation, result)
            self.state.check(activation, result.writes)
        bit = self.log.append(activation, result.writes)
        self.rules.finish(activation, bit, result)

    def done(self) -> frozenset[str]:
        """The nodes that have run, in this step or before a pause of it."""
        return self.already_done.union(self.log.nodes)

    # pauses

    def pause(self, unfinished: Sequence[ScheduledActivation], *, identities: bool) -> dict[str, Any] | None:
        """What must be kept besides the final state, as plain values; None where that is nothing.

        Most keys need nothing: all that has been written to them is seen by each activation to come. For a key that one
        of them may not see in full, its value before the run is kept and what has been written to it.

        Args:
            unfinished: the activations that are ready, at work or held back.
            identities: whether these go on as what they are, by depth and name.
        """
        log, waiting = self.log, self.rules.waiting()
        common = log.all
        for known in (*(a.ancestors for a in unfinished), *(known for known, _ in waiting.values())):
            common &= known
        hidden = log.all & ~common
        held = [key for key, writers in log.writers.items() if writers & hidden]
        kept = 0
        for key in held:
            kept |= log.writers[key]
        entries = list(entries_of(kept))
        plain = not entries and not waiting and all(activation.send is None for activation in unfinished)
        if plain and not identities:
            return None

        def numbers(bits: int) -> list[int]:
            return [number for number, entry in enumerate(entries) if bits >> entry & 1]

        tracked = [key for key in held if key not in self.state.keys.untracked]
        base = self.state.base
        return {
            "entries": [
                [
                    log.nodes[entry],
                    log.depths[entry],
                    list(log.orders[entry]),
                    numbers(log.ancestors[entry]),
                    [[key, value] for key, value in log.writes[entry] if key in tracked],
                ]
                for entry in entries
            ],
            "base": {key: base[key].checkpoint() for key in tracked if base[key].is_available()},
            "keys": held,
            "ready": {a.node: [numbers(a.ancestors), a.depth] for a in unfinished if a.send is None},
            "sends": [
                [numbers(a.ancestors), a.depth, list(a.order), a.name, a.position]
                for a in unfinished
                if a.send is not None
            ],
            "waiting": {node: [numbers(known), depth] for node, (known, depth) in waiting.items()},
            "depth": len(log.levels),
            "before": self._levels_before,
        }

    def resume(
        self,
        kept: Mapping[str, Any],
        ready: Iterable[str],
        sends: Sequence[ScheduledActivation],
        done: Iterable[str],
        called: Collection[str | None],
        *,
        identities: bool,
    ) -> None:
        """Go on from a pause.

        Args:
            kept: what `pause` has kept, without the keys that somebody has changed since.
            ready: the nodes that are to run.
            sends: the undelivered Sends, in the order in which `pause` was given them.
            done: the nodes that had run.
            called: the nodes that a command from outside calls for, though they may have run.
            identities: whether the activations go on as what they were; else they are the first ones of their step.
        """
        log = self.log
        for node, depth, order, ancestors, writes in kept["entries"]:
            past = ScheduledActivation(node, _bits(ancestors), depth, _order(order))
            log.append(past, [(key, value) for key, value in writes if key in kept["keys"]])
        log.levels += [0] * (kept["depth"] - len(log.levels))
        self.already_done = frozenset(done)
        self._levels_before = kept["before"] if identities else kept["depth"]
        activations: dict[str, ScheduledActivation] = {}
        for node in ready:
            if node in kept["ready"]:
                known, depth = kept["ready"][node]
                activations[node] = ScheduledActivation(node, _bits(known), depth)
            elif node in called:
                activations[node] = ScheduledActivation(node, log.all, kept["depth"])
            elif node not in self.already_done:
                activations[node] = ScheduledActivation(node, log.all)
        for activation, (known, depth, order, name, position) in zip(sends, kept["sends"], strict=False):
            activation.ancestors, activation.depth, activation.order = _bits(known), depth, _order(order)
            activation.name, activation.position = name, position
        waiting: dict[str, Delivered] = {
            node: (_bits(known), depth)
            for node, (known, depth) in kept["waiting"].items()
            if node in self.topology.follow and node not in activations
        }
        opening = Opening(activations, sends, waiting, self.already_done)
        opening.called = frozenset(node for node in activations if node in called)
        self.rules.open(opening)


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def _order(plain: Any) -> Any:
    return tuple(map(_order, plain)) if isinstance(plain, list | tuple) else plain
