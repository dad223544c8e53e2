"""What a remote graph says of its input: to a model that has it as a tool, and to whoever validates against it."""

from __future__ import annotations

import datetime
import enum
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NotRequired

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from agentmatrix import Dag, Host, RemoteAgent
from tests.conftest import Verbs

pytestmark = pytest.mark.filterwarnings("ignore:This API is in beta")


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    """Where somebody lives."""

    street: str = Field(description="the street")
    number: int = Field(1, ge=1, le=999)
    tags: list[str] = Field(default_factory=list)
    mood: Mood = Mood.GOOD


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str = Field(min_length=2, pattern="^[a-z]+$")


class Node(BaseModel):
    name: str
    below: list[Node] = []


@dataclass
class Place:
    """A place."""

    town: str
    at: tuple[float, float] = (0.0, 0.0)
    names: list[str] = field(default_factory=list)


class Inner(TypedDict):
    a: int
    b: NotRequired[str]


class Wide(BaseModel):
    """What is asked."""

    topic: str = Field(description="the topic", examples=["cats"])
    count: int = 3
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    kind: Literal["long", "short"] = "long"
    mood: Mood = Mood.BAD
    level: Level | None = None
    address: Address | None = None
    home: Address = Address(street="here")
    places: list[Place] = Field(default_factory=list)
    when: datetime.datetime | None = None
    day: datetime.date = datetime.date(2026, 1, 1)
    either: int | str | list[int] = 1
    table: dict[str, Address] = Field(default_factory=dict)
    words: set[str] = Field(default_factory=set)
    pair: tuple[int, str] = (1, "a")
    inner: Inner | None = None
    strict: Strict | None = None
    free: Any = None
    flag: bool = False


class Typed(TypedDict):
    topic: Annotated[str, Field(description="the topic")]
    address: Address
    mood: NotRequired[Mood]
    places: list[Place]
    inner: Inner


@dataclass
class Data:
    topic: str
    address: Address | None = None


class Out(TypedDict, total=False):
    out: Any


SCHEMAS: list[Any] = [Wide, Typed, Data, MessagesState, Address, Strict]


def graph_of(schema: Any, builder: Any = StateGraph) -> Any:
    class State(TypedDict, total=False):
        out: Any

    def node(state: schema) -> Out:  # type: ignore[valid-type]
        return {"out": repr(state)}

    graph = builder(State, input_schema=schema, output_schema=Out)
    graph.add_node("node", node, input_schema=schema)
    graph.add_edge(START, "node")
    return graph.compile(name="search")


@pytest.fixture
def hosted() -> Iterator[Any]:
    """Hosts a graph as a stranger does: here no class of its is listed."""
    hosts: list[Host] = []

    def host(graph: Any) -> RemoteAgent:
        hosts.append(Host({"search": graph}).start())
        return RemoteAgent(f"{hosts[-1].address}/search")

    yield host
    for one in hosts:
        one.stop()


def told(graph: Any) -> Any:
    return convert_to_openai_tool(graph.as_tool(name="search", description="Search."))


@pytest.mark.parametrize("builder", [StateGraph, Dag])
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_a_model_is_told_the_same(hosted: Any, schema: Any, builder: Any) -> None:
    local = graph_of(schema, builder)
    remote = hosted(local)
    assert told(remote) == told(local)
    assert remote.get_input_jsonschema() == local.get_input_jsonschema()
    assert remote.get_input_schema().model_json_schema() == local.get_input_schema().model_json_schema()
    assert remote.get_output_schema().model_json_schema() == local.get_output_schema().model_json_schema()


CALLS: list[tuple[Any, dict[str, Any]]] = [
    (Wide, {"topic": "x"}),
    (Wide, {"topic": "x", "count": "5", "mood": "good", "level": 2, "kind": "short", "when": "2026-01-02T03:04:05Z"}),
    (Wide, {"topic": "x", "address": {"street": "a", "number": 7}, "inner": {"a": 1}, "strict": {"word": "ab"}}),
    (Wide, {"topic": "x", "places": [{"town": "Rome", "at": [1, 2]}], "table": {"k": {"street": "b"}}, "words": ["w"]}),
    (Wide, {"topic": "x", "either": [1, 2], "pair": [2, "b"], "free": {"a": [1]}, "flag": True, "day": "2026-02-03"}),
    (Typed, {"topic": "x", "address": {"street": "a"}, "mood": "bad", "places": [{"town": "R"}], "inner": {"a": 1}}),
    (Data, {"topic": "x", "address": {"street": "a"}}),
]


def answered(graph: Any, arguments: dict[str, Any]) -> Any:
    """What the graph as a tool returns. Older releases of LangChain's tools take no state that is an object."""
    try:
        return graph.as_tool(name="s", description="S").invoke(arguments)
    except AttributeError as error:
        return type(error)


@pytest.mark.parametrize(("schema", "arguments"), CALLS)
def test_the_graph_is_given_the_same(hosted: Any, schema: Any, arguments: dict[str, Any]) -> None:
    local = graph_of(schema)
    results = [answered(graph, arguments) for graph in (local, hosted(local))]
    assert results[1] == results[0]


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        *((Wide, {"count": 1}), (Wide, {"topic": "x", "kind": "middle"}), (Wide, {"topic": "x", "count": "many"})),
        *((Wide, {"topic": "x", "ratio": 2}), (Wide, {"topic": "x", "address": {"number": 1}})),
        *((Wide, {"topic": "x", "address": {"street": "a", "number": 0}}), (Wide, {"topic": "x", "mood": "sad"})),
        *((Strict, {"word": "A"}), (Strict, {"word": "ab", "more": 1}), (Typed, {"topic": "x"})),
    ],
)
def test_what_does_not_fit_is_refused_before_the_call(hosted: Any, schema: Any, arguments: dict[str, Any]) -> None:
    local = graph_of(schema)
    found = []
    for graph in (local, hosted(local)):
        with pytest.raises(ValidationError) as caught:
            graph.as_tool(name="s", description="S").invoke(arguments)
        found.append([(error["loc"], error["type"]) for error in caught.value.errors()])
    assert found[1] == found[0]


def test_arguments_that_are_left_out_stay_out(hosted: Any) -> None:
    """A factory's value is the graph's to make, here and inside of nothing that was given."""

    class Ask(BaseModel):
        topic: str
        tags: list[str] = Field(default_factory=lambda: ["from the graph"])

    remote = hosted(graph_of(Ask))
    assert "from the graph" in remote.as_tool(name="s", description="S").invoke({"topic": "x"})["out"]
    assert remote.get_input_schema()(topic="x").model_dump() == {"topic": "x"}


def test_an_object_of_the_input_schema_is_an_input(hosted: Any) -> None:
    remote = hosted(graph_of(Wide))
    given = remote.get_input_schema()(topic="x", address={"street": "a"})
    assert given.address.street == "a" and given.kind == "long"
    out = remote.invoke(given)["out"]
    assert "address=Address(street='a', number=1" in out and "topic='x'" in out
    assert remote.invoke({"topic": "y", "address": given.address})["out"].startswith("Wide(topic='y'")


def test_messages_are_messages(hosted: Any) -> None:
    def node(state: Any) -> Any:
        return {"out": [type(message).__name__ for message in state["messages"]]}

    class State(MessagesState, total=False):
        out: list[str]

    local = StateGraph(State, input_schema=MessagesState).add_node("node", node).add_edge(START, "node").compile()
    remote = hosted(local)
    for graph in (local, remote):
        schema = graph.get_input_schema()
        root = schema.model_validate({"messages": [{"type": "human", "content": "hi"}]}).root  # type: ignore[attr-defined]
        assert type(root["messages"][0]) is HumanMessage
        assert graph.invoke(root)["out"] == ["HumanMessage"]


def test_what_contains_itself(hosted: Any) -> None:
    class Ask(BaseModel):
        tree: Node

    remote = hosted(graph_of(Ask))
    result = remote.invoke(remote.get_input_schema()(tree={"name": "a", "below": [{"name": "b"}]}))
    assert "Node(name='b'" in result["out"]


def test_a_functional_graph(hosted: Any) -> None:
    @entrypoint()
    def shout(text: str) -> str:
        return text.upper()

    remote = hosted(shout)
    assert remote.get_input_jsonschema() == shout.get_input_jsonschema()
    assert remote.as_tool(name="s", description="S").invoke("hi") == "HI"


def test_the_schema_of_the_config(hosted: Any) -> None:
    @dataclass
    class Context:
        user: str
        mood: Mood = Mood.GOOD

    class Model(BaseModel):
        user: str = Field("ann", description="who asks")

    for context in (Context, Model, None):
        builder = StateGraph(Out, context_schema=context).add_node("n", lambda state: {}).add_edge(START, "n")
        local = builder.compile(name="search")
        remote = hosted(local)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for include in (None, ["tags", "metadata", "configurable"]):
                assert remote.get_config_jsonschema(include=include) == local.get_config_jsonschema(include=include)
        assert remote.get_context_jsonschema() == local.get_context_jsonschema()


def test_reading_a_type_touches_no_network() -> None:
    remote = RemoteAgent("127.0.0.1:1/nobody")
    assert remote.InputType is Any and remote.OutputType is Any


class Order(TypedDict, total=False):
    count: int


class PricedOrder(Order, total=False):
    price: int


def cost(state: Any) -> Any:
    return {"count": state["count"] * state.get("price", 1)}


def of_orders(schema: Any) -> Any:
    return StateGraph(schema).add_node("cost", cost).add_edge(START, "cost").compile()


async def test_a_host_that_was_started_again_with_another_state_is_sent_its_keys(verbs: Verbs) -> None:
    """As in a notebook whose cells are run again, and in a service that outlives a deployment of its host."""
    with TemporaryDirectory() as folder:
        address = f"unix:{folder}/host.sock"
        remote = RemoteAgent(f"{address}/orders", reconnect_timeout=0)
        with Host({"orders": of_orders(Order)}, address=address):
            assert await verbs.invoke(remote, {"count": 2, "price": 3}) == {"count": 2}
            parent = Dag(PricedOrder).add_node("orders", remote).compile()
            assert await verbs.invoke(parent, {"count": 2, "price": 3}) == {"count": 2, "price": 3}
        with Host({"orders": of_orders(PricedOrder)}, address=address):
            assert await verbs.invoke(remote, {"count": 2, "price": 3}) == {"count": 6, "price": 3}
            assert await verbs.invoke(parent, {"count": 2, "price": 3}) == {"count": 6, "price": 3}
            assert (await verbs.listed(remote, "stream", {"count": 2, "price": 3}))[-1] == {"cost": {"count": 6}}
