"""Every kind of group, every order in which its sources come or are skipped, against the rules in a page (rules.py)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.graph import END

from agentmatrix import Dag
from agentmatrix.errors import AgentMatrixError, TriggerError
from tests.scheduling.rules import Group, Outcome, outcome
from tests.scheduling.stage import Latch, Played, Seen, Stage, State, play, seen_by, table

REGULAR = ("a", "b", "c")
Events = Sequence[tuple[str, bool]]


def groups(skipped: Literal["error", "ok"], sources: int | None = None) -> Iterator[Group]:
    """Each kind, with 1 to 3 regular sources, with and without gate, latest and optional source."""
    for count in (sources,) if sources else (1, 2, 3):
        for kind, k in [("all_of", 0), ("any_of", 0), *(("at_least", k) for k in range(1, count + 1))]:
            for extras in itertools.product((False, True), repeat=3):
                gate, latest, optional = ((label,) * on for label, on in zip("glo", extras, strict=True))
                name = f"{kind}{k or ''}_{count}{''.join((*gate, *latest, *optional))}"
                yield Group(kind, REGULAR[:count], k, gate, latest, optional, skipped, name)


def participants(group: Group) -> list[str]:
    return [*group.sources, *group.gate, *group.latest, *group.optional]


class Orders(Sequence[Events]):
    """Every order in which these come or are skipped; 46,080 for six, so each is made when it is asked for."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.orders = list(itertools.permutations(labels))
        fates = itertools.product((True, False), repeat=len(labels))
        self.fates = [dict(zip(labels, fate, strict=True)) for fate in fates]

    def __len__(self) -> int:
        return len(self.orders) * len(self.fates)

    def __getitem__(self, number: Any) -> Any:
        order, fate = divmod(range(len(self))[number], len(self.fates))
        return [(label, self.fates[fate][label]) for label in self.orders[order]]


def expected_sight(node: str, group: Group, expected: Outcome) -> Seen:
    """What a node that fired is told: its items, and the log of what led to it."""
    items = {label: {"log": [label]} for label in expected.labels}
    log = {*expected.labels, *(f"pick_{label}" for label in expected.labels)}
    return Seen(node, 1, expected.group, items, tuple(sorted(log)))


def tidy(seen: Seen) -> Seen:
    return Seen(seen.node, seen.number, seen.group, seen.items, tuple(sorted(seen.log)))


def check(played: Played, targets: dict[str, Group], events: Events) -> None:
    """Compare one run with the rules, event by event."""
    expected = {name: outcome([group], relevant(group, events)) for name, group in targets.items()}
    for step, seen in enumerate(played.steps):
        label = events[step][0]
        due = [
            expected_sight(name, targets[name], e)
            for name, e in expected.items()
            if e.kind == "fires" and relevant(targets[name], events)[e.step][0] == label
        ]
        assert sorted(map(tidy, seen), key=lambda s: s.node) == sorted(due, key=lambda s: s.node), (events, step)
    assert played.error is None, (events, played.error)
    assert played.ended_after == len(events) - 1
    runs = {name for name, e in expected.items() if e.kind == "fires"}
    assert {name for name in played.result["log"] if name in targets} == runs


def relevant(group: Group, events: Events) -> list[tuple[str, bool]]:
    return [event for event in events if event[0] in participants(group)]


async def test_groups_that_tolerate_skips() -> None:
    """Every such group side by side in one graph, in orders that cover each order of three sources and a gate."""
    targets = {f"t_{group.name}": group for group in groups("ok")}
    stage, rng = Stage(), random.Random(1)
    graph = table(stage, "abcglo", {name: [group] for name, group in targets.items()})
    some = rng.sample(Orders("abcg"), 32)
    for events in some:
        mixed = list(events)
        for label in "lo":
            mixed.insert(rng.randrange(len(mixed) + 1), (label, rng.random() < 0.7))
        check(await play(graph, stage, mixed), targets, mixed)


async def test_groups_when_nothing_is_skipped() -> None:
    targets = {f"t_{group.name}": group for group in groups("error")}
    stage, rng = Stage(), random.Random(2)
    graph = table(stage, "abcglo", {name: [group] for name, group in targets.items()})
    for order in rng.sample(list(itertools.permutations("abcglo")), 20):
        events = [(label, True) for label in order]
        check(await play(graph, stage, events), targets, events)


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_groups_that_demand(count: int) -> None:
    """One graph each, since the first source too few ends the run: at once, with an error that says all."""
    rng, runs = random.Random(3), 0
    for group in groups("error", count):
        stage = Stage()
        graph = table(stage, participants(group), {"t": [group]})
        every = Orders(participants(group))
        for events in rng.sample(every, min(len(every), 12 if count < 3 else 8)):
            runs += 1
            expected = outcome([group], events)
            played = await play(graph, stage, events)
            if expected.kind != "fails":
                check(played, {"t": group}, events)
                continue
            assert isinstance(played.error, TriggerError), (group, events, played)
            assert played.ended_after == expected.step, (group, events)
            assert stage.seen == []
            check_error(played.error, "t", expected)
    assert runs > 100


def check_error(error: TriggerError, node: str, expected: Outcome) -> None:
    assert isinstance(error, (AgentMatrixError, RuntimeError))
    assert (error.node, error.group) == (node, expected.group)
    assert isinstance(error.skipped, tuple)
    assert set(error.skipped) == expected.labels
    message = str(error)
    for part in (node, expected.group, *expected.labels, *(f"pick_{s}" for s in expected.labels)):
        assert repr(part)[1:-1] in message, (part, message)
    assert 'skipped="ok"' in message
    assert "\n" not in message


LABELS = ["a", "b", "c", "g", "l", "o"]


@st.composite
def written(draw: st.DrawFn, name: str) -> Group:
    """A group over any of six sources, in any roles."""
    labels = draw(st.permutations(LABELS))
    count = draw(st.integers(1, 4))
    roles = draw(st.lists(st.sampled_from(["gate", "latest", "optional"]), max_size=len(labels) - count))
    others: dict[str, tuple[str, ...]] = {"gate": (), "latest": (), "optional": ()}
    for label, role in zip(labels[count:], roles, strict=False):
        others[role] += (label,)
    kind = draw(st.sampled_from(["all_of", "any_of", "at_least"]))
    k = draw(st.integers(1, count)) if kind == "at_least" else 0
    skipped: Any = draw(st.sampled_from(["error", "ok"]))
    return Group(kind, tuple(labels[:count]), k, **others, skipped=skipped, name=name)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
async def test_any_groups_of_one_node(data: st.DataObject) -> None:
    """Up to three groups OR-ed: the first that completes, and of several at once the one declared first."""
    written_down = [data.draw(written(f"group {i}")) for i in range(data.draw(st.integers(1, 3)))]
    fate = {label: data.draw(st.booleans()) for label in LABELS}
    events = [(label, fate[label]) for label in data.draw(st.permutations(LABELS))]
    stage = Stage()
    played = await play(table(stage, LABELS, {"t": written_down}), stage, events)
    expected = whole(written_down, events)
    if expected.kind == "fails":
        assert isinstance(played.error, TriggerError)
        assert played.ended_after == expected.step
        assert played.error.node == "t"
        assert played.error.group in {group.name for group in written_down if group.demands(_gone(events, expected))}
        return
    assert played.error is None
    due = [expected_sight("t", written_down[0], expected)] if expected.kind == "fires" else []
    assert [tidy(seen) for seen in stage.seen] == due
    if due:
        assert [tidy(seen) for seen in played.steps[expected.step]] == due


def whole(written_down: list[Group], events: Events) -> Outcome:
    """The outcome, with sources in the events that no group has."""
    known = {label for group in written_down for label in participants(group)}
    at = [step for step, (label, _) in enumerate(events) if label in known]
    found = outcome(written_down, [event for event in events if event[0] in known])
    return Outcome(at[found.step], found.kind, found.group, found.labels)


def _gone(events: Events, expected: Outcome) -> list[str]:
    return [label for label, came in events[: expected.step + 1] if not came]


@pytest.mark.parametrize("skipped", ["error", "ok"])
def test_sync_nodes(skipped: Literal["error", "ok"]) -> None:
    """The same rules with functions, whose order the test drives from another thread."""
    rng = random.Random(4)
    sample = rng.sample(list(groups(skipped)), 12)
    with ThreadPoolExecutor(1) as pool:
        for group in sample:
            every = Orders(participants(group))
            drivable = (events for events in rng.sample(every, len(every)) if _drivable(group, events))
            for events in itertools.islice(drivable, 2):
                _play_sync(pool, group, events)


def _drivable(group: Group, events: Events) -> bool:
    """A run that has failed ends when its functions have run out, so the last event must be the one that fails it."""
    expected = outcome([group], events)
    return expected.kind != "fails" or expected.step == len(events) - 1


def _play_sync(pool: ThreadPoolExecutor, group: Group, events: Events) -> None:
    latch, seen = Latch(), []
    dag = Dag(State)

    def target(state: State) -> State:
        seen.append(seen_by(state))
        return {"log": ["t"]}

    for label, came in events:
        _add_sync(dag, latch, label, came)
    dag.add_node("t", target)
    dag.add_trigger("t", group.built())
    run = pool.submit(dag.compile().invoke, {"log": []})
    run.add_done_callback(lambda _: latch.set("done"))
    expected = outcome([group], events)
    for label, _ in events:
        latch.set(f"pick_{label}")
        latch.wait_any(f"past_{label}", "done")
    if expected.kind == "fails":
        with pytest.raises(TriggerError) as raised:
            run.result(100)
        check_error(raised.value, "t", expected)
    else:
        run.result(100)
        due = [expected_sight("t", group, expected)] if expected.kind == "fires" else []
        assert [tidy(s) for s in seen] == due, (group, events)


def _add_sync(dag: Dag, latch: Latch, label: str, came: bool) -> None:
    """A participant, and a node past it that shows that it has come or been skipped."""

    def pick(state: State) -> State:
        latch.wait(f"pick_{label}")
        return {"log": [f"pick_{label}"]}

    def past(state: State) -> State:
        latch.set(f"past_{label}")
        return {}

    dag.add_node(f"pick_{label}", pick)
    dag.add_node(label, lambda state: {"log": [label]})
    dag.add_node(f"past_{label}", past)
    dag.add_conditional_edges(
        f"pick_{label}", lambda state: label if came else f"past_{label}", [label, f"past_{label}", END]
    )
    dag.add_edge(label, f"past_{label}")
