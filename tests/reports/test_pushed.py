"""What a node writes to the state besides what it returns: push_message, push_ui_message."""

import operator
from typing import Annotated

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import push_message
from langgraph.graph.ui import AnyUIMessage, ui_message_reducer
from langgraph.types import Command, interrupt

from agentmatrix import ChatGroup, CyclicGraph, Dag, any_of
from agentmatrix.speakers import broadcast, free, round_robin
from agentmatrix.stops import max_turns

KINDS = ["state", "dag", "barriers", "cyclic", "triggers"]


class Page(MessagesState, total=False):
    ui: Annotated[list[AnyUIMessage], ui_message_reducer]
    log: Annotated[list[str], operator.add]


def build(kind, *nodes, **options):
    graph = {"state": StateGraph, "dag": Dag, "barriers": Dag}.get(kind, CyclicGraph)(Page)
    names = [f"n{number}" for number in range(len(nodes))]
    for name, node in zip(names, nodes, strict=True):
        graph.add_node(name, node)
    graph.add_edge(START, names[0])
    for before, after in zip(names, names[1:], strict=False):
        graph.add_edge(before, after)
    if kind == "triggers":
        graph.add_node("also", lambda s: None)
        graph.add_trigger("also", any_of(names[0]))
    return graph.compile(**({"barriers": True} if kind == "barriers" else {}), **options)


def see(state):
    return {"log": [f"{[m.text for m in state['messages']]} {[u['id'] for u in state.get('ui', [])]}"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_pushed_message_is_in_the_state(kind, mode, thread):
    """langgraph#4791. A node pushes a progress message, which LangGraph streams and writes to the state. The next node
    sees it, and the thread keeps it."""

    def push(state):
        push_message(AIMessage("working", id="1"))
        return {"log": ["pushed"]}

    async def apush(state):
        return push(state)

    graph = build(kind, push if mode == "sync" else apush, see, checkpointer=InMemorySaver())
    start = {"messages": [], "log": []}
    result = graph.invoke(start, thread) if mode == "sync" else await graph.ainvoke(start, thread)
    assert result["log"] == ["pushed", "['working'] []"]
    assert [m.text for m in graph.get_state(thread).values["messages"]] == ["working"]


@pytest.mark.parametrize("kind", KINDS)
def test_pushed_message_before_a_question(kind, thread):
    """langgraph#6270. A node pushes a message and then asks a person. After the answer it is in the state, once."""

    def push(state):
        push_message(AIMessage("one moment", id="1"))
        return {"log": [interrupt("?")]}

    graph = build(kind, push, see, checkpointer=InMemorySaver())
    graph.invoke({"messages": [], "log": []}, thread)
    assert graph.invoke(Command(resume="yes"), thread)["log"] == ["yes", "['one moment'] []"]


@pytest.mark.parametrize("speaker", [round_robin, broadcast, free])
def test_pushed_message_of_a_member(speaker):
    """langgraph#4791. A member pushes a message while it works: no error out of LangGraph's inside."""

    def ann(messages):
        push_message(AIMessage("working", id="1"), state_key=None)
        return "done"

    group = ChatGroup(
        {"ann": ann, "bob": lambda messages: "fine"}, speaker=speaker(), stop=max_turns(2), reply="transcript"
    )
    texts = [m.text for m in group.compile().invoke({"messages": "go"})["messages"]]
    assert "done" in texts
