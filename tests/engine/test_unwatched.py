"""A run that nobody watches, without a handler or a reader of its stream: nodes see what they see in any other run."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler, adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.config import get_config, get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from agentmatrix import CyclicGraph, Dag

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
KINDS = [Dag, CyclicGraph, StateGraph]


def joined(left: list[Any], right: list[Any]) -> list[Any]:
    return left + right


class State(TypedDict, total=False):
    log: Annotated[list[Any], joined]


class Handler(BaseCallbackHandler):
    """Counts the beginnings of runs by name."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.custom: list[str] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str = "", **kwargs: Any) -> None:
        self.begun.append(name)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.custom.append(name)


def pair(kind: Any, first: Any, second: Any, **options: Any) -> Any:
    graph = kind(State)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    return graph.compile(**options)


def seen(state: State, config: RunnableConfig, runtime: Runtime) -> State:
    own = get_config()
    assert own["configurable"]["checkpoint_ns"] == config["configurable"]["checkpoint_ns"]
    assert "run_name" not in own
    get_stream_writer()("ignored")
    dispatch_custom_event("told", {"from": "node"})
    VARIABLE.set("changed")
    node, attempt = own["metadata"]["langgraph_node"], runtime.execution_info.node_attempt
    return {"log": [node, attempt, sorted(own.get("tags", []))]}


def reads(state: State) -> State:
    return {"log": [VARIABLE.get()]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_sees_its_own_config_and_changes_no_context_of_others(kind: Any) -> None:
    graph = pair(kind, seen, reads)
    assert graph.invoke({"log": []}, {"tags": ["t"]})["log"] == ["first", 1, ["t"], "none"]
    assert VARIABLE.get() == "none"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_async(kind: Any) -> None:
    async def aseen(state: State, config: RunnableConfig, runtime: Runtime) -> State:
        await adispatch_custom_event("told", {"from": "node"})
        return seen(state, config, runtime)

    async def areads(state: State) -> State:
        return reads(state)

    graph = pair(kind, aseen, areads)
    assert (await graph.ainvoke({"log": []}, {"tags": ["t"]}))["log"] == ["first", 1, ["t"], "none"]
    assert VARIABLE.get() == "none"


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_hears_of_every_node(kind: Any) -> None:
    handler = Handler()
    pair(kind, seen, reads).invoke({"log": []}, {"callbacks": [handler]})
    assert [name for name in handler.begun if name in ("first", "second")] == ["first", "second"]
    assert handler.custom == ["told"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_a_node_brings_hears_of_what_is_inside(kind: Any) -> None:
    handler = Handler()
    inner = RunnableLambda(lambda value: [value], name="inner")

    def node(state: State, config: RunnableConfig) -> State:
        return {"log": inner.invoke(1, {**config, "callbacks": [handler]})}

    pair(kind, node, reads).invoke({"log": []})
    assert handler.begun == ["inner"]


@pytest.mark.parametrize("kind", KINDS)
async def test_events_are_those_of_langgraph(kind: Any) -> None:
    async def node(state: State) -> State:
        return {"log": [1]}

    events = [event async for event in pair(kind, node, node).astream_events({"log": []}, version="v2")]
    begun = [event["name"] for event in events if event["event"] == "on_chain_start"]
    assert [name for name in begun if name in ("first", "second")] == ["first", "second"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_is_all_of_the_run(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    graph = pair(kind, lambda state: {"log": [1]}, lambda state: {"log": [2]})
    graph.invoke({"log": []}, print_mode="values")
    assert capsys.readouterr().out.count("[values]") == 3
    graph.invoke({"log": []}, print_mode=["updates"])
    assert capsys.readouterr().out.count("[updates]") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_parent_that_streams_its_graphs_reads_each_step_of_them(kind: Any) -> None:
    inner = pair(kind, lambda state: {"log": [1]}, lambda state: {"log": [2]})
    outer = pair(kind, inner, lambda state: {"log": [3]})
    parts = list(outer.stream({"log": []}, stream_mode="values", subgraphs=True))
    assert [part["log"] for namespace, part in parts if namespace] == [[], [1], [1, 2]]


ANSWERS: list[Any] = [
    None,
    {},
    {"log": [1]},
    [{"log": [1]}, {"log": [2]}],
    Command(update={"log": [1]}),
    Command(update=[("log", [1])], goto="second"),
    [{"log": [1]}, Command(goto=Send("second", {"log": [2]}))],
    Send("second", {}),
    5,
]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("answer", ANSWERS, ids=map(str, range(len(ANSWERS))))
def test_what_a_node_returns_means_what_it_means_in_langgraph(answer: Any, is_async: bool) -> None:
    async def answers(state: State) -> Any:
        return answer

    def outcome(kind: Any) -> Any:
        graph = pair(kind, answers if is_async else lambda state: answer, lambda state: {"log": [len(state["log"])]})
        try:
            return asyncio.run(graph.ainvoke({"log": [0]})) if is_async else graph.invoke({"log": [0]})
        except Exception as error:
            return type(error), str(error)

    assert outcome(Dag) == outcome(CyclicGraph) == outcome(StateGraph)
