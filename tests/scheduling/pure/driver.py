"""Stands for the engine: ends activations when a test says so, saves what an engine would save, crashes and pauses."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send

from agentmatrix.scheduling.graph_scheduler import GraphScheduler, RulesFactory
from agentmatrix.scheduling.rules import NodeResult, Opening
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.state import StateKeys
from agentmatrix.scheduling.topology import Topology

START = "__start__"
Behaviour = Callable[[ScheduledActivation], NodeResult]

_SERDE = JsonPlusSerializer()


def channels() -> dict[str, Any]:
    """The channels of a state with a list that is added to, and a key that holds one value."""
    made: dict[str, Any] = {"log": BinaryOperatorAggregate(list, operator.add), "x": LastValue(str)}
    for key, channel in made.items():
        channel.key = key
    return made


@dataclass(frozen=True)
class Seen:
    """What an activation is told and sees."""

    node: str
    number: int
    group: str | None
    items: Mapping[str, Any]
    log: tuple[str, ...]


def stored(value: Any) -> Any:
    """The value as a saver gives it back."""
    return _SERDE.loads_typed(_SERDE.dumps_typed(value))


@dataclass
class Saver:
    """What survives a crash.

    Attributes:
        kept: what the last pause has kept, with the final state at it.
        results: by node and key of an activation that has ended since, what it has done, and the record beside it.
        records: those that stand alone.
    """

    kept: Any = None
    base: Mapping[str, Any] = field(default_factory=channels)
    sends: Sequence[Send] = ()
    ready: Sequence[str] = ()
    results: dict[tuple[str, str], tuple[NodeResult, Any]] = field(default_factory=dict)
    records: list[Any] = field(default_factory=list)
    done: frozenset[str] = frozenset()


class Driver:
    """One run, until it crashes or pauses.

    Args:
        topology: the shape of the graph.
        rules: makes the rules.
        behaviour: what an activation does; it depends on nothing else.
        begins: the nodes that START leads to by edges.
        saver: what an earlier driver has saved.
        is_input_open: whether signals may come.
    """

    def __init__(
        self,
        topology: Topology,
        rules: RulesFactory,
        behaviour: Behaviour,
        begins: Sequence[str] = (),
        *,
        saver: Saver | None = None,
        is_input_open: bool = False,
    ) -> None:
        self.topology, self.rules, self.behaviour, self.begins = topology, rules, behaviour, begins
        self.saver = saver or Saver()
        self.running: dict[tuple[str, str], ScheduledActivation] = {}
        self.seen: dict[tuple[str, str], Seen] = {}
        self.errors: list[tuple[str, Exception]] = []
        self.is_input_open = is_input_open
        self.scheduler = GraphScheduler(topology, StateKeys(channels()), rules, dict(self.saver.base))
        self._open()

    def _open(self) -> None:
        saver, scheduler = self.saver, self.scheduler
        records = [*saver.records, *(record for _, record in saver.results.values() if record)]
        scheduler.remember(stored(records))
        if not self.topology.deaf:
            scheduler.set_input_open(self.is_input_open)
        if saver.kept is None:
            scheduler.open(
                Opening({node: ScheduledActivation(node, order=(0, node)) for node in self.begins}, [], begins=True)
            )
        else:
            sends = [
                ScheduledActivation(send.node, order=(1, (), position), send=send, position=position)
                for position, send in enumerate(saver.sends)
            ]
            scheduler.resume(saver.kept, saver.ready, sends, saver.done, (), identities=True)
        for activation in scheduler.replay(self._saved):
            self._start(activation)
        self._save_record()

    def _saved(self, activation: ScheduledActivation) -> Any:
        self._note(activation)
        return copy.deepcopy(self.saver.results.get((activation.node, activation.key)))

    def _save_record(self) -> None:
        if (record := self.scheduler.take_record()) is not None and record["choices"]:
            self.saver.records.append(record)

    def _note(self, activation: ScheduledActivation) -> None:
        if activation.error is not None:
            return
        view = self.scheduler.view(activation)
        log = tuple(view["log"].get())
        seen = Seen(activation.node, activation.number, activation.group, self.scheduler.given(activation), log)
        self.seen[activation.node, activation.key] = seen

    def _start(self, activation: ScheduledActivation) -> None:
        if activation.error is not None:
            self.errors.append((activation.node, activation.error))
        self.running[activation.node, activation.key] = activation

    def look(self) -> None:
        """Start what has become ready, give up what was cancelled."""
        for activation in self.scheduler.take_cancelled():
            del self.running[activation.node, activation.key]
        for activation in self.scheduler.take_ready():
            self._note(activation)
            self._start(activation)

    def end(self, key: tuple[str, str]) -> None:
        """An activation ends."""
        activation = self.running.pop(key)
        assert activation.error is None
        result = self.behaviour(activation)
        record = self.scheduler.finish(activation, result)
        self.saver.results[key] = copy.deepcopy(result), record
        self.look()

    def event(self, record: Any) -> None:
        """Save what an event has returned."""
        if record is not None:
            self.saver.records.append(record)
        self.look()

    def signal(self, name: str, value: Any, id: str) -> None:
        self.event(self.scheduler.signal(name, value, id))

    def close_input(self) -> None:
        self.is_input_open = False
        self.event(self.scheduler.set_input_open(False))

    def crashed(self) -> Driver:
        """The run as it goes on after a crash."""
        saver = self.saver
        return self._again(replace(saver, results=dict(saver.results), records=list(saver.records)))

    def paused(self) -> Driver:
        """The run as it goes on after a pause."""
        unfinished = list(self.running.values())
        sends = [activation.send for activation in unfinished if activation.send is not None]
        ready = list(dict.fromkeys(a.node for a in unfinished if a.send is None))
        final = self.scheduler.state.final()
        kept = stored(self.scheduler.pause(unfinished))
        base = {key: channel.from_checkpoint(channel.checkpoint()) for key, channel in final.items()}
        for key in kept["keys"]:
            base[key] = channels()[key].from_checkpoint(kept["base"][key]) if key in kept["base"] else channels()[key]
        done = self.scheduler.ran(sent=False) - {activation.node for activation in unfinished}
        return self._again(Saver(kept, base, [send for send in sends if send], ready, done=done))

    def _again(self, saver: Saver) -> Driver:
        made = Driver(
            self.topology,
            self.rules,
            self.behaviour,
            self.begins,
            saver=saver,
            is_input_open=self.is_input_open,
        )
        return made

    def final(self) -> Any:
        return self.scheduler.state.final()["log"].get()
