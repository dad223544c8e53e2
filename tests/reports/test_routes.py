"""Joins, deferred nodes, fan-outs, Commands and handoffs."""

import operator
from typing import Annotated, Literal, TypedDict

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def note(word):
    return lambda state: {"log": [word]}


def fail(state):
    raise ValueError("it broke")


def mend(state, error: NodeError):
    return {"log": [f"mended {error.node}"]}


@pytest.mark.builders("dag", "cyclic")
@pytest.mark.parametrize("mode", ["invoke", "stream", "ainvoke", "custom", "subgraphs"])
async def test_handled_error_beside_a_parallel_node(builder, mode):
    """langgraph#8277 and #8608. A node with an error handler fails while a neighbour is at work. The error was handled:
    it must not come out of the run as well. (In a StateGraph it does: langgraph's own.)"""
    graph = builder(Log)
    graph.add_node("bad", fail, error_handler=mend)
    graph.add_node("good", note("good"))
    graph.add_edge(START, "bad")
    graph.add_edge(START, "good")
    graph = graph.compile()
    if mode == "invoke":
        result = graph.invoke({"log": []})
    elif mode == "ainvoke":
        result = await graph.ainvoke({"log": []})
    else:
        options = {
            "stream": {},
            "custom": {"stream_mode": ["values", "custom", "messages"]},
            "subgraphs": {"subgraphs": True},
        }[mode]
        result = {"log": []}
        for part in graph.stream({"log": []}, **{"stream_mode": ["values"], **options}):
            *_, kind, data = part
            if kind == "values":
                result = data
    assert sorted(result["log"]) == ["good", "mended bad"]


def test_handled_error_of_a_nested_graph_beside_a_neighbour(way):
    """langgraph#8608. The node that fails is a nested graph, next to another node."""
    inner = StateGraph(Log)
    inner.add_node("bad", fail)
    inner.add_edge(START, "bad")
    graph = way.parent(Log)
    graph.add_node("child", way.child(inner.compile()), error_handler=mend)
    graph.add_node("good", note("good"))
    graph.add_edge(START, "child")
    graph.add_edge(START, "good")
    result = graph.compile().invoke({"log": []})
    assert sorted(result["log"]) == ["good", "mended child"]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("barriers", [True, False])
def test_deferred_join_with_commands_and_skipped_branches(skip, barriers):
    """langgraph#5182 and #6005. Commands choose among branches of different lengths; the join must run once, after all
    that was chosen, and what follows it once too."""
    from agentmatrix import Dag

    runs = []

    class Chosen(Log, total=False):
        skip: bool

    def step(name):
        def node(state):
            runs.append(name)
            return {"log": [name]}

        return node

    def choose(state) -> Command[Literal["b1", "c1", "c2", "d"]]:
        return Command(goto=["b1", "c2"] if state["skip"] else ["b1", "c1", "d"])

    dag = Dag(Chosen)
    dag.add_node("choose", choose)
    for name in ("b1", "b2", "c1", "c2", "d"):
        dag.add_node(name, step(name))
    dag.add_node("join", step("join"), defer=True)
    dag.add_node("end", step("end"))
    for edge in (("b1", "b2"), ("b2", "join"), ("c1", "c2"), ("d", "c2"), ("c2", "join"), ("join", "end")):
        dag.add_edge(*edge)
    result = dag.compile(barriers=barriers).invoke({"skip": skip, "log": []})
    expected = ["b1", "b2", "c2", "join", "end"] if skip else ["b1", "b2", "c1", "c2", "d", "join", "end"]
    assert sorted(result["log"]) == sorted(expected) == sorted(runs)
    assert runs[-2:] == ["join", "end"]


def test_goto_beside_a_static_edge(builder):
    """langgraph#6436. A node returns Command(goto="b") and also has an edge to c: both run, each once, and what joins
    them runs once (twice or once in LangGraph: here they are of one length)."""

    def go(state) -> Command[Literal["b"]]:
        return Command(goto="b", update={"log": ["go"]})

    graph = builder(Log)
    graph.add_node("go", go)
    for name in ("b", "c", "end"):
        graph.add_node(name, note(name))
    graph.add_edge(START, "go")
    graph.add_edge("go", "c")
    graph.add_edge("b", "end")
    graph.add_edge("c", "end")
    graph.add_edge("end", END)
    assert graph.compile().invoke({"log": []})["log"] == ["go", "b", "c", "end"]


class Shared(MessagesState, total=False):
    a: bool
    b: bool
    visited: Annotated[list[str], operator.add]


@tool
def set_a() -> Command:
    """Set a."""
    return Command(graph=Command.PARENT, update={"a": True, "messages": [ToolMessage("a", tool_call_id="1")]})


@tool
def set_b() -> Command:
    """Set b."""
    return Command(graph=Command.PARENT, update={"b": True, "messages": [ToolMessage("b", tool_call_id="2")]})


def tools_graph(*tools, messages_key=None):
    inner = StateGraph(Shared)
    inner.add_node("tools", ToolNode(list(tools)))
    inner.add_edge(START, "tools")
    return inner.compile()


def calls(*names):
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": {}, "id": str(number), "type": "tool_call"} for number, name in enumerate(names, 1)
        ],
    )


def test_parallel_tools_write_to_the_parent(way):
    """langgraph#7129. A model calls two tools at once, and each writes to the parent's state by a Command. Neither
    update may be lost (in LangGraph's own ToolNode one is: the same must be seen here, and never an error)."""
    graph = way.parent(Shared)
    graph.add_node("tools", way.child(tools_graph(set_a, set_b)))
    graph.add_edge(START, "tools")
    result = graph.compile().invoke({"messages": [calls("set_a", "set_b")]})
    reference = StateGraph(Shared)
    reference.add_node("tools", tools_graph(set_a, set_b))
    reference.add_edge(START, "tools")
    expected = reference.compile().invoke({"messages": [calls("set_a", "set_b")]})
    assert (result.get("a"), result.get("b")) == (expected.get("a"), expected.get("b"))


@tool
def to_ann() -> Command:
    """Hand over to ann."""
    return Command(graph=Command.PARENT, goto=[Send("ann", {"visited": ["sent-ann"], "messages": []})])


@tool
def to_bob() -> Command:
    """Hand over to bob."""
    return Command(graph=Command.PARENT, goto=[Send("bob", {"visited": ["sent-bob"], "messages": []})])


def test_parallel_handoffs(way):
    """langgraph#7129 and langgraph-supervisor-py#85. A nested agent hands over to two colleagues by two tool calls of
    one message: both of them work."""
    graph = way.parent(Shared)
    graph.add_node("boss", way.child(tools_graph(to_ann, to_bob)), destinations=("ann", "bob"))
    for name in ("ann", "bob"):
        graph.add_node(name, lambda s, name=name: {"visited": [f"{name} saw {s['visited']}"]})
    graph.add_edge(START, "boss")
    result = graph.compile().invoke({"messages": [calls("to_ann", "to_bob")]})
    assert sorted(result["visited"]) == ["ann saw ['sent-ann']", "bob saw ['sent-bob']"]


@pytest.mark.parametrize("persistent", [None, True])
def test_goto_parent_from_a_subgraph_with_memory(way, thread, persistent):
    """langgraph#3570. A nested graph, with or without a memory of its own (checkpointer=True), goes to a node of its
    parent; the whole is asked twice on one thread."""

    def leave(state) -> Command:
        return Command(graph=Command.PARENT, goto="after", update={"log": ["leave"]})

    inner = StateGraph(Log)
    inner.add_node("first", note("first"))
    inner.add_node("leave", leave)
    inner.add_edge(START, "first")
    inner.add_edge("first", "leave")
    graph = way.parent(Log)
    graph.add_node("child", way.child(inner.compile(checkpointer=persistent)), destinations=("after",))
    graph.add_node("after", note("after"))
    graph.add_edge(START, "child")
    graph = graph.compile(checkpointer=InMemorySaver())
    assert graph.invoke({"log": ["in"]}, thread)["log"] == ["in", "leave", "after"]
    assert graph.invoke({"log": ["again"]}, thread)["log"] == ["in", "leave", "after", "again", "leave", "after"]


def push_pop(left, right):
    if right is None:
        return left
    if right == "pop":
        return left[:-1]
    return left + (right if isinstance(right, list) else [right])
