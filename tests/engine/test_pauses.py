"""A pause of a barrier-free graph is a checkpoint that one can go back to, as in LangGraph."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.func import task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import CyclicGraph, Dag, RemoteAgent, all_of
from agentmatrix.testing import loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    x: int


class Questions:
    """`a`, then `b` and `c`, which ask, then `t`; tells what has run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def says(self, name: str) -> Callable[[State], State]:
        def node(state: State) -> State:
            self.ran.append(name)
            return {"log": [name]}

        return node

    def asks(self, name: str) -> Callable[[State], State]:
        def node(state: State) -> State:
            answer = interrupt(f"{name}?")
            self.ran.append(name)
            return {"log": [f"{name}={answer}"]}

        return node

    def graph(self, kind: str, **options: Any) -> Any:
        builder: Any = {"StateGraph": StateGraph, "CyclicGraph": CyclicGraph}.get(kind, Dag)(State)
        for name in ("a", "t"):
            builder.add_node(name, self.says(name))
        for name in ("b", "c"):
            builder.add_node(name, self.asks(name))
        edges = [("a", "b"), ("b", "c"), ("c", "t")]
        if kind in ("StateGraph", "CyclicGraph"):
            builder.add_edge(START, "a")
        if kind in ("triggers", "CyclicGraph"):
            for source, target in edges:
                builder.add_trigger(target, all_of(source))
        else:
            for source, target in edges:
                builder.add_edge(source, target)
        return builder.compile(checkpointer=InMemorySaver(), **options)


KINDS = ["StateGraph", "edges", "triggers", "CyclicGraph"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_pause_can_be_gone_back_to(kind: str, durability: Any) -> None:
    questions = Questions()
    graph = questions.graph(kind)
    await graph.ainvoke({"log": []}, THREAD, durability=durability)
    first = await graph.aget_state(THREAD)
    await graph.ainvoke(Command(resume="1"), THREAD, durability=durability)
    second = await graph.aget_state(THREAD)
    assert (await graph.ainvoke(Command(resume="2"), THREAD, durability=durability))["log"] == ["a", "b=1", "c=2", "t"]
    for pause, next, log in ((first, "b", ["a"]), (second, "c", ["a", "b=1"])):
        again = await graph.aget_state(pause.config)
        for state in (pause, again):
            assert (state.next, state.values["log"]) == ((next,), log)
            assert [question.value for question in state.interrupts] == [f"{next}?"]
    history = [(state.next, state.values["log"]) async for state in graph.aget_state_history(THREAD) if state.values]
    assert history[0] == ((), ["a", "b=1", "c=2", "t"])
    assert (("b",), ["a"]) in history and (("c",), ["a", "b=1"]) in history
    questions.ran.clear()
    asked = await graph.ainvoke(None, first.config, durability=durability)
    assert (asked["log"], [question.value for question in asked["__interrupt__"]]) == (["a"], ["b?"])
    await graph.ainvoke(Command(resume="other"), THREAD, durability=durability)
    assert (await graph.ainvoke(Command(resume="way"), THREAD))["log"] == ["a", "b=other", "c=way", "t"]
    assert questions.ran == ["b", "c", "t"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_of_a_past_pause_branches_off_there(kind: str) -> None:
    questions = Questions()
    graph = questions.graph(kind)
    graph.invoke({"log": []}, THREAD)
    pause = graph.get_state(THREAD)
    for answer in "12":
        graph.invoke(Command(resume=answer), THREAD)
    questions.ran.clear()
    branch = graph.update_state(pause.config, {"x": 1})
    state = graph.get_state(branch)
    assert (state.next, state.values) == (("b",), {"log": ["a"], "x": 1})
    assert "__interrupt__" in graph.invoke(None, branch)
    graph.invoke(Command(resume="other"), THREAD)
    result = graph.invoke(Command(resume="way"), THREAD)
    assert result == {"log": ["a", "b=other", "c=way", "t"], "x": 1}
    assert questions.ran == ["b", "c", "t"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pause_by_an_error_can_be_gone_back_to(kind: str) -> None:
    questions, broken = Questions(), ["once"]
    questions.asks = lambda name: lambda state: fails() if broken else {"log": [name]}  # type: ignore[method-assign]

    def fails() -> State:
        raise ValueError(broken.pop())

    graph = questions.graph(kind)
    with pytest.raises(ValueError, match="once"):
        graph.invoke({"log": []}, THREAD)
    pause = graph.get_state(THREAD)
    assert (pause.next, pause.values["log"]) == (("b",), ["a"])
    assert graph.invoke(None, THREAD)["log"] == ["a", "b", "c", "t"]
    assert graph.get_state(pause.config).next == ("b",)
    questions.ran.clear()
    assert graph.invoke(None, pause.config)["log"] == ["a", "b", "c", "t"]
    assert questions.ran == ["t"]


@pytest.mark.parametrize("place", [lambda graph: graph, loopback], ids=["local", "remote"])
def test_nested_questions_and_the_tasks_of_a_node_survive_pauses(place: Any) -> None:
    """Ids of questions, the state of nested graphs and the results of called tasks outlive a pause of the parent."""
    counted: list[int] = []

    @task
    def count(number: int) -> int:
        counted.append(number)
        return number

    def calls(state: State) -> State:
        number = count(1).result()
        return {"log": [f"{number} {interrupt('first')} {interrupt('second')}"]}

    nested = Dag(State).add_node("before", Questions().says("before")).add_node("asks", Questions().asks("asks"))
    graph: RemoteAgent | Any = Dag(State).add_node("start", Questions().says("start")).add_node("calls", calls)
    graph.add_node("nested", place(nested.add_edge("before", "asks").compile()), output_map=lambda out: out)
    graph = graph.add_edge("start", "calls").add_edge("start", "nested").compile(checkpointer=InMemorySaver())
    paused = graph.invoke({"log": []}, THREAD)
    ids = {question.value: question.id for question in paused["__interrupt__"]}
    paused = graph.invoke(Command(resume={ids["first"]: "one"}), THREAD)
    left = {question.value: question.id for question in graph.get_state(THREAD).interrupts}
    assert left["asks?"] == ids["asks?"]
    paused = graph.invoke(Command(resume={left["second"]: "two"}), THREAD)
    assert [question.value for question in graph.get_state(THREAD).interrupts] == ["asks?"]
    result = graph.invoke(Command(resume={left["asks?"]: "three"}), THREAD)
    assert sorted(set(result["log"])) == ["1 one two", "asks=three", "before", "start"]
    assert counted == [1]


async def test_an_input_at_a_pause_begins_another_run() -> None:
    questions = Questions()
    graph = questions.graph("triggers")
    await graph.ainvoke({"log": []}, THREAD)
    await graph.ainvoke(Command(resume="1"), THREAD)
    questions.ran.clear()
    assert "__interrupt__" in await graph.ainvoke({"log": ["new"]}, THREAD)
    assert questions.ran == ["a"]
    assert (await graph.aget_state(THREAD)).next == ("b",)


async def test_a_saver_that_is_lost_at_a_pause_loses_nothing() -> None:
    """What has happened is kept before the checkpoint that says so."""

    class Lost(InMemorySaver):
        lost = False

        async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
            if self.lost:
                raise ConnectionError("the saver is gone")
            return await super().aput(config, checkpoint, metadata, new_versions)

    questions, saver, lost = Questions(), Lost(), list[str]()

    def ask(state: State) -> State:
        saver.lost = not lost
        lost.append("once")
        return {"log": [interrupt("b?")]}

    questions.asks = lambda name: ask  # type: ignore[method-assign]
    graph = questions.graph("triggers").copy({"checkpointer": saver})
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(graph.ainvoke({"log": []}, THREAD), 100)
    saver.lost = False
    assert (await graph.aget_state(THREAD)).next == ("b",)
    await graph.ainvoke(None, THREAD)
    assert questions.ran == ["a"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_update_after_the_end_is_that_of_the_last_node(kind: str) -> None:
    questions = Questions()
    questions.asks = questions.says  # type: ignore[method-assign]
    graph = questions.graph(kind)
    await graph.ainvoke({"log": []}, THREAD)
    await graph.aupdate_state(THREAD, {"log": ["post"]})
    state = graph.get_state(THREAD)
    assert (state.next, state.values["log"]) == ((), ["a", "b", "c", "t", "post"])
    graph.update_state(THREAD, {"x": 1})
    assert (await graph.aget_state(THREAD)).next == ()
    assert questions.ran == ["a", "b", "c", "t"]


@pytest.mark.parametrize("options", [{}, {"barriers": True}], ids=["open", "barriers"])
def test_a_refused_update_leaves_the_pause_as_it_is(options: Any) -> None:
    graph = Questions().graph("edges", **options)
    asked = graph.invoke({"log": []}, THREAD)["__interrupt__"]
    with pytest.raises(InvalidUpdateError, match="nobody"):
        graph.update_state(THREAD, {"x": 2}, as_node="nobody")
    assert list(graph.get_state(THREAD).interrupts) == asked
    assert graph.invoke(Command(resume={asked[0].id: "1"}), THREAD)["log"] == ["a", "b=1"]


def chain(kind: str, nodes: str) -> Any:
    """Nodes one after another: `s` says its name, `q` asks, `2` asks twice, `f` fails once, `x` adds to a plain key."""
    failed: list[int] = []

    def made(number: int, sort: str) -> Callable[[State], State]:
        def node(state: State) -> State:
            name = f"{sort}{number}"
            if sort == "f" and number not in failed:
                failed.append(number)
                raise ValueError(name)
            if sort == "x":
                return {"log": [name], "x": state.get("x", 0) + 1}
            answers = [interrupt(f"{name}?{n}") for n in range({"q": 1, "2": 2}.get(sort, 0))]
            return {"log": ["=".join([name, *answers])]}

        return node

    builder: Any = {"StateGraph": StateGraph, "CyclicGraph": CyclicGraph}.get(kind, Dag)(State)
    names = [f"n{number}" for number in range(len(nodes))]
    for number, sort in enumerate(nodes):
        builder.add_node(names[number], made(number, sort))
    if kind in ("StateGraph", "CyclicGraph"):
        builder.add_edge(START, names[0])
    for source, target in itertools.pairwise(names):
        if kind in ("triggers", "CyclicGraph"):
            builder.add_trigger(target, all_of(source))
        else:
            builder.add_edge(source, target)
    return builder.compile(checkpointer=InMemorySaver())


Step = tuple[str, Any] | tuple[str, Any, int]
STORIES: list[tuple[str, list[Step]]] = [
    ("qfq", [("in", []), ("answer", "1"), ("go", None), ("go", None), ("answer", "2")]),
    ("qq", [("in", []), ("answer", "1"), ("go", None), ("answer", "2")]),
    ("qq", [("in", []), ("command", 5), ("answer", "1"), ("answer", "2")]),
    ("s2", [("in", []), ("answer", "1"), ("answer", "2")]),
    ("sq", [("in", []), ("go", None, 0), ("answer", "1")]),
    ("xq", [("in", []), ("in", ["new"]), ("answer", "1")]),
    ("xq", [("in", []), ("answer", "1"), ("in", ["new"], 0)]),
    ("qx", [("in", []), ("answer", "1"), ("go", None, 0), ("update", "u"), ("answer", "2")]),
    ("qq", [("update", "u"), ("go", None), ("answer", "1"), ("update", "v"), ("go", None), ("answer", "2")]),
    ("sqs", [("in", []), ("update", "u"), ("go", None), ("answer", "1"), ("update", "post"), ("in", ["next"])]),
    ("qxq", [("in", []), ("command", 5), ("answer", "1"), ("in", ["new"]), ("answer", "2"), ("answer", "3")]),
    ("sq", [("in", []), ("command", 5, 0), ("answer", "1")]),
    ("sqs", [("in", []), ("copy", None), ("go", None), ("answer", "1")]),
    ("xqxq", [("in", []), ("answer", "1"), ("update", "u", 0), ("answer", "2"), ("answer", "3"), ("go", None, 1)]),
]


def told(kind: str, nodes: str, story: list[Step]) -> list[Any]:
    """What each step of the story leaves, with the last pauses to go back to by their numbers."""
    graph, seen, pauses = chain(kind, nodes), [], []
    for action, given, *at in story:
        config = pauses[at[0]] if at else THREAD
        with contextlib.suppress(ValueError):
            if action in ("update", "copy"):
                graph.update_state(config, given and {"log": [given]}, as_node="__copy__" if action == "copy" else None)
            else:
                inputs = {"in": {"log": given}, "go": None, "answer": Command(resume=given)}
                graph.invoke(inputs.get(action, Command(update={"x": given})), config)
        state = graph.get_state(THREAD)
        again = graph.get_state(state.config) if state.interrupts else state
        seen.append(
            (state.next, state.values, [i.value for i in state.interrupts], [i.value for i in again.interrupts])
        )
        if state.interrupts:
            pauses.append(state.config)
    return seen


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize(("nodes", "story"), STORIES)
def test_the_same_story_as_with_a_state_graph(kind: str, nodes: str, story: list[Step]) -> None:
    assert told(kind, nodes, story) == told("StateGraph", nodes, story)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_tasks_that_were_called_before_a_second_pause_are_not_called_again(asynchronous: bool) -> None:
    called: list[int] = []

    @task
    def call(number: int) -> int:
        called.append(number)
        return number

    @task
    async def acall(number: int) -> int:
        called.append(number)
        return number

    def node(state: State) -> State:
        first = f"{call(1).result()}{interrupt('first?')}"
        return {"log": [f"{first} {call(2).result()}{interrupt('second?')}"]}

    async def anode(state: State) -> State:
        first = f"{await acall(1)}{interrupt('first?')}"
        return {"log": [f"{first} {await acall(2)}{interrupt('second?')}"]}

    builder = Dag(State).add_node("before", Questions().asks("before"))
    builder.add_node("node", anode if asynchronous else node).add_edge("before", "node")
    graph = builder.compile(checkpointer=InMemorySaver())

    async def run(given: Any) -> Any:
        return await graph.ainvoke(given, THREAD) if asynchronous else graph.invoke(given, THREAD)

    for given in ({"log": []}, *(Command(resume=word) for word in "abc")):
        result = await run(given)
    assert (result["log"], called) == (["before=a", "1b 2c"], [1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_nested_graph_with_a_memory_that_starts_after_an_answer_runs(kind: str) -> None:
    counts = Dag(State).add_node("count", lambda state: {"x": state.get("x", 0) + 1}).compile(checkpointer=True)
    builder: Any = {"StateGraph": StateGraph, "CyclicGraph": CyclicGraph}.get(kind, Dag)(State)
    builder.add_node("ask", Questions().asks("ask")).add_node("nested", counts)
    if kind in ("StateGraph", "CyclicGraph"):
        builder.add_edge(START, "ask")
    if kind in ("StateGraph", "edges"):
        builder.add_edge("ask", "nested")
    else:
        builder.add_trigger("nested", "ask")
    graph = builder.compile(checkpointer=InMemorySaver())
    for number in (1, 2):
        graph.invoke({"log": [str(number)]}, THREAD)
        assert graph.invoke(Command(resume="yes"), THREAD)["x"] == number


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_answer_to_a_graph_inside_is_for_one_question(kind: str) -> None:
    builder: Any = (CyclicGraph if kind == "CyclicGraph" else Dag)(State)
    nested = Dag(State).add_node("first", Questions().asks("first")).add_node("second", Questions().asks("second"))
    builder.add_node("nested", nested.add_edge("first", "second").compile())
    if kind == "CyclicGraph":
        builder.add_trigger("nested", START)
    graph = builder.compile(checkpointer=InMemorySaver())
    graph.invoke({"log": []}, THREAD)
    for given in (Command(resume="1"), None, None):
        asked = graph.invoke(given, THREAD)["__interrupt__"]
        assert [question.value for question in asked] == ["second?"]
    assert graph.invoke(Command(resume="2"), THREAD)["log"] == ["first=1", "second=2"]


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("nodes", ["2q", "s2q"])
def test_another_answer_to_a_question_of_the_past_leads_the_thread_there(kind: str, nodes: str) -> None:
    """LangGraph would take the old answer again."""
    graph = chain(kind, nodes)
    graph.invoke({"log": []}, THREAD)
    first = graph.get_state(THREAD).config
    for answer in "12":
        graph.invoke(Command(resume=answer), THREAD)
    asked = graph.invoke(Command(resume="new"), first)["__interrupt__"]
    assert list(graph.get_state(THREAD).interrupts) == asked and asked[0].value.endswith("?1")
    graph.invoke(Command(resume="more"), THREAD)
    assert graph.get_state(THREAD).values["log"][-1].endswith("=new=more")
