"""Whoever works inside a graph sends to its nodes and actors, and to those of the graphs around it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from agentmatrix import ChatGroup, CyclicGraph, Dag, get_activation
from agentmatrix.errors import SendError
from agentmatrix.speakers import round_robin
from agentmatrix.stops import max_turns
from tests.conftest import Verbs

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Memory(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def remembers(state: Memory) -> Memory:
    return {"log": [f"{get_activation().node} had it from {get_activation().sender}"]}


def office(*agents: tuple[str, Any], saver: Any = None, **options: Any) -> Any:
    """A graph with an office that takes notes, actors, and these agents from START."""
    graph = CyclicGraph(State, name="firm", **options)
    graph.add_node("office", lambda state: {"log": [f"noted {state['log'][-1]}"]})
    graph.add_actors("staff", remembers, state=Memory, destinations=("office",))
    for name, agent in agents:
        graph.add_node(name, agent, destinations=("office", "staff"))
        graph.add_edge(START, name)
    return graph.compile(checkpointer=saver)


def sends(state: State) -> State:
    get_activation().send("office", {"log": ["from inside"]})
    get_activation().send("staff/ann", {"log": []})
    return {"log": ["sent"]}


async def sends_async(state: State) -> State:
    await get_activation().asend("office", {"log": ["from inside"]})
    await get_activation().asend("staff/ann", {"log": []})
    return {"log": ["sent"]}


def inner(node: Callable[..., Any], kind: Any = StateGraph) -> Any:
    return kind(State).add_node("inner", node).add_edge(START, "inner").compile()


@pytest.mark.parametrize("kind", [StateGraph, Dag, CyclicGraph])
async def test_from_a_graph_inside_a_node(place: Callable[..., Any], verbs: Verbs, kind: Any) -> None:
    agent = place(inner(sends_async if verbs.is_async else sends, kind))
    graph = office(("agent", agent), saver=InMemorySaver())
    result = await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert result["log"] == ["sent", "noted from inside"]
    (ann,) = graph.actors(THREAD).values()
    assert ann.values["log"] == ["staff/ann had it from agent"] and ann.count == 1


@pytest.mark.parametrize("kind", [StateGraph, Dag])
async def test_from_a_graph_that_an_async_node_invokes(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The event loop, which would have to keep what was sent, stands still until that graph has ended."""
    builder = kind(State)
    for name in ("one", "two"):
        builder.add_node(name, sends).add_edge(START, name)
    agent = builder.compile()

    async def invokes(state: State) -> Any:
        return agent.invoke(state)

    graph = office(("agent", invokes), saver=InMemorySaver())
    result = await graph.ainvoke({"log": []}, THREAD)
    assert sorted(result["log"]) == ["noted from inside", "noted from inside", "sent", "sent"]
    assert graph.actors(THREAD)["staff/ann"].count == 2
    assert "has been blocked" not in caplog.text


async def test_from_the_node_itself_and_by_a_command(verbs: Verbs) -> None:
    def commands(state: State) -> Any:
        return Command(update={"log": ["told"]}, goto=[Send("office", {"log": ["a"]}), Send("staff/bob", None)])

    graph = office(("sends", sends), ("commands", commands), saver=InMemorySaver())
    result = await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert sorted(result["log"]) == ["noted a", "noted from inside", "sent", "told"]
    assert {path: actor.values["log"] for path, actor in graph.actors(THREAD).items()} == {
        "staff/bob": ["staff/bob had it from commands"],
        "staff/ann": ["staff/ann had it from sends"],
    }


@pytest.mark.parametrize("kind", [Dag, CyclicGraph])
async def test_by_a_command_of_a_graph_inside_a_node(place: Callable[..., Any], verbs: Verbs, kind: Any) -> None:
    def commands(state: State) -> Any:
        return Command(update={"log": ["told"]}, goto=[Send("office", {"log": ["a"]}), Send("staff/bob", None)])

    graph = office(("agent", place(inner(commands, kind))), saver=InMemorySaver())
    assert (await verbs.call(graph, "invoke", {"log": []}, THREAD))["log"] == ["told", "noted a"]
    assert list(graph.actors(THREAD)) == ["staff/bob"]


async def test_by_a_command_for_the_graph_around(place: Callable[..., Any], verbs: Verbs) -> None:
    def commands(state: State) -> Any:
        return Command(graph=Command.PARENT, goto=[Send("office", {"log": ["a"]}), Send("staff/bob", None)])

    graph = office(("agent", place(inner(commands))), saver=InMemorySaver())
    assert (await verbs.call(graph, "invoke", {"log": []}, THREAD))["log"] == ["noted a"]
    assert list(graph.actors(THREAD)) == ["staff/bob"]


@pytest.mark.parametrize("way", ["send", "command"])
async def test_from_a_member_of_a_group(place: Callable[..., Any], verbs: Verbs, way: str) -> None:
    def member(state: Any) -> Any:
        if way == "command":
            return Command(update={"messages": [AIMessage("said")]}, goto=Send("office", {"log": ["from a member"]}))
        get_activation().send("office", {"log": ["from a member"]})
        return "said"

    group = ChatGroup({"one": member, "two": member}, speaker=round_robin(), stop=max_turns(2)).compile()
    graph = CyclicGraph(name="firm")
    noted: list[Any] = []
    graph.add_node("office", lambda state: noted.append(state["log"]))
    graph.add_node("group", place(group), destinations=("office",))
    graph.add_edge(START, "group")
    result = await verbs.call(graph.compile(), "invoke", {"messages": "hello"})
    assert result["messages"][-1].text == "said"
    assert noted == [["from a member"], ["from a member"]]


async def test_from_a_task_that_the_node_calls(verbs: Verbs) -> None:
    @task
    def work() -> None:
        get_activation().send("office", {"log": ["from a task"]})

    def node(state: State) -> None:
        work().result()

    graph = office(("node", node))
    if not verbs.is_async:
        assert (await verbs.call(graph, "invoke", {"log": []}))["log"] == ["noted from a task"]


async def test_what_was_sent_before_a_question_is_sent_once(place: Callable[..., Any], verbs: Verbs) -> None:
    """Also from a node of a graph inside that is not asked again."""

    def asks(state: State) -> State:
        get_activation().send("office", {"log": ["before the question"]})
        return {"log": [interrupt("well?")]}

    agent = StateGraph(State).add_node("first", sends).add_node("asks", asks)
    agent.add_edge(START, "first").add_edge("first", "asks")
    graph = office(("agent", place(agent.compile())), saver=InMemorySaver())
    paused = await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert paused["log"] == [] and graph.actors(THREAD) == {}
    result = await verbs.call(graph, "invoke", Command(resume="yes"), THREAD)
    assert result["log"] == ["sent", "yes", "noted from inside", "noted before the question"]
    assert [actor.count for actor in graph.actors(THREAD).values()] == [1]


async def test_a_node_that_fails_has_sent_nothing(verbs: Verbs) -> None:
    broken = [True]

    def node(state: State) -> None:
        get_activation().send("office", {"log": ["twice?"]})
        if broken.pop() if broken else False:
            raise ValueError("broken")

    graph = office(("node", node), saver=InMemorySaver())
    with pytest.raises(ValueError, match="broken"):
        await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert (await verbs.call(graph, "invoke", None, THREAD))["log"] == ["noted twice?"]


async def test_nobody_has_that_name(place: Callable[..., Any], verbs: Verbs) -> None:
    heard: list[str] = []

    async def tries(state: State) -> None:
        for path in ("offiec", "staff", "clerks/ann"):
            with pytest.raises(Exception) as caught:
                await get_activation().asend(path, {"log": []})
            heard.append(f"{type(caught.value).__name__}: {caught.value}")

    if verbs.is_async:
        await office(("agent", place(inner(tries)))).ainvoke({"log": []})
        assert [line.startswith("SendError: ") for line in heard] == [True] * 3, heard
        assert "office" in heard[0] and "'staff/<key>'" in heard[1] and "clerks" in heard[2]


def test_outside_of_a_graph() -> None:
    with pytest.raises(RuntimeError, match="works only in"):
        get_activation()


def test_a_thousand_sends_cost_what_the_first_does() -> None:
    """A chain of sends between two nodes: neither the names of its activations nor what is kept of them grows."""
    sizes: list[int] = []

    class Saver(InMemorySaver):
        def put_writes(self, config: Any, writes: Any, *rest: Any) -> None:
            sizes.append(sum(len(self.serde.dumps_typed(value)[1]) for _, value in writes))
            super().put_writes(config, writes, *rest)

    graph = CyclicGraph(State, max_rounds=2_000)
    graph.add_node("a", lambda s: Command(goto=Send("b", {"n": s.get("n", 0) + 1})), destinations=("b",))
    graph.add_node("b", lambda s: Command(goto=Send("a", s)) if s["n"] < 500 else None, destinations=("a",))
    graph.add_edge(START, "a")
    graph.add_actors("staff", remembers, state=Memory)
    graph.compile(checkpointer=Saver()).invoke({"log": []}, THREAD)
    assert len(sizes) >= 1_000 and max(sizes[-100:]) <= 1.5 * max(sizes[10:110])


def test_an_error_is_a_send_error() -> None:
    assert issubclass(SendError, RuntimeError)
