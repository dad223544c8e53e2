"""Functions that make a graph for each run, as LangGraph's server knows them."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph_sdk.runtime import ServerRuntime
from typing_extensions import TypedDict

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.errors import AddressError, NotAnAgentError

events: list[str] = []


class State(TypedDict):
    said: str


def speaker(said: str) -> Any:
    return StateGraph(State).add_node("speak", lambda state: {"said": said}).add_edge(START, "speak")


def name_of(config: RunnableConfig) -> str:
    return f"for {config.get('configurable', {}).get('name')}"


def by_annotation(cfg: RunnableConfig) -> Any:
    return speaker(name_of(cfg))


def by_name(config):  # type: ignore[no-untyped-def]
    return speaker(name_of(config)).compile()


async def awaited(cfg: RunnableConfig) -> Any:
    return speaker(name_of(cfg))


@contextmanager
def opened(cfg: RunnableConfig) -> Iterator[Any]:
    events.append("open")
    try:
        yield speaker(name_of(cfg))
    finally:
        events.append("close")


@asynccontextmanager
async def aopened(cfg: RunnableConfig) -> AsyncIterator[Any]:
    events.append("open")
    try:
        yield speaker(name_of(cfg))
    finally:
        events.append("close")


def by_runtime(config: RunnableConfig, runtime: ServerRuntime[Any]) -> Any:
    user = runtime.user.identity if runtime.user is not None else None
    return speaker(f"{name_of(config)}, {runtime.access_context}, {user}")


FACTORIES: list[Callable[..., Any]] = [
    by_annotation,
    by_name,
    awaited,
    opened,
    aopened,
    functools.partial(by_annotation),
]


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: getattr(factory, "__name__", "partial"))
async def test_a_graph_is_made_for_each_run_with_its_config(verbs: Any, factory: Callable[..., Any]) -> None:
    with Host({"agent": factory}) as host:
        remote = RemoteAgent("agent", url=host.address)
        events.clear()
        for name in ("Ada", "Bob"):
            config: Any = {"configurable": {"name": name}}
            assert await verbs.invoke(remote, {"said": ""}, config) == {"said": f"for {name}"}
        assert events in ([], ["open", "close"] * 2)
        parent = Dag(State).add_node("inner", remote).compile()
        assert await verbs.invoke(parent, {"said": ""}, {"configurable": {"name": "Eve"}}) == {"said": "for Eve"}
        assert set(remote.card.schemas["input"]["properties"]) == {"said"}


async def test_the_graph_is_left_when_its_run_fails(verbs: Any) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def failing() -> AsyncIterator[Any]:
        try:
            yield StateGraph(State).add_node("fail", fail).add_edge(START, "fail")
        except ZeroDivisionError:
            seen.append("seen")
            raise

    def fail(state: State) -> State:
        raise ZeroDivisionError

    with Host({"agent": failing}) as host:
        with pytest.raises(ZeroDivisionError):
            await verbs.invoke(RemoteAgent("agent", url=host.address), {"said": ""})
        assert seen == ["seen"]


async def test_a_server_runtime_says_who_calls(verbs: Any) -> None:
    with Host({"agent": by_runtime}, tokens={"alice": "secret"}) as host:
        remote = RemoteAgent("agent", url=host.address, token="secret")
        said = (await verbs.invoke(remote, {"said": ""}))["said"]
    assert said == "for None, threads.create_run, alice"


async def test_no_machinery_of_langgraph_is_in_the_config(verbs: Any) -> None:
    seen: list[Any] = []

    def make(config: RunnableConfig) -> Any:
        seen.append(config)
        return speaker("")

    with Host({"agent": make}) as host:
        parent = Dag(State).add_node("inner", RemoteAgent("agent", url=host.address)).compile()
        await verbs.invoke(parent, {"said": ""}, {"configurable": {"name": "Ada"}, "tags": ["a"]})
    assert not any(key.startswith("__pregel") for config in seen for key in config["configurable"])
    assert seen[-1]["configurable"]["name"] == "Ada" and "a" in seen[-1]["tags"]


def test_a_function_of_a_state_is_an_agent_and_no_factory() -> None:
    def answer(state: State, config: RunnableConfig) -> State:
        return {"said": f"{state['said']}!"}

    def by_default(messages: Any = None) -> str:
        return "hello"

    graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile()
    with Host({"graph": graph, "by_default": by_default}) as host:
        assert RemoteAgent("graph", url=host.address).invoke({"said": "hi"}) == {"said": "hi!"}
        answer_of = RemoteAgent("by_default", url=host.address).invoke({"messages": "hi"})
        assert answer_of["messages"][-1].text == "hello"


@pytest.mark.parametrize("made", [None, 7, "graph"])
def test_what_makes_no_graph_is_one_sentence(made: Any) -> None:
    def make() -> Any:
        return made

    with pytest.raises(NotAnAgentError, match="has made a"):
        Host({"agent": make}).start()


def test_a_factory_that_needs_more_than_a_config_says_so_at_the_start() -> None:
    def make(config: RunnableConfig) -> Any:
        return speaker(config["configurable"]["model"])

    with pytest.raises(NotAnAgentError, match=r"make makes no graph from an empty config.*KeyError: 'model'"):
        Host({"agent": make}).start()


@pytest.mark.parametrize("name", ["a/b", "a b", ""])
def test_a_name_by_which_nobody_could_call_is_refused(name: str) -> None:
    graph = speaker("hello")
    for graphs in ({name: graph}, *([graph.compile(name=name)] if name else [])):
        with pytest.raises(AddressError, match="is not the name of an agent"):
            Host(graphs)
    with pytest.raises(AddressError, match="is not the name of an agent"):
        Host({}).add(name, graph)
