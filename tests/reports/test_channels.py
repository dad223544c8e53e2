"""Keys of the state that live for one run or one step only, and other channels than plain values and reducers."""

import operator
import threading
from typing import Annotated, TypedDict

import pytest
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from agentmatrix import CyclicGraph, Dag, any_of
from agentmatrix.testing import loopback

KINDS = ["state", "dag", "barriers", "cyclic", "triggers"]


def make(kind, schema):
    return {"state": StateGraph, "dag": Dag, "barriers": Dag}.get(kind, CyclicGraph)(schema)


def done(kind, builder, **options):
    if kind == "triggers":
        first = next(iter(builder.nodes))
        builder.add_node("also", lambda s: None)
        builder.add_trigger("also", any_of(first))
    return builder.compile(**({"barriers": True} if kind == "barriers" else {}), **options)


def stored(saver):
    """All that a saver has been given, as text."""
    return repr(dict(saver.storage)) + repr(dict(saver.writes)) + repr(dict(saver.blobs))


class Secret(TypedDict, total=False):
    key: Annotated[str, UntrackedValue]
    log: Annotated[list[str], operator.add]


def secret_graph(kind, **options):
    graph = make(kind, Secret)
    graph.add_node("login", lambda s: {"key": "SECRET", "log": ["login"]})
    graph.add_node("use", lambda s: {"log": ["with key" if s.get("key") else "without"]})
    graph.add_node("ask", lambda s: {"log": [interrupt("?")]})
    graph.add_edge(START, "login")
    graph.add_edge("login", "use")
    graph.add_edge("use", "ask")
    return done(kind, graph, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_untracked_value_is_not_stored(kind, thread):
    """langgraph#6316 and #1240. A token of a login is in a key that is marked UntrackedValue, so that it never lies in
    a database. It must not be there at the pause, nor at the end."""
    saver = InMemorySaver()
    graph = secret_graph(kind, checkpointer=saver)
    graph.invoke({"log": []}, thread)
    assert "SECRET" not in stored(saver)
    assert graph.invoke(Command(resume="yes"), thread)["log"] == ["login", "with key", "yes"]
    assert "SECRET" not in stored(saver)


@pytest.mark.parametrize("place", ["local", "remote"])
@pytest.mark.parametrize("kind", KINDS)
def test_untracked_value_of_a_nested_graph_is_not_stored(kind, place, thread):
    """langgraph#6316. The same in a nested graph that uses its parent's checkpointer, here or on a host."""

    class Log(TypedDict, total=False):
        log: Annotated[list[str], operator.add]

    inner = secret_graph(kind)
    parent = StateGraph(Log)
    parent.add_node("child", inner if place == "local" else loopback(inner))
    parent.add_edge(START, "child")
    saver = InMemorySaver()
    parent.compile(checkpointer=saver).invoke({"log": []}, thread)
    assert "SECRET" not in stored(saver)


@pytest.mark.parametrize("kind", KINDS)
def test_untracked_value_in_a_send_is_not_stored(kind, thread):
    """langgraph#6316. A fan-out hands the token on in its Send."""
    graph = make(kind, Secret)
    graph.add_node("plan", lambda s: {"log": ["plan"]})
    graph.add_node("work", lambda s: {"log": [str(len(s["key"])), interrupt("?")]})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda s: [Send("work", {"key": "SECRET", "log": []})], ["work"])
    saver = InMemorySaver()
    done(kind, graph, checkpointer=saver).invoke({"log": []}, thread)
    assert "SECRET" not in stored(saver)


@pytest.mark.parametrize("kind", KINDS)
def test_untracked_value_need_not_be_data(kind, thread):
    """langgraph#6316. An object that no serializer knows, such as a lock or a connection, is in an untracked key: the
    graph runs with a checkpointer."""

    class Tools(TypedDict, total=False):
        lock: Annotated[object, UntrackedValue]
        log: Annotated[list[str], operator.add]

    graph = make(kind, Tools)
    graph.add_node("open", lambda s: {"lock": threading.Lock()})
    graph.add_node("use", lambda s: {"log": [type(s["lock"]).__name__]})
    graph.add_edge(START, "open")
    graph.add_edge("open", "use")
    assert done(kind, graph, checkpointer=InMemorySaver()).invoke({"log": []}, thread)["log"] == ["lock"]


@pytest.mark.parametrize("kind", KINDS)
def test_untracked_value_is_gone_after_a_pause(kind, thread):
    """langgraph#6229 and docs#729. A key that is marked for one run is empty after a pause, wherever the run goes on:
    in the same process, too, else a program works until it is restarted."""
    graph = make(kind, Secret)
    graph.add_node("login", lambda s: {"key": "SECRET"})
    graph.add_node("ask", lambda s: {"log": [interrupt("?"), str(s.get("key"))]})
    graph.add_edge(START, "login")
    graph.add_edge("login", "ask")
    graph = done(kind, graph, checkpointer=InMemorySaver())
    graph.invoke({"log": []}, thread)
    assert graph.invoke(Command(resume="yes"), thread)["log"] == ["yes", "None"]


def seen(kind, annotation, *, parallel, thread):
    """What four nodes a, b, c, d see of a key that a and b write, in two runs on one thread; and what comes out."""

    class State(TypedDict, total=False):
        k: annotation
        log: Annotated[list[str], operator.add]

    graph = make(kind, State)
    for name in "abcd":
        graph.add_node(name, lambda s, n=name: {**({"k": n} if n in "ab" else {}), "log": [f"{n}:{s.get('k')}"]})
    graph.add_edge(START, "a")
    if parallel:
        graph.add_edge(START, "b")
        graph.add_edge(["a", "b"], "c")
    else:
        graph.add_edge("a", "b")
        graph.add_edge("b", "c")
    graph.add_edge("c", "d")
    graph = done(kind, graph, checkpointer=InMemorySaver())
    first = graph.invoke({"log": []}, thread)
    second = graph.invoke({"log": []}, thread)
    return first["log"], first.get("k"), second["log"][4:], second.get("k")


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def two_writers(kind, a, b):
    """The log after two parallel nodes, which append or replace."""
    graph = make(kind, Log)
    graph.add_node("a", lambda s: {"log": a})
    graph.add_node("b", lambda s: {"log": b})
    graph.add_node("c", lambda s: {"log": ["c"]})
    for name in "ab":
        graph.add_edge(START, name)
    graph.add_edge(["a", "b"], "c")
    return done(kind, graph).invoke({"log": ["in"]})["log"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["a", "b"])
def test_overwrite_beside_an_append(kind, which):
    """langgraph#6286. One of two parallel nodes replaces a list by Overwrite, the other appends to it. LangGraph: the
    replacement counts, in whatever order the nodes were added. A Dag says that its results are the same."""
    from langgraph.types import Overwrite

    values = {"a": ["a"], "b": ["b"], which: Overwrite([which])}
    assert two_writers(kind, values["a"], values["b"]) == [which, "c"]


@pytest.mark.parametrize("kind", KINDS)
def test_overwrite_in_a_fan_out(kind):
    """langgraph#6286. One of three workers of a fan-out replaces what the others append to."""
    from langgraph.types import Overwrite

    graph = make(kind, Log)
    graph.add_node("plan", lambda s: {})
    graph.add_node("work", lambda s: {"log": Overwrite([s["k"]]) if s["k"] == "y" else [s["k"]]})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda s: [Send("work", {"k": k}) for k in "xyz"], ["work"])
    assert done(kind, graph).invoke({"log": ["in"]})["log"] == ["y"]
