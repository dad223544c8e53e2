"""Random Dags of nodes with every kind of group, against the rules in a page (dag_rules.py), over crashes too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END

from agentmatrix import Dag, any_of, at_least
from agentmatrix.errors import TriggerError
from tests.scheduling.dag_rules import EDGES, Plot, Running
from tests.scheduling.rules import Group
from tests.scheduling.stage import Stage, State, performance, seen_by, thread


@st.composite
def groups_over(draw: st.DrawFn, labels: list[str], name: str) -> Group:
    order = draw(st.permutations(labels))[:5]
    count = draw(st.integers(1, min(3, len(order))))
    others: dict[str, tuple[str, ...]] = {"gate": (), "latest": (), "optional": ()}
    for label in order[count:]:
        if role := draw(st.sampled_from(["", "gate", "latest", "optional"])):
            others[role] += (label,)
    kind = draw(st.sampled_from(["all_of", "any_of", "at_least"]))
    k = draw(st.integers(1, count)) if kind == "at_least" else 0
    skipped: Any = draw(st.sampled_from(["error", "ok", "ok"]))
    return Group(kind, tuple(order[:count]), k, **others, skipped=skipped, name=name)


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    names = [f"n{i}" for i in range(draw(st.integers(3, 8)))]
    groups: dict[str, list[Group]] = {}
    routed: dict[str, tuple[str, bool]] = {}
    cancels: set[str] = set()
    for i, name in enumerate(names):
        earlier, groups[name] = names[:i], []
        kind = draw(st.sampled_from(["start", "routed", "edges", "groups", "groups", "both"])) if i else "start"
        if kind == "routed":
            routed[name] = (draw(st.sampled_from(earlier)), draw(st.booleans()))
        if kind in ("edges", "both"):
            sources = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=3, unique=True))
            groups[name].append(Group("all_of", tuple(sources), skipped="ok", name=EDGES))
        if kind in ("groups", "both"):
            for number in range(draw(st.integers(1, 2))):
                group = draw(groups_over(earlier, f"{name} {number}"))
                groups[name].append(group)
                # Losers that have called off others themselves in the same moment: which comes first is not said.
                settled = not any(label == name.split()[0] for label in group.sources for name in cancels)
                if group.kind != "all_of" and settled and draw(st.booleans()):
                    cancels.add(group.name)
    return Plot(draw(st.permutations(names)), groups, routed, frozenset(cancels))


class Crash(Exception):
    pass


def graph_of(plot: Plot, stage: Stage, doomed: set[str]) -> Dag:
    dag = Dag(State)
    for name in plot.added:
        dag.add_node(name, node(name, stage, doomed))
    for name, (source, taken) in plot.routed.items():
        dag.add_conditional_edges(source, router(name, taken), [name, END])
    for name, groups in plot.groups.items():
        for group in groups:
            if group.name == EDGES:
                for source in group.sources:
                    dag.add_edge(source, name)
            else:
                dag.add_trigger(name, built(group, group.name in plot.cancels))
    return dag


def built(group: Group, cancels: bool) -> Any:
    if not cancels:
        return group.built()
    options: Any = {
        "gate": list(group.gate),
        "latest": list(group.latest),
        "optional": list(group.optional),
        "skipped": group.skipped,
        "name": group.name,
        "cancel_rest": True,
    }
    return any_of(*group.sources, **options) if group.kind == "any_of" else at_least(group.k, *group.sources, **options)


def node(name: str, stage: Stage, doomed: set[str]) -> Any:
    async def run(state: State) -> State:
        stage.seen.append(seen_by(state))
        await stage.hold(name)
        if name in doomed:
            doomed.discard(name)
            stage.let_go.discard(name)
            raise Crash(name)
        stage.ended.append(name)
        return {"log": [name]}

    return run


def router(name: str, taken: bool) -> Any:
    async def route(state: State) -> str:
        return name if taken else END

    route.__name__ = f"to_{name}"
    return route


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(), data=st.data(), crashes=st.integers(0, 2))
async def test_what_runs_when_and_with_what(plot: Plot, data: st.DataObject, crashes: int) -> None:
    stage, doomed = Stage(), set[str]()
    graph = graph_of(plot, stage, doomed).compile(InMemorySaver())
    rules = Running(plot)
    async with performance(stage, graph, thread()) as play:
        while True:
            await play.quiet()
            if rules.failed or not rules.running:
                break
            assert set(stage.running) == set(rules.running)
            assert not play.run.done()
            name = data.draw(st.sampled_from(sorted(rules.running)))
            if crashes and data.draw(st.integers(0, 3)) == 0:
                crashes -= 1
                doomed.add(name)
                stage.release(name)
                with pytest.raises(Crash):
                    await play.run
                state = await graph.aget_state(thread())
                assert (sorted(state.next), sorted(state.values["log"])) == (sorted(rules.running), sorted(rules.done))
                play.go()
                continue
            stage.release(name)
            rules.end(name)
        assert play.run.done()
        if rules.failed:
            with pytest.raises(TriggerError) as raised:
                await play.run
            assert raised.value.node in rules.failed
            assert raised.value.group in rules.failed[raised.value.node]
            return
        result = await play.run
    assert result["log"] == rules.in_order(rules.done)
    assert sorted(stage.ended) == sorted(rules.done)
    for seen in stage.seen:
        if seen.node in rules.begun:
            group, labels = rules.begun[seen.node]
            assert (seen.number, seen.group) == (1, group)
            assert list(seen.log) == rules.in_order(rules.ancestors(seen.node))
            if group is not None:
                assert seen.items == {label: {"log": [label]} for label in labels}
