"""The rules of a Dag with trigger groups, without an engine: against the model, with crashes and pauses."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.errors import TriggerError
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.topology import Topology
from agentmatrix.scheduling.trigger_rules import TriggeredDagRules
from tests.scheduling.dag_rules import EDGES, Plot, Running
from tests.scheduling.pure.driver import START, Driver, Seen
from tests.scheduling.test_random_dags import built, plots


def topology_of(plot: Plot) -> Topology:
    edges: dict[str, tuple[str, ...]] = {}
    choices: dict[str, tuple[str, ...]] = {}
    groups: dict[str, tuple[Any, ...]] = {}
    for name, written in plot.groups.items():
        for group in written:
            if group.name == EDGES:
                for source in group.sources:
                    edges[source] = (*edges.get(source, ()), name)
            else:
                groups[name] = (*groups.get(name, ()), built(group, group.name in plot.cancels))
        if not written and name not in plot.routed:
            edges[START] = (*edges.get(START, ()), name)
    for name, (source, _) in plot.routed.items():
        choices[source] = (*choices.get(source, ()), name)
    return Topology(START, tuple(plot.added), edges, choices, groups=groups)


def played(plot: Plot) -> Driver:
    topology = topology_of(plot)

    def behaves(activation: ScheduledActivation) -> NodeResult:
        node = activation.node
        chosen = [name for name, (source, taken) in plot.routed.items() if source == node and taken]
        return NodeResult([("log", [node])], (*topology.edges.get(node, ()), *chosen))

    return Driver(topology, TriggeredDagRules, behaves, topology.edges[START])


def nodes_of(driver: Driver) -> set[str]:
    return {activation.node for activation in driver.running.values() if activation.error is None}


def key_of(driver: Driver, node: str) -> tuple[str, str]:
    return next(key for key in driver.running if key[0] == node)


@settings(max_examples=100, deadline=None)
@given(plot=plots(), data=st.data(), pauses=st.integers(0, 2))
def test_what_runs_when_and_with_what(plot: Plot, data: st.DataObject, pauses: int) -> None:
    driver, model, seen = played(plot), Running(plot), dict[Any, Seen]()
    while True:
        assert nodes_of(driver) == set(model.running)
        for key, told in driver.seen.items():
            assert seen.setdefault(key, told) == told
        if model.failed or not model.running:
            break
        if pauses and data.draw(st.booleans()):
            pauses -= 1
            driver = driver.paused()
            continue
        node = data.draw(st.sampled_from(sorted(model.running)))
        driver.end(key_of(driver, node))
        model.end(node)
    if model.failed:
        assert {node for node, _ in driver.errors} == set(model.failed)
        for node, error in driver.errors:
            assert isinstance(error, TriggerError)
            assert error.group in model.failed[node]
        return
    assert driver.scheduler.is_quiescent()
    assert sorted(driver.final()) == sorted(model.done)
    for told in seen.values():
        if told.node in model.begun:
            group, labels = model.begun[told.node]
            assert (told.number, told.group) == (1, group)
            assert set(told.log) == model.ancestors(told.node)
            if group is not None:
                assert told.items == {label: {"log": [label]} for label in labels}


@settings(max_examples=100, deadline=None)
@given(plot=plots(), data=st.data())
def test_a_crash_changes_no_choice(plot: Plot, data: st.DataObject) -> None:
    driver, seen, crashes = played(plot), dict[Any, Seen](), 0
    while True:
        running = {*driver.running}
        if crashes < 3 and data.draw(st.integers(0, 2)) == 0:
            crashes += 1
            driver = getattr(driver, data.draw(st.sampled_from(["crashed", "crashed", "paused"])))()
            assert {*driver.running} == running
        for key, told in driver.seen.items():
            if key in running or key in seen:
                assert seen.setdefault(key, told) == told
        if driver.errors or not running:
            break
        driver.end(data.draw(st.sampled_from(sorted(running))))
    if not driver.errors:
        assert driver.scheduler.is_quiescent()
