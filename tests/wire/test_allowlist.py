"""What `allow=` and a graph's schemas list."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph.message import add_messages
from langgraph.types import Send
from pydantic import BaseModel
from typing_extensions import TypeAliasType
from typing_extensions import TypedDict as ExtendedTypedDict

from agentmatrix.errors import TypeNotAllowed
from agentmatrix.wire.codec import Codec, types_of

T = TypeVar("T")


class Mood(enum.Enum):
    GOOD = 1


class Inner(BaseModel):
    mood: Mood


class Twig(Inner):
    length: int


class Outer(BaseModel):
    inner: list[Inner] | None = None


@dataclasses.dataclass
class Card:
    outer: dict[str, Outer]
    self: Card | None = None


class Pair(NamedTuple):
    card: Card


class Box(BaseModel, Generic[T]):
    content: T


class Nested(ExtendedTypedDict):
    pair: Pair


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    nested: Nested
    either: Sequence[tuple[Mood, ...]] | None


class Plain:
    pass


Alias = TypeAliasType("Alias", list[Inner])
Id = NewType("Id", Card)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (State, {Pair, Card, Outer, Inner, Twig, Mood, AIMessage}),
        (Annotated[list[Outer], "x"], {Outer, Inner, Mood}),
        (dict[str, tuple[Card, ...]] | None, {Card, Outer}),
        (Box[Inner], {Box, Box[Inner], Inner, Mood}),
        (Literal[Mood.GOOD], {Mood}),
        (Alias, {Inner, Mood}),
        (Id, {Card}),
        (type[Plain], {Plain}),
        (Plain, {Plain}),
    ],
)
def test_the_classes_of_a_schema_are_found(annotation: object, expected: set[type]) -> None:
    assert expected <= types_of(annotation)


@pytest.mark.parametrize("annotation", [None, 3, "text", Any, int, "Missing", [], Codec, T, len, type, object])
def test_what_is_no_schema_is_passed_over(annotation: object) -> None:
    assert all(isinstance(cls, type) for cls in types_of(annotation))


def test_a_class_brings_the_classes_of_its_fields() -> None:
    value = Card({"a": Outer(inner=[Twig(mood=Mood.GOOD, length=1)])})
    with pytest.raises(TypeNotAllowed):
        Codec().decode(Codec().encode(value))
    assert Codec([Card]).decode(Codec().encode(value)) == value


def test_a_generic_model_is_listed_with_its_parameters() -> None:
    value = Box[Inner](content=Inner(mood=Mood.GOOD))
    assert Codec([Box]).decode(Codec().encode(value)) == value
    assert type(Codec([Box[Inner]]).decode(Codec().encode(value))) is Box[Inner]


def test_modules_are_listed_as_objects_and_by_name() -> None:
    module = sys.modules[__name__]
    assert Codec([module]).allows(Card)
    assert Codec(["fractions"]).allows(__import__("fractions").Fraction)
    assert not Codec().allows(Card)
    assert Codec().extended([Card]).allows(Card)


def test_a_package_lists_what_its_modules_define_and_it_names(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mypkg"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from mypkg.models import Order\nimport subprocess\nfrom subprocess import Popen\n"
    )
    (package / "models.py").write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            @dataclass
            class Order:
                number: int
                @dataclass
                class Line:
                    text: str
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    codec = Codec(["mypkg"])
    import mypkg  # type: ignore[import-not-found]

    assert codec.allows(mypkg.Order) and codec.allows(mypkg.Order.Line)
    assert not codec.allows(subprocess.Popen)
    assert Codec(["mypkg.models.Order"]).allows(mypkg.Order)


def test_a_name_that_is_no_module_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no_such_module"):
        Codec(["no_such_module"])
    with pytest.raises(TypeError, match="allow="):
        Codec([3])


def test_builtin_and_langgraph_types_are_always_listed() -> None:
    assert all(map(Codec().allows, (int, str, dict, AIMessage, Send)))
