"""The rules of loops, without an engine: queues against the model, crashes and pauses at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.errors import TriggerError
from agentmatrix.scheduling.activation import ScheduledActivation
from agentmatrix.scheduling.loop_rules import LoopRules
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.topology import Topology
from tests.scheduling.cyclic_rules import Cycles
from tests.scheduling.pure.driver import START, Driver, Seen
from tests.scheduling.test_queues import Plot, arrive, plots


def topology_of(plot: Plot) -> Topology:
    nodes = (*plot.makes, *plot.consumers)
    return Topology(
        START,
        nodes,
        {START: tuple(plot.makes)},
        {name: (name,) for name in plot.makes},
        groups={name: tuple(group.built() for group in groups) for name, groups in plot.consumers.items()},
        concurrent=plot.concurrent,
        max_rounds=25,
    )


def named(activation: ScheduledActivation) -> str:
    """As the model calls it."""
    return f"{activation.node}#{activation.number}"


def played(plot: Plot) -> Driver:
    def behaves(activation: ScheduledActivation) -> NodeResult:
        node, writes = activation.node, [("log", [named(activation)])]
        again = node in plot.makes and activation.number < plot.makes[node]
        return NodeResult(writes, (node,) if again else ())

    return Driver(topology_of(plot), LoopRules, behaves, tuple(plot.makes))


@dataclass
class Contest:
    """A run beside the model. Whatever happens to it, what was seen once is seen again."""

    plot: Plot
    data: st.DataObject
    driver: Driver = field(init=False)
    model: Cycles = field(init=False)
    lacking: list[tuple[str, str]] = field(default_factory=list)
    seen: dict[Any, Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.driver, self.model = played(self.plot), self.plot.model()
        for name in self.plot.makes:
            self.model.lead(START, name, "in")

    def step(self, interruptions: tuple[str, ...]) -> bool:
        if not self.model.running and not self.lacking:
            self.lacking, _ = self.model.rest()
        self.remember()
        running = {named(activation) for activation in self.driver.running.values() if activation.error is None}
        assert running == set(self.model.running)
        for what in interruptions:
            if self.data.draw(st.integers(0, 3)) == 0:
                self.driver = getattr(self.driver, what)()
                self.remember()
                again = {named(a) for a in self.driver.running.values() if a.error is None}
                assert again == running
        if self.lacking:
            (error,) = {node: error for node, error in self.driver.errors}.values()
            assert isinstance(error, TriggerError)
            assert (error.node, error.group) in self.lacking
            assert error.skipped
            return False
        assert self.driver.errors == []
        if not self.model.running:
            return False
        name = self.data.draw(st.sampled_from(sorted(self.model.running)))
        key = next(key for key, activation in self.driver.running.items() if named(activation) == name)
        ended = self.model.running[name]
        self.driver.end(key)
        arrive(self.plot, self.model, ended)
        return True

    def remember(self) -> None:
        for key, seen in self.driver.seen.items():
            assert self.seen.setdefault(key, seen) == seen

    def check(self) -> None:
        if not self.lacking:
            assert self.driver.scheduler.is_quiescent()
            assert sorted(self.driver.final()) == sorted(activation.key for activation in self.model.begun)
        told = {(seen.node, seen.number): seen for seen in self.seen.values()}
        for activation in self.model.begun:
            seen = told[activation.node, activation.number]
            assert seen.group == activation.group
            if activation.node in self.plot.consumers:
                assert seen.items == {label: {"log": [item]} for label, item in activation.items.items()}


def contest(plot: Plot, data: st.DataObject, *interruptions: str) -> None:
    contest = Contest(plot, data)
    while contest.step(interruptions):
        pass
    contest.check()


@settings(max_examples=300, deadline=None)
@given(plot=plots(), data=st.data())
def test_no_item_is_lost_or_used_twice(plot: Plot, data: st.DataObject) -> None:
    contest(plot, data)


@settings(max_examples=300, deadline=None)
@given(plot=plots(), data=st.data())
def test_a_crash_changes_no_choice(plot: Plot, data: st.DataObject) -> None:
    contest(plot, data, "crashed")


@settings(max_examples=300, deadline=None)
@given(plot=plots(), data=st.data())
def test_a_pause_changes_no_choice(plot: Plot, data: st.DataObject) -> None:
    contest(plot, data, "paused")


@settings(max_examples=300, deadline=None)
@given(plot=plots(), data=st.data())
def test_pauses_and_crashes_change_no_choice(plot: Plot, data: st.DataObject) -> None:
    contest(plot, data, "crashed", "paused")
