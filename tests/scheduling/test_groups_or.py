"""Several groups of one node, edges as a further group, and what an activation can be asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from agentmatrix import CyclicGraph, Dag, all_of, any_of, at_least, get_activation
from agentmatrix.errors import TriggerError
from agentmatrix.testing import ScriptedChatModel
from tests.scheduling.stage import Played, Seen, Stage, State, play, seen_by, thread


def groups_of(name: str, *groups: Any, edges: tuple[str, ...] = (), people: str = "abc") -> tuple[Stage, Any]:
    """A Dag of participants and the node `name` with these groups and edges."""
    stage, dag = Stage(), Dag(State)
    for participant in people:
        stage.add_participant(dag, participant)
    dag.add_node(name, stage.target(name))
    for source in edges:
        dag.add_edge(source, name)
    if groups:
        dag.add_trigger(name, *groups)
    return stage, dag.compile()


async def fired(stage: Stage, graph: Any, order: str) -> tuple[str | None, set[str]] | None:
    """Which group fired and what it was given, when participants come in this order (capitals are skipped) and then
    the others."""
    others = "".join(label for label in "abc" if label not in order.lower())
    played: Played = await play(graph, stage, [(label.lower(), label.islower()) for label in order + others])
    assert played.error is None
    assert len(stage.seen) <= 1
    return (stage.seen[0].group, set(stage.seen[0].items)) if stage.seen else None


async def test_the_first_complete_group_fires() -> None:
    stage, graph = groups_of("t", all_of("a", "b", name="both"), any_of("c", name="alarm"))
    assert await fired(stage, graph, "abc") == ("both", {"a", "b"})
    assert await fired(stage, graph, "cab") == ("alarm", {"c"})
    assert await fired(stage, graph, "acb") == ("alarm", {"c"})
    assert await fired(stage, graph, "Acb") == ("alarm", {"c"})


async def test_of_several_that_one_event_completes_the_one_declared_first_fires() -> None:
    pair, single, two = (
        all_of("a", "b", name="pair"),
        any_of("b", name="single"),
        at_least(2, "a", "b", "c", name="two"),
    )
    stage, graph = groups_of("t", pair, single, two)
    assert await fired(stage, graph, "abc") == ("pair", {"a", "b"})
    assert await fired(stage, graph, "bac") == ("single", {"b"})
    assert await fired(stage, graph, "acb") == ("two", {"a", "c"})
    stage, graph = groups_of("t", single, pair)
    assert await fired(stage, graph, "ab") == ("single", {"b"})


async def test_groups_may_be_added_one_by_one() -> None:
    stage, dag = Stage(), Dag(State)
    for name in "abc":
        stage.add_participant(dag, name)
    dag.add_node("t", stage.target("t"))
    assert dag.add_trigger("t", all_of("a", "b", name="first")) is dag
    dag.add_trigger("t", any_of("b", name="second"))
    graph = dag.compile()
    assert await fired(stage, graph, "ab") == ("first", {"a", "b"})
    assert await fired(stage, graph, "ba") == ("second", {"b"})


async def test_triggers_may_name_nodes_that_are_added_later() -> None:
    dag = Dag(State)
    dag.add_trigger("t", "a")
    dag.add_node("t", lambda state: {"log": [str(get_activation().items)]})
    dag.add_node("a", lambda state: {"log": ["a"]})
    assert (await dag.compile().ainvoke({"log": []}))["log"] == ["a", "{'a': {'log': ['a']}}"]


async def test_a_bare_source_is_any_of_it() -> None:
    stage, graph = groups_of("t", "a", "b")
    assert await fired(stage, graph, "ba") == ("any_of(b)", {"b"})
    assert await fired(stage, graph, "Ab") == ("any_of(b)", {"b"})
    assert await fired(stage, graph, "ABc") is None


@pytest.mark.parametrize(
    ("group", "name"),
    [
        (all_of("a", "b"), "all_of(a, b)"),
        (any_of("a", "b"), "any_of(a, b)"),
        (at_least(2, "a", "b"), "at_least(2, a, b)"),
    ],
)
async def test_a_group_without_a_name_is_called_as_it_is_written(group: Any, name: str) -> None:
    stage, graph = groups_of("t", group)
    found = await fired(stage, graph, "ab")
    assert found is not None
    assert found[0] == name


async def test_edges_are_a_group_declared_before_the_others() -> None:
    stage, graph = groups_of("t", any_of("a", "c", name="either"), edges=("a", "b"))
    assert await fired(stage, graph, "abc") == ("either", {"a"})
    assert await fired(stage, graph, "Abc") == (None, {"b"})
    assert await fired(stage, graph, "bAc") == (None, {"b"})
    assert await fired(stage, graph, "bac") == (None, {"a", "b"})
    assert await fired(stage, graph, "ABc") == ("either", {"c"})
    assert await fired(stage, graph, "ABC") is None


async def test_edges_tolerate_what_a_group_would_not() -> None:
    stage, graph = groups_of("t", all_of("b", "c", name="both"), edges=("a",))
    assert await fired(stage, graph, "aBC") == (None, {"a"})
    assert await fired(stage, graph, "BCa") == (None, {"a"})
    assert await fired(stage, graph, "Abc") == ("both", {"b", "c"})
    played = await play(graph, stage, [("a", False), ("b", False), ("c", True)])
    assert isinstance(played.error, TriggerError)
    assert (played.error.group, played.error.skipped) == ("both", ("b",))
    assert played.ended_after == 1


async def test_a_node_runs_once_however_many_groups_complete() -> None:
    stage, graph = groups_of("t", "a", "b", "c", edges=("b",))
    played = await play(graph, stage, [("c", True), ("b", True), ("a", True)])
    assert played.result["log"].count("t") == 1
    assert stage.seen[0].group == "any_of(c)"


async def test_gates_alone_are_a_group() -> None:
    for group in (all_of(gate=["a", "b"], name="gates"), any_of(gate=["a", "b"], name="gates")):
        stage, graph = groups_of("t", group)
        assert await fired(stage, graph, "abc") == ("gates", {"a", "b"})


@pytest.mark.parametrize("order", ["AGb", "GAb"])
async def test_nobody_misses_a_gate_that_nobody_came_to(order: str) -> None:
    """The order in which a source and the gate are skipped decides nothing."""
    stage, graph = groups_of("t", any_of("a", gate="g", name="gated"), people="abcg")
    assert await fired(stage, graph, order) is None


@pytest.mark.parametrize("order", [["a", "g", "b"], ["g", "a", "b"], ["b", "g", "a"]])
async def test_a_gate_that_is_skipped_is_missed_by_the_first_who_comes(order: list[str]) -> None:
    stage, graph = groups_of("t", any_of("a", "b", gate="g", name="gated"), people="abg")
    played = await play(graph, stage, [(label, label == "a") for label in order])
    assert isinstance(played.error, TriggerError)
    assert (played.error.group, "g" in played.error.skipped) == ("gated", True)
    assert played.ended_after == max(order.index("a"), order.index("g"))


async def test_start_is_a_source() -> None:
    stage, graph = groups_of("t", all_of(START, "a", name="group"))
    found = await fired(stage, graph, "a")
    assert found is not None
    assert found[0] == "group"
    dag = Dag(State)
    dag.add_node("t", lambda state: {"log": [f"{get_activation().group} {state['log']}"]})
    dag.add_trigger("t", any_of(START, name="at once"))
    assert (await dag.compile().ainvoke({"log": ["in"]}))["log"] == ["in", "at once ['in']"]


async def test_two_nodes_each_get_an_item_of_a_source_of_both() -> None:
    stage, dag = Stage(), Dag(State)
    stage.add_participant(dag, "a")
    for name in ("t", "u"):
        dag.add_node(name, stage.target(name))
        dag.add_trigger(name, "a")
    await play(dag.compile(), stage, [("a", True)])
    assert [(seen.node, seen.items) for seen in stage.seen] == [
        ("t", {"a": {"log": ["a"]}}),
        ("u", {"a": {"log": ["a"]}}),
    ]


async def test_items_belong_to_the_activation_that_has_them() -> None:
    told: list[Any] = []

    def spoils(state: State) -> State:
        items = get_activation().items
        told.append({label: dict(item) for label, item in items.items()})
        items["a"].clear()
        items["a"]["x"] = "spoilt"
        return {}

    dag = Dag(State)
    dag.add_node("a", lambda state: {"log": ["a"]})
    for name in ("t", "u", "v"):
        dag.add_node(name, spoils)
    dag.add_trigger("t", "a")
    dag.add_trigger("u", "a")
    dag.add_trigger("v", all_of("a", gate=["t", "u"]))
    result = await dag.compile().ainvoke({"log": []})
    assert [item["a"] for item in told][:2] == [{"log": ["a"]}] * 2
    assert told[2] == {"a": {"log": ["a"]}, "t": {}, "u": {}}
    assert result == {"log": ["a"]}


async def test_the_item_of_a_node_is_the_update_that_it_wrote() -> None:
    told: dict[str, Any] = {}
    sources: dict[str, Any] = {
        "nothing": lambda state: None,
        "empty": lambda state: {},
        "two_keys": lambda state: {"log": ["two"], "x": "x"},
        "command": lambda state: Command(update={"log": ["command"]}),
    }
    dag = Dag(State)
    for name, source in sources.items():
        dag.add_node(name, source)
    dag.add_node("t", lambda state: told.update(get_activation().items))
    dag.add_trigger("t", all_of(*sources))
    await dag.compile().ainvoke({"log": []})
    assert told == {
        "nothing": {},
        "empty": {},
        "two_keys": {"log": ["two"], "x": "x"},
        "command": {"log": ["command"]},
    }


async def test_the_item_of_an_agent_of_another_kind_is_what_it_wrote_too() -> None:
    told: dict[str, Any] = {}
    dag = Dag()
    dag.add_node("model", ScriptedChatModel("hello"))
    dag.add_node("t", lambda state: told.update(get_activation().items))
    dag.add_trigger("t", "model")
    await dag.compile().ainvoke({"messages": "hi"})
    assert set(told["model"]) == {"messages"}
    written = told["model"]["messages"]
    assert [message.content for message in (written if isinstance(written, list) else [written])] == ["hello"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_a_fan_out_by_send_is_one_item_in_send_order(order: tuple[int, ...]) -> None:
    stage, dag = Stage(), Dag(State)
    numbers: list[tuple[str | None, int]] = []

    async def plan(state: State) -> Command[Literal["work"]]:
        return Command(goto=[Send("work", {"log": [str(i)]}) for i in range(3)])

    async def work(state: State) -> State:
        numbers.append((get_activation().group, get_activation().number))
        await stage.hold(state["log"][0])
        return {"log": [f"did {state['log'][0]}"]}

    dag.add_node("plan", plan)
    dag.add_node("work", work)
    dag.add_node("t", stage.target("t"))
    dag.add_trigger("t", all_of("work", "plan"))
    run = asyncio.ensure_future(dag.compile().ainvoke({"log": []}))
    await stage.until("0", "1", "2")
    for i in order:
        assert stage.seen == []
        stage.release(str(i))
        await stage.quiet(run)
    await run
    did = [{"log": [f"did {i}"]} for i in range(3)]
    assert [seen.items for seen in stage.seen] == [{"work": did, "plan": {}}]
    assert stage.seen[0].log == ("did 0", "did 1", "did 2")
    assert {group for group, _ in numbers} == {None}


async def test_a_fan_out_of_one_is_a_list_and_one_of_none_is_skipped() -> None:
    for count in (0, 1):
        stage, dag = Stage(), Dag(State)

        async def plan(state: State, count: int = count) -> Command[Literal["work"]]:
            return Command(goto=[Send("work", {"log": ["0"]}) for _ in range(count)])

        dag.add_node("plan", plan)
        dag.add_node("work", lambda state: {"log": ["did"]})
        dag.add_node("t", stage.target("t"))
        dag.add_trigger("t", any_of("work"))
        await dag.compile().ainvoke({"log": []})
        assert [seen.items for seen in stage.seen] == [{"work": [{"log": ["did"]}]}] * count


async def test_a_command_of_an_error_handler_skips_the_source_that_it_answers_for() -> None:
    def broken(state: State) -> State:
        raise ValueError("broken")

    stage, dag = Stage(), Dag(State)
    dag.add_node("a", broken, error_handler=lambda state: {"log": ["mended"]})
    dag.add_node("b", lambda state: {"log": ["b"]})
    dag.add_node("t", stage.target("t"))
    dag.add_trigger("t", all_of("a", "b", skipped="ok"))
    await dag.compile().ainvoke({"log": []})
    assert [set(seen.items) for seen in stage.seen] == [{"b"}]


def test_outside_of_a_node_there_is_no_activation() -> None:
    with pytest.raises(RuntimeError, match="node"):
        get_activation()

    def alone(state: State) -> State:
        get_activation()
        return {}

    with pytest.raises(RuntimeError):
        StateGraph(State).add_node("alone", alone).add_edge(START, "alone").compile().invoke({"log": []})


async def test_what_a_node_calls_knows_the_activation_too() -> None:
    @tool
    def who() -> str:
        """Tells which activation it works for."""
        return f"{get_activation().node} {get_activation().group}"

    def into(state: State) -> State:
        return {"log": [f"into {seen_by(state).node}"]}

    def out_of(result: State) -> State:
        return {"log": [*result["log"], f"out of {get_activation().node}"]}

    dag = Dag(State)
    dag.add_node("a", lambda state: {"log": ["a"]})
    dag.add_node("t", lambda state: {"log": [*state["log"], who.invoke({})]}, input_map=into, output_map=out_of)
    dag.add_trigger("t", all_of("a", name="group"))
    result = await dag.compile().ainvoke({"log": []})
    assert result["log"] == ["a", "into t", "t group", "out of t"]
    assert dag.compile().invoke({"log": []}) == result


async def test_activations_of_nodes_that_run_at_once_are_not_mixed_up() -> None:
    stage, dag = Stage(), Dag(State)
    names = [f"t{i}" for i in range(8)]
    later: list[Seen] = []

    def node(name: str) -> Any:
        async def run(state: State) -> State:
            before = seen_by(state)
            await stage.hold(name)
            assert seen_by(state) == before
            later.append(before)
            return {}

        return run

    dag.add_node("a", lambda state: {"log": ["a"]})
    for name in names:
        dag.add_node(name, node(name))
        dag.add_trigger(name, any_of("a", name=f"group of {name}"))
    run = asyncio.ensure_future(dag.compile().ainvoke({"log": []}))
    await stage.until(*names)
    stage.release(*reversed(names))
    await run
    assert {seen.node: seen.group for seen in later} == {name: f"group of {name}" for name in names}


async def test_states_of_other_kinds() -> None:
    """A dataclass as the state: items are dicts of what was written all the same."""
    told: dict[str, Any] = {}

    @dataclass
    class Data:
        log: Annotated[list[str], lambda a, b: [*a, *b]] = field(default_factory=list)
        x: str = ""

    dag = Dag(Data)
    dag.add_node("a", lambda state: {"log": ["a"], "x": "1"})
    dag.add_node("t", lambda state: told.update(get_activation().items))
    dag.add_trigger("t", "a")
    result = await dag.compile().ainvoke({"log": []})
    assert told == {"a": {"log": ["a"], "x": "1"}}
    assert result["x"] == "1"


async def test_supersteps_give_the_same() -> None:
    stage = Stage()
    told: list[Any] = []
    for barriers in (False, True):
        dag = Dag(State)
        for name in "ab":
            dag.add_node(name, lambda state, name=name: {"log": [name]})
        dag.add_node("t", stage.target("t"))
        dag.add_trigger("t", all_of("a", "b", name="both"))
        await dag.compile(barriers=barriers).ainvoke({"log": []})
        told.append(stage.seen.pop())
    assert told[0] == told[1]


async def test_in_a_cycle_edges_and_groups_are_or_ed_too() -> None:
    told: list[Any] = []

    async def t(state: State) -> State:
        activation = get_activation()
        told.append((activation.number, activation.group, dict(activation.items)))
        return {}

    graph = CyclicGraph(State)
    graph.add_node("a", lambda state: {"log": ["a"]})
    graph.add_node("b", lambda state: {"log": ["b"]})
    graph.add_node("t", t)
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    graph.add_edge("a", "t")
    graph.add_trigger("t", any_of("b", name="b came"))
    await graph.compile().ainvoke({"log": []})
    assert [(number, group) for number, group, _ in told] == [(1, None), (2, "b came")]
    assert told[1][2] == {"b": {"log": ["b"]}}


@pytest.mark.parametrize("kind", ["edges", "barriers", "triggers", "cycle"])
async def test_packets_are_numbered_in_send_order(kind: str) -> None:
    numbers: dict[str, int] = {}

    async def plan(state: State) -> Command[Literal["work"]]:
        return Command(goto=[Send("work", {"log": [str(i)]}) for i in range(3)])

    async def work(state: State) -> None:
        numbers[state["log"][0]] = get_activation().number

    builder: Any = (CyclicGraph if kind == "cycle" else Dag)(State)
    builder.add_node("plan", plan).add_node("work", work).add_node("t", lambda state: {})
    if kind in ("edges", "barriers"):
        builder.add_edge("work", "t")
    else:
        builder.add_trigger("t", "work")
    if kind == "cycle":
        builder.add_edge(START, "plan")
    graph = builder.compile(**({"barriers": True} if kind == "barriers" else {}))
    await graph.ainvoke({"log": []})
    assert numbers == {"0": 1, "1": 2, "2": 3}


async def test_packets_and_activations_of_one_node_are_counted_together() -> None:
    """A packet, an activation by a group, and packets of another sender."""
    numbers: dict[str, int] = {}

    async def send(state: State) -> Command[Literal["work"]]:
        return Command(goto=[Send("work", {"log": ["packet"], "x": "1"}), Send("work", {"log": ["packet"], "x": "2"})])

    async def work(state: State) -> State:
        numbers[f"{state['log'][-1]}{state.get('x', '')}"] = get_activation().number
        return {}

    builder: Any = CyclicGraph(State).add_node("send", send).add_node("late", lambda state: {"log": ["late"]})
    builder.add_node("work", work).add_edge(START, "send").add_edge("send", "late").add_trigger("work", "late")
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["late"])
    await graph.ainvoke({"log": []}, thread())
    await graph.ainvoke(None, thread())
    assert numbers == {"packet1": 1, "packet2": 2, "late": 3}
