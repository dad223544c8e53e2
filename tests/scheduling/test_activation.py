"""Whoever works for a node can ask what started it: its tools, and the tasks that it calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from agentmatrix import CyclicGraph, Dag, all_of, get_activation, signal
from agentmatrix.testing import loopback
from tests.scheduling.stage import State

THREAD: Any = {"configurable": {"thread_id": "1"}}


@task
def asks() -> str:
    activation = get_activation()
    return f"{activation.node} {activation.number} {activation.group} {sorted(activation.items)}"


@task
async def asks_async() -> str:
    return str(await asks())


@task(name="a")
def named_as_a_node() -> str:
    return asks().result()


def says(state: State) -> State:
    return {"log": [asks().result()]}


async def says_async(state: State) -> State:
    return {"log": [await asks_async()]}


def triggered(node: Callable[[State], Any]) -> Dag:
    dag = Dag(State)
    dag.add_node("a", lambda state: {})
    dag.add_node("t", node)
    dag.add_trigger("t", all_of("a", name="G"))
    return dag


def test_one_send_is_a_list_whatever_the_name_of_its_receiver() -> None:
    """An activation that a Send starts is told from others by a key such as "a.0", which may be the name of a node."""
    found: list[Any] = []
    dag = Dag(State).add_node("a", lambda state: Command(goto=Send("a.0", {})), destinations=("a.0",))
    dag.add_node("a.0", lambda state: {"log": ["sent"]})
    dag.add_node("t", lambda state: found.append(get_activation().items)).add_trigger("t", all_of("a.0"))
    dag.compile().invoke({"log": []})
    assert found == [{"a.0": [{"log": ["sent"]}]}]


@pytest.mark.parametrize("barriers", [False, True])
def test_a_task_works_for_the_node_that_called_it(barriers: bool) -> None:
    graph = triggered(says).compile(barriers=barriers)
    assert graph.invoke({"log": []})["log"] == ["t 1 G ['a']"]


@pytest.mark.parametrize("barriers", [False, True])
async def test_and_so_does_a_task_of_a_task(barriers: bool) -> None:
    graph = triggered(says_async).compile(barriers=barriers)
    assert (await graph.ainvoke({"log": []}))["log"] == ["t 1 G ['a']"]


def test_a_task_with_the_name_of_another_node() -> None:
    graph = triggered(lambda state: {"log": [named_as_a_node().result()]}).compile()
    assert graph.invoke({"log": []})["log"] == ["t 1 G ['a']"]


def test_on_a_host_as_well() -> None:
    assert loopback(triggered(says).compile()).invoke({"log": []})["log"] == ["t 1 G ['a']"]


@pytest.mark.parametrize("barriers", [False, True])
def test_tasks_of_packets(barriers: bool) -> None:
    dag = Dag(State)
    dag.add_node("plan", lambda state: Command(goto=[Send("work", {}) for _ in range(3)]), destinations=("work",))
    dag.add_node("work", says)
    log = dag.compile(barriers=barriers).invoke({"log": []})["log"]
    assert log == [f"work {number} None []" for number in (1, 2, 3)]


async def test_tasks_of_one_node_that_is_at_work_twice() -> None:
    desk = CyclicGraph(State)
    desk.add_node("t", says_async)
    desk.add_trigger("t", signal("audio"), concurrent=True)
    async with desk.compile().live({"log": []}) as run:
        await run.signal("audio", "one")
        await run.signal("audio", "two")
        run.close_input()
        result = await run.result()
    assert result["log"] == [f"t {number} any_of(audio) ['audio']" for number in (1, 2)]


def agent_of(node: Callable[[State], Any]) -> Dag:
    """A graph with that node, in the place of a node that knows what has started it."""
    inner = StateGraph(State)
    inner.add_node("inner", node)
    inner.add_edge(START, "inner")
    dag = Dag(State)
    dag.add_node("agent", inner.compile(), input_map=lambda state: {"x": get_activation().group})
    dag.add_trigger("agent", all_of(START, name="H"))
    return dag


def test_a_graph_that_stands_in_the_node_is_told_by_its_input() -> None:
    """It might as well run on another host."""
    with pytest.raises(RuntimeError, match="input_map"):
        agent_of(says).compile().invoke({"log": []})
    assert agent_of(lambda state: {"log": [state["x"]]}).compile().invoke({"log": []})["log"] == ["H"]


def test_outside_of_any_graph() -> None:
    with pytest.raises(RuntimeError, match="works only in"):
        get_activation()


@pytest.mark.parametrize("kind", ["edges", "triggers", "barriers"])
def test_sends_go_on_being_numbered_after_a_pause(kind: str) -> None:
    """Also where all that the first sender has started had ended by then: with barriers it waits as well."""
    numbers: list[tuple[str, int]] = []

    def sends(name: str) -> Any:
        def node(state: State) -> Command[Literal["work"]]:
            return Command(update={"log": [name]}, goto=[Send("work", {"log": [f"{name}{i}"]}) for i in (1, 2)])

        return node

    def work(state: State) -> None:
        numbers.append((state["log"][0], get_activation().number))

    dag: Any = Dag(State).add_node("first", sends("first")).add_node("late", sends("late")).add_node("work", work)
    dag.add_edge("first", "late")
    if kind == "triggers":
        dag.add_node("t", lambda state: None)
        dag.add_trigger("t", "late")
    options = {"barriers": True} if kind == "barriers" else {}
    graph = dag.compile(checkpointer=InMemorySaver(), interrupt_before=["late"], **options)
    graph.invoke({"log": []}, THREAD)
    if kind != "barriers":
        assert sorted(numbers) == [("first1", 1), ("first2", 2)]
    graph.invoke(None, THREAD)
    assert sorted(numbers) == [("first1", 1), ("first2", 2), ("late1", 3), ("late2", 4)]
