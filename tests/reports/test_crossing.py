"""What a parent has that is none of the remote graph's business, and what comes back of it."""

import operator
import threading
from dataclasses import dataclass
from typing import Annotated, TypedDict

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


@dataclass
class Context:
    connection: object
    user: str = "ann"


def plain_child():
    inner = StateGraph(Log)
    inner.add_node("node", lambda s: {"log": ["child"]})
    inner.add_edge(START, "node")
    return inner.compile()


def reading_child():
    def node(state, runtime: Runtime[Context]):
        return {"log": [runtime.context.user]}

    inner = StateGraph(Log, context_schema=Context)
    inner.add_node("node", node)
    inner.add_edge(START, "node")
    return inner.compile()


def test_connection_in_the_context_that_the_child_does_not_use(way):
    """langgraph#5776 and #3441. The context holds an open connection, as LangGraph's own examples do. The parent's
    nodes use it; the nested graph declares no context at all. It must do no harm, as an object in `configurable`
    does none."""
    graph = way.parent(Log, context_schema=Context)
    graph.add_node("own", lambda s: {"log": ["own"]})
    graph.add_node("child", way.child(plain_child()))
    graph.add_edge(START, "own")
    graph.add_edge("own", "child")
    assert graph.compile().invoke({"log": []}, context=Context(threading.Lock()))["log"][-1] == "child"


def test_connection_beside_what_the_child_uses(way):
    """langgraph#5776. The same, and the nested graph reads another field of the context."""
    graph = way.parent(Log, context_schema=Context)
    graph.add_node("child", way.child(reading_child(), allow=[Context]))
    graph.add_edge(START, "child")
    assert graph.compile().invoke({"log": []}, context=Context(threading.Lock()))["log"] == ["ann"]


@pytest.mark.parametrize("saved", [False, True], ids=["no saver", "saver"])
@pytest.mark.parametrize("where", ["configurable", "metadata"])
def test_object_in_the_config(way, where, saved):
    """langgraph#3441. An object that is no data in config["configurable"], or in metadata, which nobody there uses. It
    does no harm, says docs/transparency.md: also where a checkpointer is at work."""
    graph = way.parent(Log)
    graph.add_node("child", way.child(plain_child()))
    graph.add_edge(START, "child")
    graph = graph.compile(checkpointer=InMemorySaver() if saved else None)
    config = {"configurable": {"thread_id": "1"}, "metadata": {}}
    config[where]["connection"] = threading.Lock()
    assert graph.invoke({"log": []}, config)["log"] == ["child"]


@pytest.mark.parametrize("verb", ["get_state", "get_state_history", "resume"])
def test_object_in_the_config_of_other_verbs(way, verb):
    """langgraph#3441, siblings: the state of a paused nested graph is read with such a config, and it goes on with
    it."""
    from langgraph.types import Command, interrupt

    inner = StateGraph(Log)
    inner.add_node("ask", lambda s: {"log": [interrupt("?")]})
    inner.add_edge(START, "ask")
    graph = way.parent(Log)
    graph.add_node("child", way.child(inner.compile()))
    graph.add_edge(START, "child")
    graph = graph.compile(checkpointer=InMemorySaver())
    graph.invoke({"log": []}, {"configurable": {"thread_id": "1"}})
    config = {"configurable": {"thread_id": "1", "connection": threading.Lock()}}
    if verb == "get_state":
        assert graph.get_state(config, subgraphs=True).tasks[0].state.next == ("ask",)
    elif verb == "get_state_history":
        assert len(list(graph.get_state_history(config))) >= 2
    else:
        assert graph.invoke(Command(resume="yes"), config)["log"] == ["yes"]


class Plan(BaseModel):
    steps: int = 1


class Office(MessagesState, total=False):
    plan: Plan


def chat_child():
    inner = StateGraph(MessagesState)
    inner.add_node("node", lambda s: {"messages": [AIMessage(f"sees {sorted(s)}")]})
    inner.add_edge(START, "node")
    return inner.compile()


def test_keys_of_the_parent_that_the_child_does_not_have(way):
    """langgraph#4182 and #6275. A parent has its own model in its state, the nested graph shares its messages only. A
    local nested graph is given what its schema names. A remote one needs no more, and must not fail for the rest."""
    graph = way.parent(Office)
    graph.add_node("child", way.child(chat_child()))
    graph.add_edge(START, "child")
    result = graph.compile().invoke({"messages": "hi", "plan": Plan(steps=2)})
    assert result["messages"][-1].text == "sees ['messages']"
    assert result["plan"] == Plan(steps=2)


def test_messages_of_a_remote_agent_are_messages(way):
    """langgraph#8885, langchain#40368. A tool calls an agent elsewhere and looks for its last AIMessage by class.
    Messages in the result are objects, of the classes that the local graph gives, also where the caller gave
    dicts."""
    inner = StateGraph(MessagesState)
    inner.add_node("node", lambda s: {"messages": [AIMessage("answer", id="a")]})
    inner.add_edge(START, "node")
    child = way.child(inner.compile())
    texts = []

    def call(state):
        result = child.invoke({"messages": [{"role": "user", "content": "hi"}]})
        assert all(isinstance(m, BaseMessage) for m in result["messages"])
        texts.append([m.text for m in result["messages"] if isinstance(m, AIMessage)][-1])
        texts.append(type(result["messages"][0]) is HumanMessage)

    graph = way.parent(MessagesState)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    graph.compile().invoke({"messages": []})
    assert texts == ["answer", True]
