"""Random Dags, in supersteps and without, against an interpreter of a page, written from the rules: what runs, what it
sees, what remains."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import START
from langgraph.types import Command, Send, interrupt

from agentmatrix.compose import Dag


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    x: str
    y: str


@dataclass
class Plot:
    """A random graph: node i is called `names[i]`; edges only go from lower to higher numbers, added in any order."""

    names: list[str]
    added: list[int]
    edges: set[tuple[int, int]]
    routed: dict[int, tuple[list[int], list[int], str]]  # source -> targets declared, targets taken, router or command
    sends: dict[int, tuple[int, int]]  # source -> worker, how many packets
    plain: dict[int, list[str]]  # node -> plain keys that it writes
    asks: set[int] = field(default_factory=set)  # nodes that pause before they answer


@st.composite
def plots(draw: st.DrawFn, conflicts: bool) -> Plot:
    count = draw(st.integers(2, 8))
    added = draw(st.permutations(range(count)))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    edges = set(draw(st.lists(st.sampled_from(pairs), max_size=12)))
    routed, sends = {}, {}
    for source in range(count - 1):
        later = list(range(source + 1, count))
        kind = draw(st.sampled_from(["none", "none", "router", "command", "send"]))
        if kind in ("router", "command"):
            declared = draw(st.lists(st.sampled_from(later), min_size=1, unique=True))
            routed[source] = (declared, draw(st.lists(st.sampled_from(declared), unique=True)), kind)
        if kind == "send":
            sends[source] = (draw(st.sampled_from(later)), draw(st.integers(0, 3)))
    keys = st.lists(st.sampled_from(["x", "y"]), unique=True) if conflicts else st.just([])
    plain = {node: draw(keys) for node in range(count)}
    asks = draw(st.sets(st.integers(0, count - 1)))
    return Plot([f"n{i}" for i in range(count)], list(added), edges, routed, sends, plain, asks)


Durability = Literal["sync", "async", "exit"]
DURABILITIES: st.SearchStrategy[Durability] = st.sampled_from(["sync", "async", "exit"])

# Node 5 leads to 6 at once, node 0 asks before 3 sends to 6: what finished before the pause ranks behind what asks.
PACKETS_AT_A_PAUSE = Plot(
    names=[f"n{i}" for i in range(8)],
    added=list(range(8)),
    edges=set(),
    routed={0: ([1, 2, 3], [1, 2, 3], "router"), 5: ([6], [6], "router"), 6: ([7], [7], "router")},
    sends={3: (6, 1)},
    plain={i: [] for i in range(8)},
    asks={0},
)


@dataclass
class Ran:
    """One run of one node by the interpreter."""

    node: int
    order: tuple[Any, ...]
    ancestors: frozenset[int]
    sees: list[str]
    says: str
    plain: dict[str, str]


def kahn(plot: Plot) -> list[int]:
    """Topological order; among those that could come next, the one that was added first."""
    follows = {(a, b) for a, b in plot.edges}
    follows |= {(a, b) for a, (declared, _, _) in plot.routed.items() for b in declared}
    follows |= {(a, b) for a, (b, _) in plot.sends.items()}
    left, order = list(plot.added), []
    while left:
        node = next(n for n in left if not any(a in left and b == n for a, b in follows))
        left.remove(node)
        order.append(node)
    return order


def interpret(plot: Plot) -> tuple[list[Ran], dict[str, str]]:
    """The rules: joins over taken branches, skips, ancestors only, LangGraph's order of a superstep at each causal
    depth, no unordered plain writers."""
    order = kahn(plot)
    ran: list[Ran] = []
    sources = {n: {a for a, b in plot.edges if b == n} for n in order}
    for n in order:
        sources[n] |= {a for a, (declared, _, _) in plot.routed.items() if n in declared}
        sources[n] |= {a for a, (worker, _) in plot.sends.items() if n == worker}
    for n in order:

        def leads(r: Ran, n: int = n) -> bool:
            taken = plot.routed.get(r.node, ([], [], ""))[1]
            return (r.node, n) in plot.edges or n in taken

        came = [i for i, r in enumerate(ran) if leads(r)]
        if came or not sources[n]:
            depth = 1 + max((ran[i].order[0] for i in came), default=-1)
            ran.append(run(plot, ran, n, came, (depth, (0, plot.names[n])), None))
        packets = [(i, r) for i, r in enumerate(ran) if r.node != n and plot.sends.get(r.node, (None, 0))[0] == n]
        for i, sender in sorted(packets, key=lambda p: p[1].order):
            for number in range(plot.sends[sender.node][1]):
                place = (sender.order[0] + 1, (1, sender.order[1], number))
                ran.append(run(plot, ran, n, [i], place, f"{sender.says}#{number}"))
    check_plain(ran)
    final: dict[str, str] = {}
    for r in sorted(ran, key=lambda r: r.order):
        final |= r.plain
    return sorted(ran, key=lambda r: r.order), final


def run(plot: Plot, ran: list[Ran], node: int, causes: list[int], order: Any, packet: str | None) -> Ran:
    ancestors = frozenset(causes).union(*(ran[c].ancestors for c in causes))
    sees = [f"in{packet}"] if packet else says(["in"], (ran[i] for i in ancestors))
    text = f"{plot.names[node]}({','.join(sees)})"
    return Ran(node, order, ancestors, sees, text, dict.fromkeys(plot.plain[node], text))


def says(begin: list[str], ran: Iterable[Ran]) -> list[str]:
    return begin + [r.says for r in sorted(ran, key=lambda r: r.order)]


def check_plain(ran: list[Ran]) -> None:
    for i, first in enumerate(ran):
        for j, second in enumerate(ran[:i]):
            if first.plain.keys() & second.plain.keys() and j not in first.ancestors and i not in second.ancestors:
                raise InvalidUpdateError("unordered")


def build(
    plot: Plot, seen: dict[str, list[list[str]]], routers: dict[str, list[list[str]]], *, pauses: bool = False
) -> Dag:
    """The same graph as a Dag of functions that say what they see."""
    dag = Dag(State, name="random")
    for i in plot.added:
        declared, taken, kind = plot.routed.get(i, ([], [], ""))
        name = plot.names[i]

        def node(state: dict[str, Any], i: int = i, name: str = name, taken: Any = taken, kind: str = kind) -> Any:
            sees = list(state.get("log", []))
            if pauses and i in plot.asks:
                interrupt(name)
            seen.setdefault(name, []).append(sees)
            text = f"{name}({','.join(sees)})"
            update = {"log": [text], **dict.fromkeys(plot.plain[i], text)}
            return Command(update=update, goto=[plot.names[t] for t in taken]) if kind == "command" else update

        options: dict[str, Any] = {"destinations": tuple(plot.names[t] for t in declared)} if kind == "command" else {}
        dag.add_node(name, node, **options)
        if kind == "router":
            dag.add_conditional_edges(name, router(plot, name, taken, routers), [plot.names[t] for t in declared])
        if i in plot.sends:
            dag.add_conditional_edges(name, sender(plot, name, *plot.sends[i]), [plot.names[plot.sends[i][0]]])
    for a, b in sorted(plot.edges):
        dag.add_edge(plot.names[a], plot.names[b])
    return dag


def router(plot: Plot, name: str, taken: list[int], routers: dict[str, list[list[str]]]) -> Any:
    def route(state: State) -> list[str]:
        routers.setdefault(name, []).append(list(state["log"]))
        return [plot.names[t] for t in taken]

    return route


def sender(plot: Plot, name: str, worker: int, count: int) -> Any:
    def send(state: State) -> list[Send]:
        own = next(text for text in reversed(state["log"]) if text.startswith(f"{name}("))
        return [Send(plot.names[worker], {"log": [f"in{own}#{number}"]}) for number in range(count)]

    return send


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(conflicts=False), barriers=st.booleans())
def test_views_and_final_state_are_those_of_the_rules(plot: Plot, barriers: bool) -> None:
    seen: dict[str, list[list[str]]] = {}
    routers: dict[str, list[list[str]]] = {}
    expected, _ = interpret(plot)
    result = build(plot, seen, routers).compile(barriers=barriers).invoke({"log": ["in"]})
    assert result["log"] == says(["in"], expected)
    for name in plot.names:
        runs = [r.sees for r in expected if plot.names[r.node] == name]
        assert sorted(seen.get(name, [])) == sorted(runs)
    for i, (_, _, kind) in plot.routed.items():
        if kind == "router":
            reads = [says(["in"], [*(expected_by(expected, r)), r]) for r in expected if r.node == i]
            assert sorted(routers.get(plot.names[i], [])) == sorted(reads)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(conflicts=False), barriers=st.booleans(), edit=st.booleans(), durability=DURABILITIES)
@example(plot=PACKETS_AT_A_PAUSE, barriers=False, edit=True, durability="async")
def test_pauses_change_no_result_and_run_nothing_twice(
    plot: Plot, barriers: bool, edit: bool, durability: Durability
) -> None:
    seen: dict[str, list[list[str]]] = {}
    config: Any = {"configurable": {"thread_id": "1"}}
    expected, _ = interpret(plot)
    graph = build(plot, seen, {}, pauses=True).compile(checkpointer=InMemorySaver(), barriers=barriers)
    graph.invoke({"log": ["in"]}, config, durability=durability)
    while graph.get_state(config).next:
        waits = {plot.names[r.node] for r in expected} - seen.keys()
        assert set(graph.get_state(config).next) <= waits | {plot.names[w] for w, _ in plot.sends.values()}
        if edit:
            graph.update_state(config, {"y": "edited"}, as_node="__start__")
            graph.invoke(None, config, durability=durability)
        first = graph.get_state(config).interrupts[0]
        result = graph.invoke(Command(resume={first.id: "go"}), config, durability=durability)
        assert result["log"] == [text for text in says(["in"], expected) if text in result["log"]]
    assert graph.get_state(config).values["log"] == says(["in"], expected)
    assert sum(map(len, seen.values())) == len(expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(conflicts=False), barriers=st.booleans())
@example(plot=PACKETS_AT_A_PAUSE, barriers=False)
def test_an_update_of_a_key_comes_after_all_that_ran_before_it_and_before_the_rest(plot: Plot, barriers: bool) -> None:
    seen: dict[str, list[list[str]]] = {}
    config: Any = {"configurable": {"thread_id": "1"}}
    expected, _ = interpret(plot)
    graph = build(plot, seen, {}, pauses=True).compile(checkpointer=InMemorySaver(), barriers=barriers)
    graph.invoke({"log": ["in"]}, config)
    while graph.get_state(config).next:
        before = [*graph.get_state(config).values["log"], f"edit {len(seen)}"]
        graph.update_state(config, {"log": before[-1:]}, as_node="__start__")
        assert graph.get_state(config).values["log"] == before
        graph.invoke(None, config)
        first = graph.get_state(config).interrupts[0]
        result = graph.invoke(Command(resume={first.id: "go"}), config)
        assert result["log"][: len(before)] == before
    assert sum(map(len, seen.values())) == len(expected)
    names = [plot.names[r.node] for r in expected]
    assert sorted(text.split("(")[0] for text in graph.get_state(config).values["log"] if "(" in text) == sorted(names)


def expected_by(expected: list[Ran], r: Ran) -> list[Ran]:
    """The ancestors of a run: those whose words it could have read, packets included."""
    found: list[Ran] = []
    frontier = [r]
    while frontier:
        reader = frontier.pop()
        for other in expected:
            if other not in found and any(other.says in text for text in reader.sees) and other.order < reader.order:
                found.append(other)
                frontier.append(other)
    return found


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(conflicts=True), barriers=st.booleans())
def test_unordered_writers_of_a_plain_key_raise_and_ordered_ones_do_not(plot: Plot, barriers: bool) -> None:
    graph = build(plot, {}, {}).compile(barriers=barriers)
    try:
        _, final = interpret(plot)
    except InvalidUpdateError:
        with pytest.raises(InvalidUpdateError, match="'n"):
            graph.invoke({"log": ["in"]})
    else:
        result = graph.invoke({"log": ["in"]})
        assert {key: result[key] for key in ("x", "y") if key in result} == final


def test_a_graph_of_one_node_starts_and_ends_by_itself() -> None:
    dag = Dag(State)
    dag.add_node("only", lambda state: {"log": ["ran"]})
    assert dag.compile().invoke({"log": []})["log"] == ["ran"]
    assert (START, "only") not in dag.edges
