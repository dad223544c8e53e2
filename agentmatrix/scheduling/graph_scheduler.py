"""What has run, what a node sees and what may start, put together: what the engine asks, and nothing else.

The order of calls, all of them by one thread at a time:

1. `remember` with the records that were saved since the checkpoint, `set_input_open`, then `open` or `resume`.
2. `replay`: all that had finished since the checkpoint is told again. It returns what is to run.
3. `take_record`: what was chosen so far is saved beside the checkpoint, under an id of its own.
4. For each task that ends: `finish`, which returns the record to save with the writes of the task, in one put. For each
   event from outside: `signal`, `timer`, `idle`, `external_update` or `set_input_open`, which return the record to
   save. Then `take_cancelled` and `take_ready`.
5. At a pause: `pause`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from agentmatrix.errors import TriggerError
from agentmatrix.scheduling.log import ActivationLog, entries_of
from agentmatrix.scheduling.paused import (
    needed_entries,
    plain_activation,
    plain_entries,
    restore_entries,
    restored_activation,
    resume_send,
    resumed_activations,
)
from agentmatrix.scheduling.rules import Delivered, NodeResult, Opening, Rules
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write
from agentmatrix.scheduling.source_queues import Delivery, bits_of, updates_of
from agentmatrix.scheduling.state import Channels, State, StateKeys, saved_value
from agentmatrix.scheduling.topology import Topology

__all__ = ["GraphScheduler", "Record", "RulesFactory"]

RulesFactory = Callable[[Topology, ActivationLog], Rules]
Record = dict[str, Any]
"""What a saver keeps so that a resumed run repeats what happened: plain values."""

_COMPACT_AT = 256
"""How many entries the log has at least before its beginning is folded for good."""


class GraphScheduler:
    """Grows with the run and is never copied.

    Args:
        topology: the shape of the graph.
        keys: how the channels of its state take writes.
        rules: makes the rules that start its nodes.
        base: the channels that the run begins with, by key.

    Attributes:
        inputs: what may come from outside.
        heard: how many events from outside have been recorded.
        levels: how many levels of activations this step has, between two events from outside.
    """

    def __init__(self, topology: Topology, keys: StateKeys, rules: RulesFactory, base: Channels) -> None:
        self.topology = topology
        self.log = ActivationLog()
        self.state = State(self.log, keys, base)
        self.rules = rules(topology, self.log)
        self.inputs = self.rules.inputs
        self.already_done: frozenset[str] = frozenset()
        self.heard = 0
        self._events: deque[Record] = deque()
        self._is_replaying = False
        # The entries that everything to come sees: all up to the last update from outside.
        self._updated: Delivered = (0, 0)
        self._unaware: frozenset[ScheduledActivation] = frozenset()
        self._compact_at = _COMPACT_AT
        # Depth and height of this step. An event from outside begins a level of its own: what has come before it is
        # no chain of steps, however long the run listens.
        self._levels_before = self._last_event = 0
        self.levels = 0

    def open(self, opening: Opening) -> None:
        """Begin where a checkpoint is."""
        self.rules.open(opening)

    def take_ready(self) -> list[ScheduledActivation]:
        """The activations that have become ready since the last look."""
        ready, self.rules.ready = self.rules.ready, []
        if self._updated[0]:
            for activation in ready:
                if activation in self._unaware:
                    continue
                activation.ancestors |= self._updated[0]
                activation.depth = max(activation.depth, self._updated[1])
        return ready

    def take_cancelled(self) -> list[ScheduledActivation]:
        """The activations that have been given up since the last look."""
        cancelled, self.rules.cancelled = self.rules.cancelled, []
        return cancelled

    def view(self, activation: ScheduledActivation) -> Channels:
        """What an activation sees. Shared: not to be changed."""
        return self.state.fold(activation.ancestors, activation.depth)

    def level(self, activation: ScheduledActivation) -> int:
        """How many levels of activations of this step come before an activation, since the last event that it knows."""
        log, since = self.log, max(self._levels_before, self._last_event)
        if log.outside and (events := activation.ancestors & log.outside):
            since = max(since, log.floor + log.depths[events.bit_length() - 1] + 1)
        return max(0, log.floor + activation.depth - since)

    def begin_step(self) -> None:
        """What starts from here on belongs to another step of LangGraph's."""
        self._levels_before, self.levels = self.depth(), 0

    def depth(self) -> int:
        """How many levels of activations have been recorded."""
        return self.log.floor + len(self.log.levels)

    def finish(self, activation: ScheduledActivation, result: NodeResult, *, recorded: bool = False) -> Record | None:
        """An activation has ended.

        Args:
            activation: the activation.
            result: what it has done.
            recorded: whether it ended in an earlier run of this process or another, and is only told again. The code
                may have changed since: nothing is checked.

        Returns:
            What must be saved with its writes before anything that has become ready starts; None where that is nothing.

        Raises:
            InvalidUpdateError: it leads where it may not, or writes what another one has written. Nothing has changed.
        """
        if not recorded:
            self.rules.check(activation, result)
            self.state.check(activation, result.writes)
        self.levels = max(self.levels, self.level(activation) + 1)
        bit = 0
        if activation.message is None or result.writes:
            # What an actor reads and says concerns nobody's view of the state.
            bit = self.log.append(activation, result.writes)
            self.state.record(activation, bit)
        self.rules.finish(activation, bit, result)
        if len(self.log.nodes) >= self._compact_at:
            self._compact()
        return None if recorded else self.take_record()

    def ran(self, *, sent: bool = True) -> frozenset[str]:
        """The nodes that have run, in this step or before a pause of it; `sent=False`: other than by a `Send`."""
        log, entries = self.log, entries_of(self.log.all & ~self.log.outside)
        return self.already_done.union(log.nodes[e] for e in entries if sent or log.orders[e][0] == 0)

    def given(self, activation: ScheduledActivation) -> dict[str, Any]:
        """By label of its sources, what they have delivered to an activation, for the node to keep or to change."""
        return {label: delivery.given() for label, delivery in self._items(activation).items()}

    def _items(self, activation: ScheduledActivation) -> Mapping[str, Delivery]:
        is_listed = bool(activation.items) or activation.group is not None or activation.send is not None
        if is_listed or not activation.after or not self.topology.reads_items:
            return activation.items
        return updates_of(self.log, activation.after, activation.ancestors)

    def _compact(self) -> None:
        """Fold the beginning of the log for good, as far as all that is to come sees it."""
        log = self.log
        self._compact_at = max(_COMPACT_AT, 2 * len(log))
        pinned = [] if self._is_replaying else list(self.rules.pinned())
        if not pinned:
            return
        first, floor = log.folded(pinned)
        if floor == 0:
            return
        base = self.state.fold(first, floor)
        self._note_events(first)
        self.already_done = self.already_done.union(log.nodes[entry] for entry in entries_of(first & ~log.outside))
        rebase = log.compact(floor)
        self.state.rebase(base)
        self.rules.rebase(rebase)
        self._updated = rebase.bits(self._updated[0]), rebase.depth(self._updated[1])
        self._compact_at = max(_COMPACT_AT, 2 * len(log))

    def _note_events(self, entries: int) -> None:
        """All to come knows the events among these entries, which are not kept."""
        log = self.log
        if events := entries & log.outside:
            depth = log.floor + log.depths[events.bit_length() - 1] + 1
            self._last_event = max(self._last_event, depth)

    # choices

    def remember(self, records: Iterable[Record]) -> None:
        """What was recorded since the checkpoint is to be repeated. Called before `open` or `resume`.

        Args:
            records: all that `take_record` and the events have returned, in any order.
        """
        choices: list[Any] = []
        for record in records:
            self._is_replaying = True
            choices += [{**choice, "heard": record.get("n", record["heard"])} for choice in record["choices"]]
            if "n" in record:
                self._events.append(record)
        self._events = deque(sorted(self._events, key=lambda event: event["n"]))
        # Events without choices are told again too, before anything is decided.
        if self._is_replaying:
            self.rules.remember(choices)

    def take_record(self) -> Record | None:
        """What must be saved before anything that has become ready starts; None where that is nothing."""
        choices = self.rules.choices
        if not (choices or self.heard):
            return None
        self.rules.choices = []
        return {"heard": self.heard, "choices": choices}

    def replay(
        self, saved: Callable[[ScheduledActivation], tuple[NodeResult, Record | None] | None]
    ) -> list[ScheduledActivation]:
        """Tell again all that has finished since the checkpoint.

        What an event from outside knew is repeated without an order of arrival: it is told once all is told that had
        finished before it, and before what has finished after it.

        Args:
            saved: gives what an activation has done, with the record that was saved beside it, or None where it has
                not finished.

        Returns:
            The activations that are to run.
        """
        unfinished: dict[ScheduledActivation, None] = {}
        finished: dict[ScheduledActivation, tuple[int, NodeResult]] = {}
        while True:
            for activation in self.take_ready():
                if (found := saved(activation)) is None:
                    unfinished[activation] = None
                else:
                    result, record = found
                    finished[activation] = record["heard"] if record is not None else 0, result
            for cancelled in self.take_cancelled():
                unfinished.pop(cancelled, None)
                finished.pop(cancelled, None)
            tellable = (a for a, (heard, _) in finished.items() if heard <= self.heard or not self._events)
            if (first := next(tellable, None)) is not None:
                self.finish(first, finished.pop(first)[1], recorded=True)
            elif self._events:
                self._tell(self._events.popleft())
            elif not self.rules.end_replay() and not self.rules.ready:
                self._is_replaying = False
                return list(unfinished)

    # events from outside

    def signal(self, name: str, value: Any, id: str) -> Record | None:
        """A signal has come.

        Args:
            name: the signal.
            value: what it carries.
            id: what tells it from others.

        Returns:
            What must be saved before it is acknowledged; None where it does not count: one of this id has come before,
            or the run has reached END.
        """
        if self.inputs.ended or self.inputs.knows(id):
            return None
        return self._happen({"signal": name, "value": value, "id": id})

    def timer(self, label: str) -> Record | None:
        """A timer has fired. Returns what must be saved; None where it does not count any more."""
        return None if self.inputs.ended else self._happen({"timer": label})

    def idle(self) -> Record:
        """Nothing is at work. Returns what must be saved before anything that starts because of it."""
        return self._happen({"idle": True})

    def external_update(self, writes: Sequence[Write]) -> Record:
        """Somebody outside has updated the state: it is folded after everything so far, and everything to come sees it.
        Returns what must be saved."""
        return self._happen({"update": [[key, value] for key, value in writes]})

    def set_input_open(self, open: bool) -> Record | None:
        """Whether signals may come from here on. Returns what must be saved, or None."""
        self.rules.set_input_open(open)
        choices, self.rules.choices = self.rules.choices, []
        return {"heard": self.heard, "choices": choices} if choices else None

    def awaits_external(self) -> bool:
        """Whether something from outside may still start a node."""
        return self.rules.awaits_external()

    def unread(self, name: str) -> int:
        """How many signals or ticks of this name some node has not consumed."""
        return self.rules.unread(name)

    def is_quiescent(self) -> bool:
        """Whether nothing is ready or at work."""
        return self.rules.is_quiescent()

    def _happen(self, event: Record) -> Record:
        record = {**event, "n": self.heard + 1, "depth": self.depth(), "heard": self.heard, "choices": []}
        self._tell(record)
        record["choices"], self.rules.choices = self.rules.choices, []
        if len(self.log) >= self._compact_at:
            self._compact()
        return record

    def _tell(self, record: Record) -> None:
        """An event is an entry of the log: it knows all that has been recorded, and is deeper than all of it."""
        if record["n"] <= self.heard:
            return
        self.heard = number = record["n"]
        label: str = record.get("signal") or record.get("timer") or ""
        depth = record["depth"] - self.log.floor
        event = ScheduledActivation(label, self.log.all, depth, f"~{number}", order=(2, number))
        writes = [(key, value) for key, value in record.get("update", ())]
        bit = self.log.append(event, writes, outside=True)
        if "signal" in record:
            self.inputs.hear(record["id"])
            self.rules.receive(label, event.name, record["value"], bit, depth)
        elif "timer" in record:
            self.rules.receive(label, event.name, self.inputs.tick(label), bit, depth)
        elif "idle" in record:
            self.rules.fire_idle(event.name, bit, depth)
        else:
            self._updated = self.log.all, depth + 1
        self.rules.hear(number)

    # pauses

    def pause(self, unfinished: Sequence[ScheduledActivation]) -> dict[str, Any]:
        """What must be kept besides the final state, as plain values.

        Most keys need nothing: all that has been written to them is seen by each activation to come. For a key that one
        of them may not see in full, its value before the run is kept and what has been written to it.

        Args:
            unfinished: the activations that are ready, at work or held back.
        """
        log, waiting, keys = self.log, self.rules.waiting(), self.state.keys
        # A node that waits in vain is looked at again.
        unfinished = [a for a in unfinished if not isinstance(a.error, TriggerError) and a.message is None]
        seen = [activation.ancestors for activation in unfinished]
        seen += [known for known, _ in (*waiting.values(), *self.rules.pinned())]
        common, kept, held = needed_entries(log, seen)
        entries = list(entries_of(kept))
        self._note_events(common & ~kept)

        def numbers(bits: int) -> list[int]:
            return [number for number, entry in enumerate(entries) if bits >> entry & 1]

        rules = self.rules.pause(numbers, keys.untracked)
        sends = [activation for activation in unfinished if activation.send is not None]
        tracked = [key for key in held if key not in keys.untracked]
        base = self.state.base
        return {
            "entries": plain_entries(log, entries, kept, tracked, numbers),
            "base": {key: saved_value(base[key]) for key in tracked if base[key].is_available()},
            "keys": held,
            "activations": [self._plain(a, numbers) for a in unfinished if a.send is None],
            "sends": [self._plain(activation, numbers) for activation in sends],
            "waiting": {node: [numbers(known), depth] for node, (known, depth) in waiting.items()},
            "depth": len(log.levels),
            "before": self._levels_before,
            "levels": self.levels,
            "event": self._last_event,
            "floor": log.floor,
            "heard": self.heard,
            "updated": [numbers(self._updated[0]), self._updated[1]],
            "numbers": dict(self.rules.numbers),
            "rules": rules,
        }

    def _plain(self, activation: ScheduledActivation, numbers: Callable[[int], list[int]]) -> dict[str, Any]:
        if not activation.items:
            activation.items = self._items(activation)
        return plain_activation(activation, numbers, self.state.keys.untracked)

    def resume(
        self,
        kept: Mapping[str, Any],
        ready: Iterable[str],
        sends: Sequence[ScheduledActivation],
        done: Iterable[str],
        called: Collection[str | None],
        *,
        identities: bool,
        joined: Mapping[str, frozenset[str]] | None = None,
        updates: Mapping[str, NodeResult] | None = None,
    ) -> None:
        """Go on from a pause.

        Args:
            kept: what `pause` has kept, without the keys that somebody has changed since.
            ready: the nodes that are to run.
            sends: the undelivered Sends, in the order in which `pause` was given them.
            done: the nodes that had run.
            called: the nodes that a command from outside calls for, though they may have run.
            identities: whether the activations go on as what they were; else they are the first ones of their step.
            joined: by key of a join that is not complete, the nodes that have arrived at it.
            updates: by node, what somebody has written in its name since: it is not to run then.
        """
        log = self.log
        restore_entries(log, kept["entries"], kept["keys"])
        log.levels += [0] * (kept["depth"] - len(log.levels))
        log.floor, self.heard = kept.get("floor", 0), kept.get("heard", 0)
        self.rules.hear(self.heard)
        self._levels_before = kept["before"] if identities else log.floor + kept["depth"]
        self.levels, self._last_event = kept.get("levels", 0) if identities else 0, kept.get("event", 0)
        self.already_done = frozenset(done)
        known, depth = kept.get("updated", ((), 0))
        self._updated = bits_of(known), depth
        runs = [node for node in ready if self.topology.node_of(node) in self.topology.follow]
        resumed, updated = resumed_activations(self.topology, log, kept.get("activations", ()), runs, updates or {})
        activations = {activation.node: activation for activation in reversed(resumed)}
        for node in runs:
            fresh = self.topology.may_repeat or node not in self.already_done or node in called
            if node not in activations and fresh:
                depth = len(log.levels) if log.all else 0
                activations[node] = ScheduledActivation(node, log.all, depth, order=(0, node))
        for activation, plain in zip(sends, kept["sends"], strict=False):
            resume_send(activation, restored_activation(plain))
        # What an update from outside has met at work does not see it.
        self._unaware = frozenset((*resumed, *sends))
        waiting: dict[str, Delivered] = {
            node: (bits_of(known), depth)
            for node, (known, depth) in kept["waiting"].items()
            if node in self.topology.follow and node not in activations
        }
        self.rules.open(
            Opening(
                {node: activations[node] for node in runs if node in activations},
                sends,
                waiting,
                done=self.already_done,
                called=frozenset(node for node in activations if node in called),
                joined=joined or {},
                resumed=resumed,
                updated=updated,
                saved=kept.get("rules"),
                numbers=kept.get("numbers", {}),
            )
        )
