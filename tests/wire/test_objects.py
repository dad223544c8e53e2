"""Models, dataclasses, messages and LangGraph's values come back equal, with their class and what hides behind it."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import threading
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pydantic.dataclasses
import pydantic.v1
import pytest
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk, LLMResult, RunInfo
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.errors import NodeError
from langgraph.runtime import ExecutionInfo, ServerInfo
from langgraph.store.base import GetOp, Item, ListNamespacesOp, MatchCondition, PutOp, SearchItem, SearchOp
from langgraph.types import (
    CacheKey,
    Command,
    GraphOutput,
    Interrupt,
    Overwrite,
    PregelTask,
    Send,
    StateSnapshot,
    StateUpdate,
    TimeoutPolicy,
)
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    computed_field,
    field_validator,
    model_validator,
)

from agentmatrix.errors import DecodeError, EncodeError
from agentmatrix.wire.codec import Codec

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
T = TypeVar("T")


class Mood(enum.Enum):
    GOOD = "good"


class Leaf(BaseModel):
    name: str
    mood: Mood = Mood.GOOD


class Oak(Leaf):
    rings: int = 1


class Tree(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    leaf: Leaf
    many: list[Leaf] = []
    size: float = 0
    tags: set[str] = Field(default_factory=set)
    pair: tuple[int, str] = (1, "a")
    given: int = Field(default=1, alias="givenBy", gt=0)
    secret: str = Field(default="s", exclude=True)
    parent: Tree | None = None
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> float:
        return self.size * 2

    @functools.cached_property
    def thrice(self) -> float:
        return self.size * 3


class Own(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int
    _counted: int = 3
    _unset: int

    def model_post_init(self, context: Any) -> None:
        self._counted += 1


class Guarded(BaseModel):
    _counts: dict[str, int] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


class Shouted(BaseModel):
    text: str
    day: Annotated[datetime, BeforeValidator(datetime.fromisoformat)]

    @field_validator("text")
    @classmethod
    def shout(cls, value: str) -> str:
        return value + "!"


class Even(BaseModel):
    number: int

    @model_validator(mode="after")
    def even(self) -> Even:
        if self.number % 2:
            raise ValueError("an odd number")
        self.number += 2
        return self


class Box(BaseModel, Generic[T]):
    content: T


class Names(RootModel[list[str]]):
    pass


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    kind: Literal["a", "b"]


class Old(pydantic.v1.BaseModel):
    number: int
    names: list[str] = []


@dataclasses.dataclass
class Plain:
    x: int
    y: list[Any] = dataclasses.field(default_factory=list)
    z: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.z = self.x + 1
        self.more = "kept"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    y: int = 0


@pydantic.dataclasses.dataclass
class Checked:
    x: int
    many: list[Leaf]

    @model_validator(mode="after")
    def sane(self) -> Checked:
        if self.x == 13:
            raise ValueError("thirteen")
        return self


class Pair(NamedTuple):
    left: Any
    right: int = 2


class Ordinary:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ordinary) and self.x == other.x

    def __repr__(self) -> str:
        return f"Ordinary({self.x})"


CODEC = Codec(
    [Tree, Own, Guarded, Oak, Shouted, Even, Box[int], Names, Frozen, Old, Plain, Point, Checked, Pair, Ordinary]
)

MESSAGES = [
    HumanMessage("hi", id="1", name="user", additional_kwargs={"a": (1, 2)}),
    HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "url": "x"}]),
    HumanMessage("hi", example=True, own="extra"),
    AIMessage(
        "",
        tool_calls=[{"name": "f", "args": {"x": [1]}, "id": "c", "type": "tool_call"}],
        invalid_tool_calls=[{"name": "g", "args": "{", "id": "d", "error": "bad", "type": "invalid_tool_call"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_token_details": {"audio": 1}},
        response_metadata={"model_name": "m", "logprobs": None},
    ),
    AIMessageChunk("a", tool_call_chunks=[{"name": "f", "args": '{"x"', "id": "c", "index": 0}], chunk_position="last"),
    AIMessage(content_blocks=[{"type": "text", "text": "a"}, {"type": "reasoning", "reasoning": "b"}]),
    HumanMessageChunk("a"),
    SystemMessage("be nice"),
    ToolMessage("done", tool_call_id="c", artifact={"rows": [Leaf(name="x")]}, status="error"),
    FunctionMessage("x", name="f"),
    ChatMessage("x", role="judge"),
    RemoveMessage("7"),
]
SNAPSHOT = StateSnapshot(
    values={"messages": MESSAGES[:1]},
    next=("a",),
    config={"configurable": {"thread_id": "1"}},
    metadata={"source": "loop", "step": 1, "parents": {}},
    created_at="2026",
    parent_config=None,
    tasks=(PregelTask("id", "a", ("__pregel_pull", "a"), None, (Interrupt("q", id="i"),), None, {"x": 1}),),
    interrupts=(Interrupt("q", id="i"),),
)


@pytest.mark.parametrize(
    "value",
    [
        *MESSAGES,
        Document("text", id="d", metadata={"page": 1}),
        StringPromptValue(text="x"),
        ChatPromptValue(messages=MESSAGES[:2]),
        Generation(text="x"),
        GenerationChunk(text="x", generation_info={"a": 1}),
        ChatGeneration(message=AIMessage("x")),
        ChatGenerationChunk(message=AIMessageChunk("x")),
        LLMResult(generations=[[ChatGeneration(message=AIMessage("x"))]], run=[RunInfo(run_id="0" * 32)]),  # type: ignore[arg-type]
        AgentAction("t", {"a": 1}, "log"),
        AgentFinish({"output": 1}, "log"),
        Command(goto=[Send("a", {"x": (1,)}), "b"], update={"x": 1}, graph=Command.PARENT),
        Command(resume={"i": 1}),
        Send("a", Leaf(name="x"), timeout=2.5),
        Interrupt({"ask": "?"}, id="i", response_schema={"type": "object"}),
        Overwrite([1]),
        SNAPSHOT,
        StateUpdate({"a": 1}, "node"),
        CheckpointTuple({"configurable": {}}, empty_checkpoint(), {}, None, [("t", "c", Send("a", 1))]),
        TimeoutPolicy(run_timeout=1.5),
        CacheKey(("a",), "k", 3),
        ExecutionInfo("c", "ns", "t", run_id="r"),
        ServerInfo("a", "g"),
        GraphOutput({"x": 1}, (Interrupt(1, id="i"),)),
        Item(value={"a": 1}, key="k", namespace=("a", "b"), created_at=NOW, updated_at=NOW),
        GetOp(("a",), "k"),
        PutOp(("a",), "k", {"v": 1}, index=["v"]),
        SearchOp(("a",), filter={"x": {"$gt": 1}}),
        ListNamespacesOp((MatchCondition("prefix", ("a", "*")),)),
        Leaf(name="x"),
        Oak(name="x", rings=7),
        Tree(leaf=Oak(name="x"), givenBy=3, tags={"a"}, parent=Tree(leaf=Leaf(name="y")), own=(1, 2)),
        Own(x=1, more=2),
        Shouted(text="hey", day="2026-01-01"),  # type: ignore[arg-type]
        Even(number=2),
        Box[int](content=1),
        Names(["a", "b"]),
        Frozen(kind="a"),
        Old(number=1, names=["a"]),
        Plain(1, [(2,)]),
        Point(x=1),
        Checked(1, [Oak(name="x")]),
        Pair((1,), 3),
        Ordinary(3),
        [Mood.GOOD, Mood],
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_comes_back_as_it_was(value: Any) -> None:
    before = copy.deepcopy(value)
    back = CODEC.decode(CODEC.encode(value))
    assert type(back) is type(value)
    assert back == before
    assert repr(back) == repr(value)
    if isinstance(value, BaseModel):
        assert back.model_fields_set == value.model_fields_set
        assert back.model_extra == value.model_extra
        assert list(back.model_dump()) == list(value.model_dump())


def test_a_search_item_keeps_its_score() -> None:
    item = SearchItem(value={}, key="k", namespace=("a",), created_at=NOW, updated_at=NOW, score=0.5)
    assert CODEC.decode(CODEC.encode(item)).score == 0.5


def test_a_message_that_came_through_works_on() -> None:
    back = CODEC.decode(CODEC.encode(AIMessageChunk("a", id="1")))
    assert (back + AIMessageChunk("b", id="1")).content == "ab"
    assert back.model_copy(update={"name": "x"}).name == "x"
    copy.deepcopy(back).name = "y"


def test_a_private_attribute_crosses_if_it_can_and_else_takes_its_default() -> None:
    guarded = Guarded()
    guarded._counts["a"] = 1
    back = CODEC.decode(CODEC.encode(guarded))
    assert back._counts == {"a": 1}
    assert back._lock is not guarded._lock and back._lock.acquire(blocking=False)


def test_an_attribute_beside_the_fields_of_a_dataclass_crosses() -> None:
    value = Plain(1)
    value.z = 9
    back = CODEC.decode(CODEC.encode(value))
    assert back.more == "kept" and back.z == 9


def test_a_field_that_cannot_cross_is_named_with_its_path() -> None:
    with pytest.raises(EncodeError, match=r'state\["docs"\]\[2\]\.metadata\["f"\]: a function'):
        CODEC.encode({"docs": [1, 2, Document("x", metadata={"f": print})]}, "state")
    with pytest.raises(EncodeError, match=r"state\.goto\[0\]\.arg: a function"):
        CODEC.encode(Command(goto=[Send("a", len)]), "state")


def test_an_ordinary_object_of_an_unlisted_class_is_refused_with_the_option() -> None:
    with pytest.raises(EncodeError, match=r"allow=\[.*Ordinary\]"):
        Codec().encode([Ordinary(1)])


def test_a_model_built_without_validation_crosses_if_its_fields_are_valid() -> None:
    right = Leaf.model_construct(name="x", mood=Mood.GOOD)
    assert CODEC.decode(CODEC.encode(right)) == right
    wrong = Leaf.model_construct(name=7)
    with pytest.raises(DecodeError, match=r'state\["leaf"\]\.name: not a valid Leaf'):
        CODEC.decode(CODEC.encode({"leaf": wrong}), "state")


def test_an_exception_is_a_value_too() -> None:
    back = CODEC.decode(CODEC.encode(NodeError("n", ValueError("bad"))))
    assert back.node == "n" and type(back.error) is ValueError and back.error.args == ("bad",)


def test_a_pydantic_dataclass_is_checked_as_a_model_is() -> None:
    for name, value in (("x", "one"), ("x", 13), ("many", [1])):
        wrong = Checked(1, [])
        setattr(wrong, name, value)
        with pytest.raises(DecodeError, match="not a valid Checked"):
            CODEC.decode(CODEC.encode(wrong))


@pytest.mark.parametrize(
    "changes",
    [
        {"usage_metadata": {"total_cost": 0}},  # of a cached answer
        {"usage_metadata": {"input_tokens": 1.5, "output_tokens": None, "input_token_details": {"audio": None}}},
        {"usage_metadata": {}},
        {"tool_calls": [{"name": "f", "args": {}}]},
        {"tool_calls": [{"name": "f", "args": {}, "id": None, "type": "function", "extra": 1}]},
        {"invalid_tool_calls": [{"error": "bad"}]},
        {"content": None},
        {"additional_kwargs": None, "response_metadata": None},
        {"content": ["a", {"type": "text", "text": "b"}, {"type": "new", "n": [1]}]},
    ],
)
@pytest.mark.parametrize("cls", [AIMessage, AIMessageChunk])
def test_a_message_is_taken_as_a_library_left_it(cls: Any, changes: dict[str, Any]) -> None:
    message = cls("x", id="1")
    for name, value in changes.items():
        setattr(message, name, value)
    back = CODEC.decode(CODEC.encode(message))
    assert type(back) is cls and back.__dict__ == message.__dict__
