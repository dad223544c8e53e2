"""Memory of subgraphs, and states that are read and changed from outside."""

import operator
from typing import Annotated, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Counting(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    count: Annotated[int, operator.add]


def counter(checkpointer):
    inner = StateGraph(Counting, output_schema=Log)
    inner.add_node("count", lambda s: {"count": 1, "log": [f"count {s.get('count', 0)}"]})
    inner.add_edge(START, "count")
    return inner.compile(checkpointer=checkpointer)


class One(TypedDict, total=False):
    log: list[str]


@pytest.mark.parametrize("persistent", [None, True])
def test_subgraph_that_remembers(way, thread, persistent):
    """langgraph#3020. A nested graph with checkpointer=True keeps its counter from call to call of the parent on one
    thread, and has another on another thread; without it, it begins anew."""

    class Outer(TypedDict, total=False):
        seen: Annotated[list[str], operator.add]
        log: list[str]

    graph = way.parent(Outer)
    graph.add_node("child", way.child(counter(persistent)))
    graph.add_node("see", lambda s: {"seen": [s["log"][-1]]})
    graph.add_edge(START, "child")
    graph.add_edge("child", "see")
    graph = graph.compile(checkpointer=InMemorySaver())
    for _ in range(3):
        result = graph.invoke({"log": []}, thread)
    assert result["seen"] == (["count 0", "count 1", "count 2"] if persistent else ["count 0"] * 3)
    other = graph.invoke({"log": []}, {"configurable": {"thread_id": "2"}})
    assert other["seen"] == ["count 0"]


def test_subgraph_with_a_thread_of_its_own(way, thread):
    """langgraph#8038. A node function calls a nested graph that has a checkpointer and a fixed thread of its own: what
    it keeps lies under its own thread with an empty namespace, and is found again, also by the graph itself."""
    saver = InMemorySaver()
    inner = counter(saver)
    child = way.child(inner)
    own = {"configurable": {"thread_id": "own"}}

    def call(state):
        return {"log": child.invoke({"log": []}, own)["log"][-1:]}

    graph = way.parent(Log)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    graph = graph.compile(checkpointer=InMemorySaver())
    for number in range(3):
        result = graph.invoke({"log": []}, {"configurable": {"thread_id": f"turn {number}"}})
        assert result["log"] == [f"count {number}"]
    assert inner.get_state(own).values["count"] == 3
    assert {c.config["configurable"]["checkpoint_ns"] for c in saver.list(None)} == {""}


def asking():
    inner = StateGraph(Counting)
    inner.add_node("work", lambda s: {"log": ["work"], "count": 1})
    inner.add_node("ask", lambda s: {"log": [f"{interrupt('?')} at {s['count']}"]})
    inner.add_edge(START, "work")
    inner.add_edge("work", "ask")
    return inner.compile()


def test_state_of_the_parent_is_changed_while_a_subgraph_waits(way, thread):
    """langgraph#4748. The parent's state is changed while its nested graph waits at a breakpoint or question. What the
    user sees then must be what LangGraph shows."""

    def run(parent, child):
        parent.add_node("child", child)
        parent.add_edge(START, "child")
        graph = parent.compile(checkpointer=InMemorySaver())
        graph.invoke({"log": ["in"], "count": 0}, thread)
        graph.update_state(thread, {"log": ["changed"]})
        snapshot = graph.get_state(thread, subgraphs=True)
        try:
            result = graph.invoke(Command(resume="yes"), thread)
        except Exception as error:
            result = type(error).__name__
        return snapshot.values, snapshot.next, result

    expected = run(StateGraph(Counting), asking())
    assert run(way.parent(Counting), way.child(asking())) == expected


def test_failed_run_goes_on_inside_the_subgraph(way, thread):
    """langgraph#1695 without a policy: the run fails, and invoke(None) goes on at the node that failed."""
    runs = []

    def flaky(state):
        runs.append("flaky")
        if runs.count("flaky") == 1:
            raise ConnectionError("once")
        return {"log": ["flaky"]}

    inner = StateGraph(Log)
    inner.add_node("first", lambda s: runs.append("first"))
    inner.add_node("flaky", flaky)
    inner.add_edge(START, "first")
    inner.add_edge("first", "flaky")
    graph = way.parent(Log)
    graph.add_node("child", way.child(inner.compile()))
    graph.add_edge(START, "child")
    graph = graph.compile(checkpointer=InMemorySaver())
    with pytest.raises(ConnectionError, match="once"):
        graph.invoke({"log": []}, thread)
    assert graph.invoke(None, thread)["log"] == ["flaky"]
    assert runs == ["first", "flaky", "flaky"]


def test_changed_in_place(way, thread):
    """langgraph#1320. A node of a nested graph changes an object of the state in place and returns nothing of it. The
    parent's own objects must not change by that when the graph is remote, nor when LangGraph keeps them apart; what a
    node returns counts."""

    class Box(TypedDict, total=False):
        items: dict
        done: bool

    inner = StateGraph(Box)

    def change(state):
        state["items"]["new"] = 1
        return {"items": state["items"], "done": True}

    inner.add_node("change", change)
    inner.add_edge(START, "change")
    graph = way.parent(Box)
    graph.add_node("child", way.child(inner.compile()))
    graph.add_edge(START, "child")
    graph = graph.compile(checkpointer=InMemorySaver())
    assert graph.invoke({"items": {"old": 0}}, thread) == {"items": {"old": 0, "new": 1}, "done": True}
    assert graph.get_state(thread).values["items"] == {"old": 0, "new": 1}
