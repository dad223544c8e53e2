"""A graph as a tool of a model."""

from typing import Literal

import pytest
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import START, StateGraph
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict

from agentmatrix.testing import loopback


class Address(BaseModel):
    street: str = Field(description="the street")


class Query(BaseModel):
    topic: str = Field(description="the topic")
    count: int = 3
    kind: Literal["long", "short"] = "long"
    address: Address | None = None
    tags: list[str] = Field(default_factory=list)


class Search(Query):
    out: str = ""


class TypedQuery(TypedDict):
    topic: str
    count: int


class TypedSearch(TypedQuery, total=False):
    out: str


def model_graph(builder=StateGraph):
    graph = builder(Search, input_schema=Query)
    graph.add_node("search", lambda s: {"out": f"{s.topic} {s.count} {s.kind} {type(s.address).__name__} {s.tags}"})
    graph.add_edge(START, "search")
    return graph.compile(name="search")


def typed_graph(builder=StateGraph):
    graph = builder(TypedSearch, input_schema=TypedQuery)
    graph.add_node("search", lambda s: {"out": f"{s['topic']} {s['count']}"})
    graph.add_edge(START, "search")
    return graph.compile(name="search")


@pytest.mark.parametrize("make", [model_graph, typed_graph])
@pytest.mark.builders("state", "dag")
def test_what_a_model_is_told_of_a_graph_as_a_tool(make, builder):
    """langchain#38713. A supervisor's model has graphs as tools (`graph.as_tool()`). What it is told of the arguments -
    types, descriptions, choices, defaults - must be the same for a remote graph."""
    local = make(builder)
    told = [convert_to_openai_tool(g.as_tool(name="search", description="Search.")) for g in (local, loopback(local))]
    assert told[1] == told[0]


@pytest.mark.parametrize(
    "arguments",
    [{"count": 1}, {"topic": "x", "kind": "middle"}, {"topic": "x", "count": "many"}],
    ids=["missing", "choice", "type"],
)
def test_arguments_that_do_not_fit(arguments):
    """langchain#38713, a sibling. Bad arguments are refused before the graph is called, by a ValidationError that a
    tool node can hand back to the model."""
    local = model_graph()
    texts = []
    for graph in (local, loopback(local)):
        with pytest.raises(ValidationError) as caught:
            graph.as_tool(name="search", description="Search.").invoke(arguments)
        texts.append([(e["loc"], e["type"]) for e in caught.value.errors()])
    assert texts[1] == texts[0]


def test_input_schema_takes_what_the_local_one_takes():
    """A sibling: `graph.get_input_schema()` is a pydantic model. It turns a text into a number and refuses what
    does not fit, as the local graph's does."""
    local = model_graph()
    for graph in (local, loopback(local)):
        schema = graph.get_input_schema()
        assert schema.model_validate({"topic": "x", "count": "5"}).count == 5
        assert schema(topic="x").kind == "long"
        with pytest.raises(ValidationError):
            schema.model_validate({"topic": "x", "count": "many"})
