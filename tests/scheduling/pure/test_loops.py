"""The rules of loops, without an engine: queues against the model, crashes and pauses at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.errors import TriggerError
from agentmatrix.scheduling.loop_rules import LoopRules
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
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
    interrupted: int = 0
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
            if self.interrupted < 3 and self.data.draw(st.integers(0, 3)) == 0:
                self.interrupted += 1
                self.driver = getattr(self.driver, what)()
                self.remember()
                again = {named(a) for a in self.driver.running.values() if a.error is None}
                assert again == running
        if self.lacking:
            assert self.driver.errors
            for _, error in self.driver.errors:
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


@settings(max_examples=60, deadline=None)
@given(plot=plots(), data=st.data())
def test_no_item_is_lost_or_used_twice(plot: Plot, data: st.DataObject) -> None:
    contest(plot, data)


@settings(max_examples=60, deadline=None)
@given(plot=plots(), data=st.data())
def test_a_crash_changes_no_choice(plot: Plot, data: st.DataObject) -> None:
    """What has started starts again with the same group, items and view. In which order other items have come is not
    recorded, so the model cannot say what they start; none is lost or used twice."""
    driver, seen, crashes = played(plot), dict[Any, Seen](), 0
    while True:
        running = {*driver.running}
        if crashes < 3 and data.draw(st.integers(0, 3)) == 0:
            crashes += 1
            failed = [node for node, _ in driver.errors]
            # What has failed is looked at again after a pause, and so would what started beside it.
            ways = ["crashed"] if failed else ["crashed", "crashed", "paused"]
            driver = getattr(driver, data.draw(st.sampled_from(ways)))()
            assert {*driver.running} == running and [node for node, _ in driver.errors] == failed
        for key, told in driver.seen.items():
            assert seen.setdefault(key, told) == told
        if driver.errors or not running:
            break
        driver.end(data.draw(st.sampled_from(sorted(running))))
    check_queues(plot, list(seen.values()))
    if not driver.errors:
        assert driver.scheduler.is_quiescent()
        assert sorted(driver.final()) == sorted(f"{told.node}#{told.number}" for told in seen.values())


def check_queues(plot: Plot, seen: list[Seen]) -> None:
    """Each consumer has the items of a source in order, and none twice."""
    for name, groups in plot.consumers.items():
        consumed = {label for group in groups for label in (*group.sources, *group.gate, *group.optional)}
        activations = sorted((told for told in seen if told.node == name), key=lambda told: told.number)
        assert [told.number for told in activations] == list(range(1, len(activations) + 1))
        for label in consumed - {label for group in groups for label in group.latest}:
            had = [told.items[label]["log"][0] for told in activations if label in told.items]
            due = [f"{label}#{i + 1}" for i in range(len(had))]
            # Activations that run at once deliver as they end.
            assert had == due if label not in plot.concurrent else len(set(had)) == len(had)


@settings(max_examples=60, deadline=None)
@given(plot=plots(), data=st.data())
def test_a_pause_changes_no_choice(plot: Plot, data: st.DataObject) -> None:
    contest(plot, data, "paused")
