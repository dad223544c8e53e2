"""Builders and compiled graphs, as the door reads and changes them."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.graph._branch import BranchSpec
from langgraph.graph._node import StateNodeSpec
from langgraph.graph.state import CompiledStateGraph
from langgraph.managed import RemainingSteps
from langgraph.types import Command

from agentmatrix.pregel import compiled_graph, state_graph
from tests.pregel.door import State, mend, names


class Managed(State):
    remaining: RemainingSteps


def builder() -> Any:
    made = StateGraph(Managed).add_node("a", lambda state: {"text": "a"}).add_node("b", lambda state: {}, defer=True)
    made.add_node("c", lambda state: {}, error_handler=lambda state: {})
    return made.add_edge(START, "a").add_edge(["a", "c"], "b").add_conditional_edges("a", router, ["c", END])


def router(state: State) -> str:
    return "c"


def test_a_builder_tells_what_it_has_been_told() -> None:
    made = builder()
    broken = mend("state_graph.py", "the attributes of StateGraph")
    assert state_graph.edges_of(made) == {(START, "a"), ("a", "b"), ("c", "b")}, broken
    assert state_graph.joins_of(made) == {(("a", "c"), "b")}, broken
    assert state_graph.default_error_handler(made) is None, broken
    assert state_graph.keys_of_schema(made, Managed) == ["text", "texts", "remaining"], broken
    assert list(state_graph.managed_values(made)) == ["remaining"], broken
    branch = state_graph.routers_of(made)["a"]["router"]
    assert branch.ends == {"c": "c", END: END} and branch.path.invoke({}) == "c" and branch.input_schema is State, (
        broken
    )
    other = state_graph.copy_builder(made)
    state_graph.add_join(other, ("b",), "later")
    other.add_node("d", lambda state: {})
    assert "d" not in made.nodes and other.compile is not None, broken
    assert isinstance(branch, BranchSpec)


def test_a_node_spec_has_the_fields_that_builders_read() -> None:
    read = {"runnable", "input_schema", "is_error_handler", "error_handler_node", "ends", "defer"}
    assert read <= names(StateNodeSpec), f"StateNodeSpec has lost {read - names(StateNodeSpec)}: mend compose/"
    nodes = builder().nodes
    assert nodes["b"].defer and nodes[nodes["c"].error_handler_node].is_error_handler


def test_a_compiled_graph_is_changed() -> None:
    graph = compiled_graph.as_class(builder().compile(), CompiledStateGraph)
    broken = mend("compiled_graph.py", "the attributes of a compiled graph or of PregelNode")
    assert compiled_graph.branch_channel("a") in graph.channels and compiled_graph.TASKS in graph.channels, broken
    assert sum(compiled_graph.ERROR_HANDLER in name for name in graph.nodes) == 1, broken
    compiled_graph.write_channel(graph, "a", "texts", ["written"])
    compiled_graph.set_node_runnable(graph, "a", RunnableLambda(lambda state: {"text": "other"}))
    inner = StateGraph(State).add_node("n", lambda state: {}).add_edge(START, "n").compile()
    compiled_graph.set_subgraphs(graph, "b", [inner])
    assert [name for name, _ in graph.get_subgraphs()] == ["b"], broken
    compiled_graph.add_hidden_node(graph, "hidden", RunnableLambda(lambda state: {"texts": ["hidden"]}), State)
    compiled_graph.set_stream_channels(graph, ["texts"])
    compiled_graph.set_stream_eager(graph)
    update, control = compiled_graph.answer_mappers(graph, "b")
    assert update({"text": "x"}) == [("text", "x")] and control(Command(goto="a")), broken
    assert State in compiled_graph.coercions_of(graph), broken
    values = [chunk for mode, chunk in graph.stream({}, stream_mode=["values", "updates"]) if mode == "values"]
    assert values[-1] == {"texts": ["written"]}, broken
