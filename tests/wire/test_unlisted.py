"""Objects of classes that the other side does not have: as dicts, stored, and back as what they were."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel, ConfigDict, PrivateAttr

from agentmatrix.errors import EncodeError, TypeNotAllowed
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.unlisted import STORED_TYPE, UnlistedValue


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Callables(enum.Enum):
    FIRST = len


class Point(NamedTuple):
    x: Any
    y: Any = 0


class Plan(BaseModel):
    steps: Any = 1
    mood: Any = Mood.GOOD
    _seen: int = PrivateAttr(default=0)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str = ""


@dataclasses.dataclass
class Note:
    text: Any = ""
    plan: Any = None


class Report(dict[str, Any]):
    """A subclass of a dict."""


class Table(OrderedDict[str, Any]):
    """Of an ordered one."""


class Markdown(str):
    """Of a string."""


class Ordinary:
    def __init__(self, word: Any = None) -> None:
        self.word = word

    def __eq__(self, other: object) -> bool:
        return type(other) is Ordinary and other.word == self.word


@dataclasses.dataclass
class Owner:
    """Listed, with a field of a class that may not be."""

    plan: Plan


class Boss(BaseModel):
    plan: Plan


CLASSES = (Mood, Access, Callables, Point, Plan, Open, Note, Report, Table, Ordinary, Owner, Boss)
HOST = Codec(CLASSES)
CALLER = Codec(unlisted="dict")

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.sampled_from([STORED_TYPE, "", "=", "+", "_", "a"]) | st.text(max_size=3)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.tuples(st.integers()) | keys, inner, max_size=2),
        st.builds(Plan, steps=inner, mood=inner),
        st.builds(Note, text=inner, plan=inner),
        st.builds(Point, inner, inner),
        st.builds(lambda v: Open(title="t", more=v), inner),
        st.builds(lambda v: Report(v), st.dictionaries(keys, inner, max_size=2)),
        st.builds(lambda v: Table(v), st.dictionaries(keys, inner, max_size=2)),
        st.builds(Ordinary, inner),
        st.builds(lambda v: AIMessage("hi", additional_kwargs={"value": v}), inner),
    )


values = st.recursive(
    plain | st.sampled_from([*Mood, Access.READ | Access.WRITE, Callables.FIRST, Plan, Mood]), objects, max_leaves=8
)


def alike(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, BaseModel):
        return bool(left == right) and alike(left.__dict__, right.__dict__)
    if dataclasses.is_dataclass(left) and not isinstance(left, type):
        return alike(vars(left), vars(right))
    return bool(left == right)


@given(values)
def test_what_a_caller_without_the_classes_sends_back_is_what_the_host_sent(value: Any) -> None:
    arrived = CALLER.decode(HOST.encode({"value": value}))
    assert alike(HOST.decode(CALLER.encode(arrived)), {"value": value})
    assert alike(HOST.decode(CALLER.encode(copy.deepcopy(arrived))), {"value": value})


@given(values, st.booleans())
def test_what_a_caller_without_the_classes_has_stored_is_what_the_host_sent(value: Any, text: bool) -> None:
    codec = CALLER.for_storage(text=text)
    stored = codec.decode(HOST.encode({"value": value}))
    assert alike(HOST.decode(codec.encode(stored)), {"value": value})


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        *(Mood.BAD, Access.READ | Access.WRITE, Point(1, (2, 3)), Plan(steps=(1, {2})), Open(title="a", more=b"x")),
        *(Note("n", Plan()), Report(a=1), Ordinary((1,)), Owner(Plan()), {STORED_TYPE: "x"}, {STORED_TYPE: {"": 1}}),
        *(Table(b=1, a=2), Plan, [Plan(steps=Mood.BAD), {"k": Note(Mood.GOOD)}]),
    ],
)
def test_langgraphs_serializer_keeps_it(value: Any, strict: bool) -> None:
    serializer = JsonPlusSerializer(allowed_msgpack_modules=None if strict else True)
    codec = CALLER.for_storage()
    kept = serializer.loads_typed(serializer.dumps_typed(codec.decode(HOST.encode({"value": value}))))
    assert alike(HOST.decode(codec.encode(kept)), {"value": value})


def test_a_store_is_given_json() -> None:
    codec = CALLER.for_storage(text=True)
    kept = json.loads(json.dumps(codec.decode(HOST.encode({"plan": Plan(steps=(1, b"2"))}))))
    assert HOST.decode(codec.encode(kept)) == {"plan": Plan(steps=(1, b"2"))}


def test_an_unlisted_value_is_a_dict_of_fields_that_names_its_class() -> None:
    plan, mood, point, note, owner = CALLER.decode(
        HOST.encode([Plan(steps=2, mood=Mood.BAD), Mood.BAD, Point(1, 2), Note("n", Plan()), Owner(Plan())])
    )
    assert plan == {"steps": 2, "mood": {"name": "BAD", "value": "bad"}}
    assert plan.type == f"{__name__}.Plan" and isinstance(plan, UnlistedValue)
    assert mood == {"name": "BAD", "value": "bad"} and point == {"x": 1, "y": 2}
    assert note["plan"].type == owner["plan"].type == plan.type
    assert json.dumps(plan) == '{"steps": 2, "mood": {"name": "BAD", "value": "bad"}}'
    assert not hasattr(plan, "anything")
    with pytest.raises(AttributeError, match=r"Plan is not listed.*read \['steps'\].*allow=\[Plan\]"):
        _ = plan.steps
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan and HOST.decode(CALLER.encode(again)) == Plan(steps=2, mood=Mood.BAD)


def test_a_changed_field_is_changed_on_the_host_and_the_rest_stays() -> None:
    sent = Plan.model_construct(_fields_set={"steps"}, steps=1, mood=Mood.BAD)
    sent._seen = 7
    arrived = CALLER.decode(HOST.encode(sent)).copy()
    arrived["steps"] = 5
    back = HOST.decode(CALLER.encode(arrived))
    assert (back.steps, back.mood, back._seen, back.model_fields_set) == (5, Mood.BAD, 7, {"steps"})


def test_a_subclass_of_a_string_is_a_string() -> None:
    assert type(CALLER.decode(HOST.encode([Markdown("x")]))[0]) is str
    assert CALLER.decode(HOST.encode(AIMessage(Markdown("x")))).content == "x"


@pytest.mark.parametrize("owner", [Owner(Plan()), Boss(plan=Plan())], ids=["dataclass", "model"])
def test_a_listed_class_with_a_part_that_is_not_listed(owner: Any) -> None:
    """A field of a listed model may be of a subclass that only the host has: then the model cannot be made either."""
    codec = CALLER.extended([])
    codec._allowed = {**codec._allowed, f"{__name__}:{type(owner).__qualname__}": type(owner)}
    arrived = codec.decode(
        HOST.encode({"owner": owner, "message": ToolMessage("x", tool_call_id="1", artifact=Plan())})
    )
    assert arrived["owner"].plan.type.endswith("Plan") if isinstance(owner, Owner) else arrived["owner"]["plan"]
    assert arrived["message"].artifact == {"steps": 1, "mood": {"name": "GOOD", "value": "good"}}
    assert HOST.decode(codec.encode(arrived))["owner"] == owner


def test_an_error_that_carries_one() -> None:
    error = CALLER.decode(HOST.encode(ValueError(Plan(steps=3), Mood.BAD)))
    assert error.args == ({"steps": 3, "mood": {"name": "GOOD", "value": "good"}}, {"name": "BAD", "value": "bad"})


def test_error_is_the_rule_where_it_is_asked_for() -> None:
    for codec in (Codec(), Codec(unlisted="error"), Codec().for_storage()):
        with pytest.raises(TypeNotAllowed, match=r"allow=\[Plan\]"):
            codec.decode(HOST.encode(Plan()))
    with pytest.raises(ValueError, match="'error', 'dict'"):
        Codec(unlisted="drop")  # type: ignore[arg-type]


def test_a_reserved_dict_that_nobody_stored_is_an_error() -> None:
    with pytest.raises(EncodeError, match="reserved"):
        CALLER.for_storage().encode({"a": {STORED_TYPE: "x", "": b"\xc1"}})


def test_a_value_that_is_no_object_of_the_class_is_refused_by_the_host() -> None:
    fake = UnlistedValue(f"{__name__}:Open", {"title": 7})
    with pytest.raises(Exception, match="title"):
        HOST.decode(CALLER.encode(fake))
    with pytest.raises(TypeNotAllowed):
        Codec().decode(CALLER.encode(fake))
