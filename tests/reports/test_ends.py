"""What ends a step, a node or a run: commands to the parent, errors, time limits; and where handling an end goes
wrong."""

import asyncio
import operator
import time
from collections import Counter
from itertools import pairwise
from typing import Annotated, TypedDict

import pytest
from langgraph.errors import InvalidUpdateError
from langgraph.graph import START
from langgraph.types import Command

from agentmatrix import CyclicGraph, Dag, any_of
from agentmatrix.testing import loopback


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    a: str
    b: str


def two(kind_a, kind_b, *, slow=None, place="local"):
    """The outcome of a Dag in a Dag, whose two nodes end as `kind` says, at the same time."""
    inner = Dag(Log)
    for name, kind in (("a", kind_a), ("b", kind_b)):

        def node(state, name=name, kind=kind):
            if name == slow:
                time.sleep(0.05)
            if kind == "error":
                raise ValueError(name)
            return Command(graph=Command.PARENT, update={name: "set", "log": [name]})

        inner.add_node(name, node)
    outer = Dag(Log)
    inner = inner.compile()
    outer.add_node("child", inner if place == "local" else loopback(inner))
    try:
        return repr(outer.compile().invoke({"log": []}))
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize("place", ["local", "remote"])
def test_two_commands_to_the_parent_at_once(place):
    """langgraph#7129. Two nodes of a nested Dag, neither after the other, write to the parent by Command(graph=PARENT).
    A Dag's result does not depend on timing: either both updates count, or an error names both nodes. One of them must
    not be lost without a word, by chance."""
    outcomes = Counter(two("command", "command", slow=slow, place=place) for slow in ("a", "b", None) * 5)
    assert len(outcomes) == 1, outcomes
    [outcome] = outcomes
    assert ("'a': 'set'" in outcome and "'b': 'set'" in outcome) or ("'a'" in outcome and "Error" in outcome), outcome


@pytest.mark.parametrize("place", ["local", "remote"])
def test_a_command_to_the_parent_beside_an_error(place):
    """langgraph#7129, a sibling. One of two nodes goes to the parent, the other one fails: whether the run fails must
    not be a matter of chance."""
    outcomes = Counter(two("command", "error", slow=slow, place=place) for slow in ("a", "b", None) * 5)
    assert len(outcomes) == 1, outcomes


def chain(builder, names="abcd", seconds=0.2):
    graph = builder(Log)
    for name in names:
        graph.add_node(name, lambda s, n=name: time.sleep(seconds) or {"log": [n]})
    graph.add_edge(START, names[0])
    for before, after in zip(names, names[1:], strict=False):
        graph.add_edge(before, after)
    return graph


async def test_time_limit_of_a_step_async():
    """langgraphjs#1373, with the async verbs."""
    graph = Dag(Log)
    for name in "abcdefgh":

        async def node(state, name=name):
            await asyncio.sleep(0.3)
            return {"log": [name]}

        graph.add_node(name, node)
    for before, after in pairwise("abcdefgh"):
        graph.add_edge(before, after)
    graph = graph.compile()
    graph.step_timeout = 2.2
    assert (await graph.ainvoke({"log": []}))["log"] == list("abcdefgh")


@pytest.mark.parametrize("which", ["dag", "barriers", "cyclic", "triggers"])
def test_command_to_a_node_that_is_not_there(which):
    """langgraph#4377. A node hands over to a name that no node has (a slip in the name). The run must say so, and not
    end as if it were done."""
    graph = (Dag if which in ("dag", "barriers") else CyclicGraph)(Log)
    graph.add_node("ann", lambda s: Command(goto="bbo", update={"log": ["ann"]}))
    graph.add_node("bob", lambda s: {"log": ["bob"]})
    graph.add_edge(START, "ann")
    graph.add_edge("ann", "bob")
    if which == "triggers":
        graph.add_node("also", lambda s: None)
        graph.add_trigger("also", any_of("ann"))
    graph = graph.compile(**({"barriers": True} if which == "barriers" else {}))
    with pytest.raises(InvalidUpdateError, match="bbo"):
        graph.invoke({"log": []})


@pytest.mark.builders("dag", "cyclic")  # LangGraph itself passes over it
def test_send_to_a_node_that_is_not_there(builder):
    """langgraph#4377, a sibling: a Send to a name that no node has."""
    from langgraph.types import Send

    graph = builder(Log)
    graph.add_node("ann", lambda s: Command(goto=[Send("bbo", {})]))
    graph.add_edge(START, "ann")
    with pytest.raises(Exception, match="bbo"):
        graph.compile().invoke({"log": []})
