"""What a schema makes of a nested graph's input: defaults and validated values reach the state around."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel, Field, field_validator

from agentmatrix import CyclicGraph, Dag
from agentmatrix.testing import loopback

KINDS = [Dag, CyclicGraph]
PLACES = ["local", "remote"]


class Form(BaseModel):
    name: str
    count: int = 1
    tags: list[str] = Field(default_factory=list)
    log: Annotated[list[str], operator.add] = Field(default_factory=list)

    @field_validator("name")
    @classmethod
    def capital(cls, value: str) -> str:
        return value.capitalize()


@dataclass
class Record:
    name: str
    tags: list[str] = field(default_factory=list)
    log: Annotated[list[str], operator.add] = field(default_factory=list)


def chain(kind: Any, schema: Any, place: str = "local", inside: Any = StateGraph) -> Any:
    inner = inside(schema).add_node("n", lambda state: {"log": [f"{state.name} {state.tags}"]}).add_edge(START, "n")
    child = inner.compile()
    graph = kind(schema).add_node("first", lambda state: {"log": ["first"]})
    graph.add_node("child", loopback(child, allow=[schema]) if place == "remote" else child)
    return graph.add_edge(START, "first").add_edge("first", "child").compile()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("schema", [Form, Record])
@pytest.mark.parametrize("inside", [StateGraph, Dag])
def test_a_chain_has_what_the_schema_made_of_its_input(kind: Any, place: str, schema: Any, inside: Any) -> None:
    given = {"name": "ann"}
    assert chain(kind, schema, place, inside).invoke(given) == chain(StateGraph, schema).invoke(given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_defaults_of_graphs_on_parallel_branches_do_not_collide(kind: Any, place: str) -> None:
    graph = kind(Form)
    for name in "ab":
        inner = StateGraph(Form).add_node("n", lambda state, name=name: {"log": [name]}).add_edge(START, "n").compile()
        graph.add_node(name, loopback(inner, allow=[Form]) if place == "remote" else inner)
        graph.add_edge(START, name)
    assert graph.compile().invoke({"name": "ann"}) == {"name": "ann", "log": ["a", "b"]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_was_sent_is_no_change_of_the_state(kind: Any) -> None:
    inner = StateGraph(Form).add_node("n", lambda state: {"log": [state.name]}).add_edge(START, "n").compile()
    graph = kind(Form).add_node("first", lambda state: {"log": ["first"]}).add_node("child", inner)
    graph.add_edge(START, "first")
    graph.add_conditional_edges("first", lambda state: [Send("child", Form(name=name)) for name in "xy"], ["child"])
    assert graph.compile().invoke({"name": "ann"}) == {"name": "ann", "log": ["first", "X", "Y"]}
