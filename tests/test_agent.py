"""Anything that answers is an agent."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from agentmatrix.agent import as_agent
from agentmatrix.chat import ChatGroup
from agentmatrix.compose import CyclicGraph, Dag
from agentmatrix.errors import NotAnAgentError
from agentmatrix.testing.scripted import ScriptedChatModel


def of_state(state: MessagesState) -> str:
    return f"state of {len(state['messages'])}"


def of_messages(messages: list[BaseMessage]) -> BaseMessage:
    return AIMessage(f"last was {messages[-1].text}")


async def of_any_messages(messages: Sequence[AnyMessage], config: RunnableConfig) -> list[BaseMessage]:
    assert config["metadata"]
    return [AIMessage("one"), AIMessage("two", name="kept")]


def of_humans_or_ais(messages: list[HumanMessage | AIMessage], *, runtime: Runtime[Any]) -> dict[str, Any]:
    return {"messages": [("ai", f"{len(messages)} {runtime.store}")]}


class Bot:
    def __call__(self, messages: list[BaseMessage]) -> str:
        return "bot"


class AsyncBot:
    async def __call__(self, state: MessagesState) -> Command[Any]:
        return Command(update={"messages": [AIMessage("async bot")]})


def prefixed(prefix: str, messages: list[BaseMessage]) -> str:
    return prefix + messages[-1].text


MODEL = ScriptedChatModel("model", cycle=True)

AGENTS: dict[str, tuple[Any, list[str]]] = {
    "function of the state": (of_state, ["state of 1"]),
    "function of messages": (of_messages, ["last was hi"]),
    "async function of messages": (of_any_messages, ["one", "two"]),
    "function with injected runtime": (of_humans_or_ais, ["1 None"]),
    "callable object": (Bot(), ["bot"]),
    "async callable object": (AsyncBot(), ["async bot"]),
    "partial": (functools.partial(prefixed, "re: "), ["re: hi"]),
    "lambda": (lambda state: [AIMessage("lambda")], ["lambda"]),
    "nothing to say": (lambda state: None, []),
    "chat model": (MODEL, ["model"]),
    "bound chat model": (MODEL.bind_tools([of_state]), ["model"]),
    "model with fallbacks": (MODEL.with_fallbacks([MODEL]), ["model"]),
    "chain that begins with a model": (MODEL | StrOutputParser(), ["model"]),
    "runnable": (RunnableLambda(lambda state: f"runnable {len(state['messages'])}"), ["runnable 1"]),
}


@pytest.mark.parametrize("builder", [Dag, CyclicGraph])
@pytest.mark.parametrize("kind", AGENTS)
async def test_a_node_of_a_graph(builder: Any, kind: str) -> None:
    agent, answers = AGENTS[kind]
    graph = builder()
    graph.add_node("it", agent)
    graph.add_edge(START, "it")
    messages = (await graph.compile().ainvoke({"messages": "hi"}))["messages"][1:]
    assert [message.text for message in messages] == answers
    assert {message.name for message in messages} <= {"it", "kept", None}


@pytest.mark.parametrize("kind", [kind for kind in AGENTS if "async" not in kind])
def test_a_node_of_langgraphs_own_builder(kind: str) -> None:
    agent, answers = AGENTS[kind]
    graph = StateGraph(MessagesState)
    graph.add_node("it", as_agent(agent, name="author"))
    graph.add_edge(START, "it")
    messages = graph.compile().invoke({"messages": [HumanMessage("hi")]})["messages"][1:]
    assert [message.text for message in messages] == answers


def test_graphs_stay_themselves_and_builders_are_compiled() -> None:
    inner = StateGraph(MessagesState)
    inner.add_node("n", as_agent(of_state))
    inner.add_edge(START, "n")
    compiled = inner.compile()

    @entrypoint()
    def functional(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [AIMessage("functional")]}

    assert as_agent(compiled) is compiled
    assert as_agent(functional) is functional
    dag = Dag(name="outer")
    dag.add_node("graph", compiled)
    dag.add_node("functional", functional)
    dag.add_node("builder", inner)
    dag.add_node("group", ChatGroup({"a": MODEL}, stop=lambda state: len(state["messages"]) > 4))
    dag.add_sequence([("last", Dag().add_node(of_state))])
    for before, after in [("graph", "functional"), ("functional", "builder"), ("builder", "group"), ("group", "last")]:
        dag.add_edge(before, after)
    graph = dag.compile()
    texts = [message.text for message in graph.invoke({"messages": "hi"})["messages"]]
    assert texts == ["hi", "state of 1", "functional", "state of 3", "model", "state of 5"]
    assert [name for name, _ in graph.get_subgraphs()] == ["graph", "functional", "builder", "group", "last"]


@pytest.mark.parametrize("wrong", [42, "text", None, {"a": 1}, ScriptedChatModel])
def test_what_is_no_agent_is_refused(wrong: Any) -> None:
    with pytest.raises(NotAnAgentError, match="is no agent"):
        as_agent(wrong)


def test_a_text_is_no_answer_where_the_state_has_no_messages() -> None:
    dag = Dag(dict)
    dag.add_node("node", lambda state: {"said": "as it is"})
    assert dag.compile().invoke({}) == {"said": "as it is"}
