"""How a run takes its input: as a StateGraph's does, though START is no task where nobody would see one."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.types import Overwrite
from pydantic import BaseModel

from agentmatrix import CyclicGraph, Dag
from tests.conftest import Verbs


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    messages: Annotated[list[BaseMessage], add_messages]
    plain: int


class Checked(BaseModel):
    number: int = 7
    log: Annotated[list[str], operator.add] = []


def two(builder: Any, schema: Any = State, *, routed: bool = False) -> Any:
    graph = builder(schema)
    graph.add_node("a", lambda state: {"log": ["a"]}).add_node("b", lambda state: {"log": ["b"]})
    if routed:
        graph.add_conditional_edges(START, lambda state: "a", ["a"])
    else:
        graph.add_edge(START, "a")
    return graph.add_edge("a", "b").compile()


async def told(verbs: Verbs, graph: Any, given: Any, mode: Any, config: Any = None) -> Any:
    """What a run streams, or what it raises with its notes but for the ids of tasks."""
    try:
        return await verbs.listed(graph, "stream", given, config, stream_mode=mode)
    except Exception as error:
        notes = [note.partition(" and id ")[0] for note in getattr(error, "__notes__", ())]
        return type(error), str(error), notes


INPUTS: dict[str, Any] = {
    "keys": {"log": ["x"], "plain": 1},
    "some keys that are none": {"log": ["x"], "other": 1},
    "a message": {"messages": [HumanMessage("hello", id="1")]},
    "overwrite": {"log": Overwrite(["x"])},
    "nothing": {},
    "None": None,
    "no dict": "hello",
    "a value that its reducer refuses": {"log": 1},
}


@pytest.mark.parametrize("routed", [False, True], ids=["edge", "router"])
@pytest.mark.parametrize("mode", ["values", "updates", ["values", "updates", "custom"]], ids=str)
@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
async def test_as_a_state_graph(verbs: Verbs, given: Any, mode: Any, routed: bool) -> None:
    ours, theirs = two(Dag, routed=routed), two(StateGraph, routed=routed)
    assert await told(verbs, ours, given, mode) == await told(verbs, theirs, given, mode)


@pytest.mark.parametrize("given", [{}, {"number": 3}, {"number": "three"}, {"log": ["x"]}], ids=str)
async def test_a_schema_that_checks(verbs: Verbs, given: Any) -> None:
    ours, theirs = two(Dag, Checked), two(StateGraph, Checked)
    assert await told(verbs, ours, given, "values") == await told(verbs, theirs, given, "values")


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_the_recursion_limit_counts_the_same(verbs: Verbs, limit: int) -> None:
    config = {"recursion_limit": limit}
    found = [(await told(verbs, two(kind), {"log": []}, "updates", config))[-1] for kind in (Dag, StateGraph)]
    assert str(found[0]) == str(found[1])


async def test_a_message_has_an_id_from_the_start(verbs: Verbs) -> None:
    graph = Dag(MessagesState).add_node("a", lambda state: {"messages": [state["messages"][0].id]}).compile()
    first, second = (await verbs.invoke(graph, {"messages": ["hello"]}))["messages"]
    assert first.id and second.content == first.id


@pytest.mark.parametrize("config", [None, {}, {"configurable": {}}, {"configurable": {"user": 1}}], ids=repr)
@pytest.mark.parametrize("verb", ["invoke", "stream"])
@pytest.mark.parametrize("builder", [Dag, CyclicGraph])
async def test_a_run_without_a_thread_is_refused_as_in_langgraph(
    verbs: Verbs, builder: Any, verb: str, config: Any
) -> None:
    refusals = []
    for kind in (StateGraph, builder):
        graph = two(kind).copy({"checkpointer": InMemorySaver()})
        with pytest.raises((ValueError, KeyError)) as refusal:
            await (verbs.call(graph, verb, {}, config) if verb == "invoke" else verbs.listed(graph, verb, {}, config))
        refusals.append((refusal.type, str(refusal.value)))
    assert refusals[0] == refusals[1]
