"""Signals, timers and updates, without an engine: crashes and pauses at any moment, a log that is compacted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.errors import InvalidUpdateError
from langgraph.types import Send

from agentmatrix import after, all_of, any_of, at_least, every, signal
from agentmatrix.scheduling import graph_scheduler
from agentmatrix.scheduling.loop_rules import LoopRules
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.topology import Topology
from agentmatrix.scheduling.trigger_rules import TriggeredDagRules
from tests.scheduling.pure.driver import START, Driver

SOURCES: list[Any] = [signal("word"), signal("mood"), every(1, name="clock"), after(1, name="late")]


@dataclass(frozen=True)
class Plot:
    """Nodes with groups over signals, timers and each other.

    Attributes:
        loops: whether a node may lead to itself and to earlier ones.
        sends: by node, how many Sends to whom.
        writes: the nodes that write the key that holds one value.
    """

    loops: bool
    topology: Topology
    sends: Mapping[str, tuple[str, int]]
    again: Mapping[str, tuple[str, int]]
    writes: frozenset[str]

    def driver(self) -> Driver:
        def behaves(activation: ScheduledActivation) -> NodeResult:
            node, name = activation.node, f"{activation.node}/{activation.key}"
            writes = [("log", [name]), *([("x", name)] if node in self.writes else [])]
            target, times = self.again.get(node, ("", 0))
            to, count = self.sends.get(node, ("", 0))
            sends = [Send(to, {"log": [str(i)]}) for i in range(count)] if activation.rounds.get(node, 0) < 2 else []
            targets = [target] if activation.rounds.get(node, 0) <= times and target else []
            return NodeResult(writes, targets, sends)

        rules = LoopRules if self.loops else TriggeredDagRules
        return Driver(self.topology, rules, behaves, ("n0",), is_input_open=True)


@st.composite
def plots(draw: st.DrawFn, loops: bool = True) -> Plot:
    names = [f"n{i}" for i in range(draw(st.integers(2, 5)))]
    groups: dict[str, tuple[Any, ...]] = {}
    sends: dict[str, tuple[str, int]] = {}
    again: dict[str, tuple[str, int]] = {}
    for i, name in enumerate(names[1:], 1):
        groups[name] = tuple(draw(groups_over(names[:i], f"{name} {j}")) for j in range(draw(st.integers(1, 2))))
    for i, name in enumerate(names):
        later = names if loops else names[i + 1 :]
        if later and draw(st.integers(0, 3)) == 0:
            sends[name] = draw(st.sampled_from(later)), draw(st.integers(1, 3))
        if loops and draw(st.integers(0, 2)) == 0:
            again[name] = draw(st.sampled_from(names)), draw(st.integers(1, 3))
    choices = {
        name: tuple({found[0] for found in (sends.get(name), again.get(name)) if found is not None}) for name in names
    }
    concurrent = draw(st.frozensets(st.sampled_from(names))) if loops else frozenset()
    topology = Topology(
        START, tuple(names), {START: ("n0",)}, choices, groups=groups, concurrent=concurrent, max_rounds=6 * loops
    )
    return Plot(loops, topology, sends, again, draw(st.frozensets(st.sampled_from(names))))


@st.composite
def groups_over(draw: st.DrawFn, nodes: list[str], name: str) -> Any:
    sources = draw(st.permutations([*SOURCES, *nodes]))
    count = draw(st.integers(1, 3))
    options: dict[str, Any] = {"name": name, "skipped": draw(st.sampled_from(["ok", "ok", "error"]))}
    for source in sources[count : count + 3]:
        role = draw(st.sampled_from(["", "latest", "optional", "gate"]))
        if role:
            options[role] = (*options.get(role, ()), source)
    kind = draw(st.sampled_from(["all", "any", "least"]))
    if kind == "all":
        return all_of(*sources[:count], **options)
    options["cancel_rest"] = draw(st.booleans())
    if kind == "any":
        return any_of(*sources[:count], **options)
    return at_least(draw(st.integers(1, count)), *sources[:count], **options)


class Stop(Exception):
    """Nothing more is to happen."""


def happens(driver: Driver, data: st.DataObject, number: int) -> tuple[Any, ...]:
    """Something that may happen now."""
    ends = [("end", key) for key, activation in driver.running.items() if activation.error is None]
    events: list[tuple[Any, ...]] = []
    inputs = driver.scheduler.inputs
    if inputs.open:
        events += [("signal", "word", f"w{number}"), ("signal", "mood", f"m{number}"), ("close",)]
    if driver.running or driver.scheduler.awaits_external():
        events += [("timer", label) for label in inputs.timers()]
    events += [("update", f"u{number}")]
    if driver.errors or number > 40 or not (ends or driver.scheduler.awaits_external()):
        raise Stop
    return data.draw(st.sampled_from([*ends, *ends, *ends, *events]))


def does(driver: Driver, what: tuple[Any, ...]) -> None:
    match what:
        case ("end", key):
            driver.end(key)
        case ("signal", name, id):
            driver.signal(name, f"value of {id}", id)
        case ("timer", label):
            driver.event(driver.scheduler.timer(label))
        case ("update", text):
            driver.event(driver.scheduler.external_update([("log", [text])]))
        case _:
            driver.close_input()


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("ways", [["crashed"], ["paused"], ["crashed", "crashed", "paused"]])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_run_goes_on_as_it_was(data: st.DataObject, ways: list[str], loops: bool) -> None:
    """All that has started starts again, with the same number, group, items and view; nothing else does."""
    driver = data.draw(plots(loops)).driver()
    seen: dict[Any, Any] = {}
    try:
        for number in range(1000):
            for key, told in driver.seen.items():
                if key in driver.running or key in seen:
                    assert seen.setdefault(key, told) == told
            if not driver.errors and data.draw(st.integers(0, 5)) == 0:
                before, final, heard = {*driver.running}, driver.final(), driver.scheduler.heard
                driver = getattr(driver, data.draw(st.sampled_from(ways)))()
                assert {*driver.running} == before
                assert (driver.final(), driver.scheduler.heard) == (final, heard)
                continue
            does(driver, happens(driver, data, number))
    except (Stop, InvalidUpdateError):
        pass


@pytest.mark.parametrize("loops", [True, False])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_log_that_is_compacted_gives_the_same(data: st.DataObject, loops: bool) -> None:
    plot = data.draw(plots(loops))
    with pytest.MonkeyPatch.context() as patch:
        whole = plot.driver()
        patch.setattr(graph_scheduler, "_COMPACT_AT", 1)
        compacted = plot.driver()
        compacted.scheduler._compact_at = 1
        try:
            for number in range(1000):
                assert {*compacted.running} == {*whole.running}
                assert compacted.seen == whole.seen
                assert compacted.final() == whole.final()
                what = happens(whole, data, number)
                conflicts = []
                for driver in (whole, compacted):
                    driver.scheduler._compact_at = 1 if driver is compacted else 10_000
                    try:
                        does(driver, what)
                    except InvalidUpdateError as error:
                        conflicts.append(str(error))
                if conflicts:
                    assert conflicts[0] == conflicts[1]
                    raise Stop
        except Stop:
            pass
    assert len(compacted.scheduler.log) <= len(whole.scheduler.log)
