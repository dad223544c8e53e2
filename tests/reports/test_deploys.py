"""The code of a graph changes while its threads lie in a database; and what a thread keeps of reducers."""

import itertools
import operator
from typing import Annotated, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from agentmatrix import ChatGroup, CyclicGraph, Dag, any_of
from agentmatrix.speakers import broadcast, free, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel

KINDS = ["state", "dag", "barriers", "cyclic", "triggers"]


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Noted(Log, total=False):
    note: str


def row(kind, names, saver, schema=Log):
    """A graph of nodes in a row. "?" asks."""
    graph = {"state": StateGraph, "dag": Dag, "barriers": Dag}.get(kind, CyclicGraph)(schema)
    for name in names:

        def node(state, name=name):
            update = {"log": [interrupt("?") if name == "ask" else name]}
            return {**update, "note": "n"} if "note" in schema.__annotations__ else update

        graph.add_node(name, node)
    graph.add_edge(START, names[0])
    for before, after in zip(names, names[1:], strict=False):
        graph.add_edge(before, after)
    if kind == "triggers":
        graph.add_node("also", lambda s: None)
        graph.add_trigger("also", any_of(names[0]))
    return graph.compile(**({"barriers": True} if kind == "barriers" else {}), checkpointer=saver)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", ["abx", "axc", "xy", "cba"])
def test_finished_thread_after_the_nodes_have_changed(kind, new, thread):
    """langchain docs#3843, TradingAgents#1089. A conversation lies in the database. A new version of the graph has a
    node less, or under another name. The conversation can be read and gone on with, as in LangGraph."""
    saver = InMemorySaver()
    row(kind, "abc", saver).invoke({"log": ["in"]}, thread)
    graph = row(kind, new, saver)
    assert graph.get_state(thread).values["log"] == ["in", "a", "b", "c"]
    assert len(list(graph.get_state_history(thread))) > 1
    assert graph.invoke({"log": ["more"]}, thread)["log"] == ["in", "a", "b", "c", "more", *new]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [["a", "ask", "c", "d"], ["z", "ask", "c"], ["a", "z", "ask", "c"]], ids="-".join)
def test_paused_thread_after_the_nodes_have_changed(kind, new, thread):
    """docs#3843. A thread waits for a person while a new version is deployed, in which the node that asks is still
    there. The answer reaches it and what was done before is not lost, as in LangGraph."""
    saver = InMemorySaver()
    row(kind, ["a", "ask", "c"], saver).invoke({"log": ["in"]}, thread)
    graph = row(kind, new, saver)
    result = graph.invoke(Command(resume="yes"), thread)
    assert result["log"] == ["in", "a", "yes", *new[new.index("ask") + 1 :]]


@pytest.mark.parametrize(
    "before, after", [(b, a) for b in KINDS for a in KINDS[1:] if b != a and not {b, a} <= {"state", "cyclic"}]
)
def test_paused_thread_of_another_builder(before, after, thread):
    """docs#3843. The same while a person is asked: the answer is taken, or it is refused in words. It must not
    vanish."""
    saver = InMemorySaver()
    row(before, ["a", "ask", "c"], saver).invoke({"log": ["in"]}, thread)
    graph = row(after, ["a", "ask", "c"], saver)
    try:
        result = graph.invoke(Command(resume="yes"), thread)
    except KeyError:
        raise
    except Exception as error:
        assert "ask" in str(error) or "thread" in str(error)
    else:
        assert result["log"] == ["in", "a", "yes", "c"]


@pytest.mark.parametrize("kind", ["state", "dag"])
def test_the_past_stays_as_it_was(kind, thread):
    """docs#3843. Two parallel nodes are added in another order in the new version: the old conversation still reads as
    it read before."""

    def build(order, saver):
        graph = (StateGraph if kind == "state" else Dag)(Log)
        for name in order:
            graph.add_node(name, lambda s, n=name: {"log": [n]})
            graph.add_edge(START, name)
        return graph.compile(checkpointer=saver)

    saver = InMemorySaver()
    said = build("ab", saver).invoke({"log": ["in"]}, thread)["log"]
    assert build("ba", saver).get_state(thread).values["log"] == said


@pytest.mark.parametrize("speaker", [round_robin, broadcast, free])
def test_group_with_a_member_less(speaker, thread):
    """docs#3843. A member leaves a chat group between two runs of a thread."""

    def group(*names):
        return ChatGroup(
            {n: ScriptedChatModel(f"{n} talks", cycle=True) for n in names},
            speaker=speaker(),
            stop=max_turns(2),
            reply="transcript",
        )

    saver = InMemorySaver()
    first = group("ann", "bob").compile(checkpointer=saver).invoke({"messages": "go"}, thread)
    graph = group("ann", "cat").compile(checkpointer=saver)
    assert [m.text for m in graph.get_state(thread).values["messages"]] == [m.text for m in first["messages"]]
    result = graph.invoke({"messages": "again"}, thread)
    assert {m.name for m in result["messages"][len(first["messages"]) :]} >= {"cat"}


def stamping():
    numbers = itertools.count()

    def reducer(left, right):
        return left + [f"{item} {next(numbers)}" for item in right]

    return reducer


@pytest.mark.parametrize("kind", KINDS)
def test_reducer_that_numbers_what_it_takes(kind, thread):
    """langgraphjs#674. A reducer stamps entries with a number or a time as it takes them. A stored thread reads the
    same however often it is read, and as the run has said."""

    class State(TypedDict, total=False):
        log: Annotated[list[str], stamping()]

    graph = row(kind, "abc", InMemorySaver(), State)
    said = graph.invoke({"log": ["in"]}, thread)["log"]
    assert graph.get_state(thread).values["log"] == said
    assert graph.get_state(thread).values["log"] == said


def own_messages(left, right):
    """A reducer of one's own around LangGraph's."""
    return add_messages(left, right)
