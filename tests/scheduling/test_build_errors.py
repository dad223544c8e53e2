"""What cannot work is said when the graph is built: which node, which group, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import END, START

from agentmatrix import CyclicGraph, Dag, after, all_of, any_of, at_least, every, signal
from agentmatrix.errors import BuildError, CycleError
from tests.scheduling.stage import State

both = pytest.mark.parametrize("kind", [Dag, CyclicGraph])


def graph(kind: Any, *groups: Any, node: str = "t") -> Any:
    """START -> plan -> draft, and the node `t` with these groups."""
    builder = kind(State)
    for name in ("plan", "draft", "t"):
        builder.add_node(name, lambda state: {})
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "draft")
    builder.add_trigger(node, *groups)
    return builder


def refused(build: Callable[[], Any], *parts: str, kind: type[BuildError] = BuildError) -> str:
    """The message, which is one sentence with these parts in it."""
    with pytest.raises(kind) as raised:
        build()
    message = str(raised.value)
    for part in parts:
        assert part in message, (part, message)
    assert "\n" not in message
    assert len(message) < 400
    return message


ROLES: dict[str, Callable[[Any], Any]] = {
    "all_of": lambda source: all_of("plan", source, name="the group"),
    "any_of": lambda source: any_of("plan", source, name="the group"),
    "at_least": lambda source: at_least(1, "plan", source, name="the group"),
    "gate": lambda source: all_of("plan", gate=source, name="the group"),
    "latest": lambda source: all_of("plan", latest=[source], name="the group"),
    "optional": lambda source: any_of("plan", optional=(source,), name="the group"),
}
every_role = pytest.mark.parametrize("role", ROLES)


@both
@every_role
def test_what_is_right_is_not_refused(kind: Any, role: str) -> None:
    assert graph(kind, ROLES[role]("draft")).compile()


@both
@every_role
def test_unknown_sources(kind: Any, role: str) -> None:
    refused(lambda: graph(kind, ROLES[role]("draught")).compile(), "'t'", "the group", "'draught'", "mean 'draft'")
    refused(lambda: graph(kind, ROLES[role]("xyz")).compile(), "'t'", "the group", "'xyz'", "plan, draft")


@both
def test_unknown_nodes(kind: Any) -> None:
    refused(lambda: graph(kind, any_of("plan"), node="tt").compile(), "'tt'", "mean 't'")
    refused(lambda: graph(kind, any_of("plan"), node=END).compile(), END)
    refused(lambda: graph(kind, any_of("plan"), node=START).compile(), START)


@both
@every_role
def test_end_is_no_source(kind: Any, role: str) -> None:
    refused(lambda: graph(kind, ROLES[role](END)).compile(), "'t'", "the group", "END")


@both
@pytest.mark.parametrize("wrong", [3, None, 0.5, object(), ("plan", "draft"), lambda state: "plan"])
def test_what_is_no_source_at_all(kind: Any, wrong: Any) -> None:
    refused(lambda: graph(kind, all_of("plan", wrong)).compile())


@both
@pytest.mark.parametrize("wrong", [3, None, 0.5, object()])
def test_what_is_no_group_at_all(kind: Any, wrong: Any) -> None:
    refused(lambda: graph(kind, wrong).compile(), "'t'")


@both
def test_a_trigger_without_groups(kind: Any) -> None:
    refused(lambda: graph(kind).compile(), "'t'")


@both
@pytest.mark.parametrize(
    "group",
    [
        lambda: all_of(name="the group"),
        lambda: any_of(name="the group"),
        lambda: all_of(latest="plan", name="the group"),
        lambda: any_of(optional=["plan", "draft"], name="the group"),
        lambda: all_of(latest="plan", optional="draft", name="the group"),
    ],
)
def test_a_group_that_nothing_can_complete(kind: Any, group: Callable[[], Any]) -> None:
    refused(lambda: graph(kind, group()).compile(), "the group", "gate")


@both
@pytest.mark.parametrize(
    "group",
    [
        lambda: all_of("plan", "plan", name="the group"),
        lambda: any_of("plan", "draft", "plan", name="the group"),
        lambda: at_least(2, "plan", "plan", name="the group"),
        lambda: all_of("plan", gate="plan", name="the group"),
        lambda: any_of("plan", latest="plan", name="the group"),
        lambda: all_of("draft", gate="plan", optional=["plan"], name="the group"),
        lambda: any_of(signal("audio"), signal("audio"), "plan", name="the group"),
    ],
)
def test_a_source_twice_in_one_group(kind: Any, group: Callable[[], Any]) -> None:
    message = refused(lambda: graph(kind, group()).compile(), "the group")
    assert "plan" in message or "audio" in message


@both
@pytest.mark.parametrize("k", [0, -1, 3])
def test_k_out_of_range(kind: Any, k: Any) -> None:
    refused(lambda: graph(kind, at_least(k, "plan", "draft")).compile(), f"at_least({k}, plan, draft)", "between 1 and")


@both
@pytest.mark.parametrize("timer", [every, after])
@pytest.mark.parametrize("seconds", [0, -1, -0.5, float("nan"), float("inf"), "1", None])
def test_seconds_that_are_no_time(kind: Any, timer: Any, seconds: Any) -> None:
    refused(lambda: graph(kind, any_of("plan", timer(seconds), name="the group")).compile(), "seconds")


@both
@pytest.mark.parametrize("name", ["a/b", "a|b", "a:b", "", "plan", "t"])
def test_signals_with_names_that_cannot_be(kind: Any, name: str) -> None:
    message = refused(lambda: graph(kind, any_of("draft", signal(name), name="the group")).compile(), "signal")
    assert repr(name) in message


@both
@pytest.mark.parametrize("skipped", ["no", "", None, True, "Error"])
@pytest.mark.parametrize("group", [all_of, any_of, lambda *sources, **options: at_least(1, *sources, **options)])
def test_what_is_neither_error_nor_ok(kind: Any, skipped: Any, group: Any) -> None:
    refused(lambda: graph(kind, group("plan", skipped=skipped, name="the group")).compile(), "error", "ok")


def test_cancel_rest_is_for_groups_that_leave_a_rest() -> None:
    with pytest.raises((BuildError, TypeError)):
        all_of("plan", "draft", cancel_rest=True)  # type: ignore[call-arg]


@both
def test_an_unreachable_node(kind: Any) -> None:
    def build() -> Any:
        builder = graph(kind, "lonely")
        builder.add_node("lonely", lambda state: {})
        builder.add_trigger("lonely", all_of("t", name="the group"))
        return builder.compile()

    if kind is Dag:
        refused(build, "lonely -> t", "t -> lonely", kind=CycleError)
    else:
        refused(build, "nothing leads to", "'t'")


def test_in_a_cycle_a_node_that_only_waits_for_the_unreachable() -> None:
    """The one to mend is named, not those that would follow it."""

    def build(*, loop: bool) -> Any:
        builder = graph(CyclicGraph, "lonely")
        builder.add_node("lonely", lambda state: {})
        if loop:
            builder.add_node("far", lambda state: {})
            builder.add_trigger("far", "lonely")
            builder.add_trigger("lonely", "far")
        return builder.compile()

    refused(lambda: build(loop=False), "nothing leads to", "'lonely'")
    refused(lambda: build(loop=True), "nothing leads to", "'lonely'")


def test_a_dag_has_no_cycle_through_triggers() -> None:
    def ring(**options: Any) -> Any:
        builder = Dag(State)
        for name in "abc":
            builder.add_node(name, lambda state: {})
        builder.add_edge("a", "b")
        builder.add_trigger("c", all_of("b"))
        builder.add_trigger("a", any_of(START, **options))
        return builder.compile()

    for role in ("gate", "latest", "optional"):
        message = refused(lambda role=role: ring(**{role: "c"}), "a -> b -> c -> a", kind=CycleError)  # type: ignore[misc]
        assert "CyclicGraph" in message


@both
def test_a_node_cannot_trigger_itself_in_a_dag(kind: Any) -> None:
    if kind is Dag:
        refused(lambda: graph(kind, any_of("plan", "t")).compile(), "t -> t", kind=CycleError)


@both
def test_nobody_needs_an_edge_where_there_is_a_trigger(kind: Any) -> None:
    builder = kind(State)
    builder.add_node("a", lambda state: {})
    builder.add_trigger("a", START)
    builder.add_node("b", lambda state: {})
    builder.add_trigger("b", "a")
    assert builder.compile()


def test_concurrent_activations_are_for_cycles() -> None:
    """In a Dag a node has one activation: saying `concurrent` is a mistake, or changes nothing."""
    builder = graph(Dag, "plan")
    try:
        builder.add_trigger("draft", "plan", concurrent=True)
        builder.compile()
    except BuildError as error:
        assert "concurrent" in str(error)
