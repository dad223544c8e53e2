"""A run with a saver: START writes at once and is saved as LangGraph saves it, and a run leaves nothing behind."""

from __future__ import annotations

import gc
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import RunControl

from agentmatrix import ChatGroup, CyclicGraph, Dag, get_activation, signal
from agentmatrix.engine.graph import AsyncLoop, SyncLoop
from agentmatrix.stops import max_turns
from agentmatrix.testing.scripted import ScriptedChatModel
from tests.conftest import Verbs

DURABILITIES = ["exit", "async", "sync"]
CONFIG: Any = {"configurable": {"thread_id": "1"}}


def extended(left: list[str], right: list[list[str]]) -> list[str]:
    return [*left, *(word for words in right for word in words)]


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    differences: Annotated[list[str], DeltaChannel(extended)]
    fails: bool


def pair(kind: Any, saver: Any = None, **options: Any) -> Any:
    def first(state: State) -> State:
        if state.get("fails"):
            raise ValueError("first")
        return {"log": ["first"], "differences": ["first"]}

    def second(state: State) -> State:
        return {"log": ["second"], "differences": ["second"]}

    graph = kind(State).add_node("first", first).add_node("second", second)
    return (
        graph.add_edge(START, "first")
        .add_edge("first", "second")
        .compile(checkpointer=saver or InMemorySaver(), **options)
    )


def told(snapshot: Any) -> Any:
    tasks = [(task.name, task.result, str(task.error)) for task in snapshot.tasks]
    metadata = {key: value for key, value in snapshot.metadata.items() if key in ("source", "step")}
    return snapshot.values, snapshot.next, metadata, tasks


def written(saver: InMemorySaver) -> list[Any]:
    """What lies beside the checkpoints of inputs: of which task, by its path, and in which channels."""
    return [(path, channel) for kept in saver.writes.values() for _, channel, _, path in kept.values() if START in path]


@pytest.mark.parametrize("durability", ["async", "sync"])
@pytest.mark.parametrize("given", [{"log": ["x"]}, {"log": ["x"], "differences": ["x"]}], ids=["value", "differences"])
async def test_barriers_leave_the_history_of_a_state_graph(verbs: Verbs, durability: str, given: State) -> None:
    found = []
    for kind, options in ((Dag, {"barriers": True}), (StateGraph, {})):
        saver = InMemorySaver()
        graph = pair(kind, saver, **options)
        for _ in range(2):
            await verbs.invoke(graph, given, CONFIG, durability=durability)
        history = [told(one) for one in graph.get_state_history(CONFIG)]
        found.append((history, written(saver)))
    assert found[0] == found[1]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("kind", [Dag, CyclicGraph, StateGraph])
async def test_a_failed_run_before_another_one(verbs: Verbs, durability: str, kind: Any) -> None:
    graph = pair(kind)
    await verbs.invoke(graph, {"log": ["a"], "differences": ["a"]}, CONFIG, durability=durability)
    with pytest.raises(ValueError, match="first"):
        await verbs.invoke(graph, {"log": ["b"], "differences": ["b"], "fails": True}, CONFIG, durability=durability)
    result = await verbs.invoke(
        graph, {"log": ["c"], "differences": ["c"], "fails": False}, CONFIG, durability=durability
    )
    expected = ["a", "first", "second", "b", "c", "first", "second"]
    assert result["log"] == result["differences"] == expected
    values = graph.get_state(CONFIG).values
    assert values["log"] == values["differences"] == expected


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_counts_begin_anew_after_a_failed_run(verbs: Verbs, durability: str) -> None:
    def count(state: State) -> State:
        if len(state["log"]) == 3:
            raise ValueError("three")
        return {"log": ["round"]}

    graph: Any = CyclicGraph(State, max_rounds=3).add_node("count", count).add_edge(START, "count")
    graph.add_conditional_edges("count", lambda state: "count" if len(state["log"]) % 4 else "__end__")
    compiled = graph.compile(InMemorySaver())
    with pytest.raises(ValueError, match="three"):
        await verbs.invoke(compiled, {"log": ["input"]}, CONFIG, durability=durability)
    # Three more rounds, and not only the one that the run before has left of three.
    result = await verbs.invoke(compiled, {"log": ["input", "input"]}, CONFIG, durability=durability)
    assert len(result["log"]) == 8


@pytest.mark.parametrize("durability", ["async", "sync"])
async def test_what_start_has_written_is_applied_once(verbs: Verbs, durability: str) -> None:
    saver = InMemorySaver()
    graph = pair(Dag, saver)
    await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability=durability)
    [began] = [one for one in graph.get_state_history(CONFIG) if one.metadata["source"] == "input"]
    [task] = began.tasks
    assert (task.name, task.result) == (START, {"log": ["x"]})
    result = await verbs.invoke(graph, None, began.config, durability=durability)
    assert result["log"] == ["x", "first", "second"]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("kind", [Dag, StateGraph])
async def test_a_drain_that_is_asked_for_before_the_run_begins(verbs: Verbs, durability: str, kind: Any) -> None:
    graph, control = pair(kind), RunControl()
    control.request_drain("now")
    with pytest.raises(Exception, match="now"):
        await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability=durability, control=control)
    assert graph.get_state(CONFIG).next == (START,)
    assert (await verbs.invoke(graph, None, CONFIG, durability=durability))["log"] == ["x", "first", "second"]


def group(saver: Any) -> Any:
    voices = {name: ScriptedChatModel("hello", cycle=True) for name in ("ann", "bob")}
    return ChatGroup(voices, stop=max_turns(2)).compile(saver)


@pytest.mark.parametrize(("kind", "durability"), [*((Dag, each) for each in DURABILITIES), (ChatGroup, "async")])
async def test_nothing_is_left_to_the_garbage_collector(verbs: Verbs, kind: Any, durability: Any) -> None:
    graph = group(InMemorySaver()) if kind is ChatGroup else pair(kind)

    async def run(thread: str) -> None:
        given = {"log": ["x"], "messages": "Well?"}
        config = {"configurable": {"thread_id": thread}}
        await verbs.invoke(
            graph, {key: given[key] for key in given if key in graph.channels}, config, durability=durability
        )

    await run("1")
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await run("2")
        gc.collect()
        left = [type(one) for one in gc.garbage if isinstance(one, SyncLoop | AsyncLoop)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left


def listening() -> Any:
    graph = CyclicGraph(State)
    graph.add_node("listen", lambda state: {"log": [get_activation().items["audio"]]})
    graph.add_trigger("listen", signal("audio"))
    return graph.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_input_of_which_start_writes_nothing(durability: Any) -> None:
    with listening().live({}, CONFIG, durability=durability) as run:
        run.signal("audio", "hello")
    assert run.result()["log"] == ["hello"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_an_input_of_which_start_writes_nothing_async(durability: Any) -> None:
    async with listening().live({}, CONFIG, durability=durability) as run:
        await run.signal("audio", "hello")
    assert (await run.result())["log"] == ["hello"]
