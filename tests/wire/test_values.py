"""What a state may hold comes back equal, of the same type, and in the same order."""

from __future__ import annotations

import array
import enum
import ipaddress
import math
import pathlib
import re
import string
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, HttpUrl, SecretStr

from agentmatrix.errors import EncodeError
from agentmatrix.wire.codec import Codec

CODEC = Codec()


def through(value: Any, codec: Codec = CODEC) -> Any:
    return codec.decode(codec.encode(value))


def alike(left: Any, right: Any) -> bool:
    """Equal and of the same types all the way down, NaN equal to itself, dicts in the same order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, (list, tuple, deque)):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, dict):
        return alike(list(left.items()), list(right.items()))
    if isinstance(left, (set, frozenset)):
        return left == right and sorted(str(type(v)) for v in left) == sorted(str(type(v)) for v in right)
    return bool(left == right)


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("b", 2)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class UserId(str):
    pass


class Count(int):
    pass


class Path(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    note: str


MINE = Codec([Colour, Level, Word, Right, UserId, Count, Path, Table])

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats()
    | st.text(alphabet=st.characters(codec=None, exclude_categories=()))
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones())
    | st.times(timezones=st.none() | st.just(timezone(timedelta(hours=2), "two")))
    | st.timedeltas()
    | st.uuids()
    | st.ip_addresses()
    | st.sampled_from([*Colour, Level.LOW, Word.YES, Right.READ, Right.READ | Right.WRITE, Right(0)])
    | st.builds(UserId, st.text(alphabet=string.printable))
    | st.builds(Count, st.integers())
)
HASHABLE = st.recursive(
    SCALARS.filter(lambda v: v == v),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=5)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.builds(OrderedDict, st.dictionaries(HASHABLE, inner, max_size=3))
        | st.builds(lambda d: defaultdict(list, d), st.dictionaries(st.text(), inner, max_size=3))
        | st.builds(lambda v: deque(v, 7), st.lists(inner, max_size=4))
        | st.builds(Path, st.lists(inner, max_size=3))
    ),
    max_leaves=25,
)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert alike(through(value, MINE), value)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_a_plain_value_has_the_bytes_that_a_look_at_its_parts_gives(value: Any) -> None:
    alone = MINE.encode(value)
    assert MINE.encode([value, Colour.RED])[len(b"\x92") :].startswith(alone)


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        10**1000,
        "\ud800 alone",
        {"\udfff": ["\ud800"], "a": ("\ud800",)},
        {"": 1},
        {"": {"": ()}},
        {(): 1, (1, (2,)): [], None: 0, 1.5: "x", b"k": 1, frozenset({1}): 2, True: 3},
        [[], {}, (), set(), frozenset()],
        bytearray(b"ab"),
        [bytearray(b"ab"), b"ab"],
        deque([1], 3),
        deque(),
        Counter("abca"),
        ChainMap({"a": 1}, {"b": (2,)}),
        types.MappingProxyType({"a": 1}),
        types.SimpleNamespace(a=1, b=(2,)),
        array.array("d", [1.5, 2.5]),
        range(1, 10, 2),
        slice(1, None, 2),
        ...,
        NotImplemented,
        Fraction(1, 3),
        Decimal("-0"),
        Decimal("1E+30"),
        Decimal("Infinity"),
        complex(1, -2),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris")),
        datetime(1, 1, 1),
        date(9999, 12, 31),
        time(23, 59, 59, 999999, fold=1),
        timedelta.min,
        timedelta.max,
        UTC,
        timezone(timedelta(hours=-3, minutes=-30)),
        ZoneInfo("UTC"),
        UUID(int=7),
        pathlib.Path("/a/b"),
        pathlib.Path(""),
        pathlib.PurePosixPath("a"),
        pathlib.PureWindowsPath(r"C:\a"),
        re.compile("a(b)", re.IGNORECASE),
        re.compile(b"a"),
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_interface("10.0.0.1/8"),
        ipaddress.ip_address("fe80::1"),
        ipaddress.ip_network("fe80::/64"),
        HttpUrl("https://example.com/a b?q=1"),
        AnyUrl("custom://x"),
        SecretStr("hidden"),
        int,
        {"class": str},
        defaultdict(int, {"a": 1}),
        defaultdict(None, {"a": 1}),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:20]}",
)
def test_a_built_in_value_comes_back_as_it_was(value: Any) -> None:
    back = through(value)
    assert type(back) is type(value)
    assert back == value


def test_what_equality_does_not_show_comes_back_too() -> None:
    assert math.isnan(through(float("nan")))
    assert math.copysign(1, through(-0.0)) == -1
    assert math.copysign(1, through(complex(0, -0.0)).imag) == -1
    assert through(Decimal("sNaN12")).is_snan()
    assert str(through(Decimal("1.10"))) == "1.10"
    assert through(datetime(2024, 1, 1, fold=1)).fold == 1
    assert through(deque([1], 3)).maxlen == 3
    assert through(defaultdict(list, {})).default_factory is list
    assert through(UTC) is UTC
    assert through(memoryview(b"abc")) == b"abc"
    assert through(memoryview(b"abcdef")[::2]) == b"ace"
    moved = OrderedDict(a=1, b=2)
    moved.move_to_end("a")
    assert list(through(moved)) == ["b", "a"]


def test_a_subclass_of_a_built_in_type_keeps_its_class_and_its_attributes() -> None:
    table = Table(a=1)
    table.note = "kept"
    back = through(table, MINE)
    assert type(back) is Table and back == {"a": 1} and back.note == "kept"


def test_a_buffer_is_not_shared_with_the_bytes_that_brought_it() -> None:
    back = through([bytearray(b"ab"), bytearray(b"cd")])
    back[0][0] = 0
    assert back[1] == b"cd"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"docs": [1, 2, {"meta": print}]}, r'state\["docs"\]\[2\]\["meta"\]: a function'),
        ({"f": lambda: 1}, r'state\["f"\]: a function'),
        ((i for i in ()), r"state: a builtins.generator"),
        ({("a", 1): {object()}}, r"state\[\('a', 1\)\]\[0\]: .*builtins.object"),
        (defaultdict(lambda: 0), r"state\.default_factory: a function"),
    ],
)
def test_what_cannot_cross_is_named_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        CODEC.encode(value, "state")
    assert not CODEC.can_encode(value)


def test_a_lock_and_a_socket_are_refused_as_what_they_are() -> None:
    import socket
    import threading

    with pytest.raises(EncodeError, match="lock"):
        CODEC.encode({"lock": threading.Lock()})
    with socket.socket() as connection, pytest.raises(EncodeError, match="socket"):
        CODEC.encode({"connection": connection})


def test_a_container_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodeError, match="contains itself"):
        CODEC.encode(loop)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,), lambda v: {1: v}])
def test_two_hundred_levels_pass_and_more_do_not(wrap: Any) -> None:
    value: Any = 0
    for _ in range(200):
        value = wrap(value)
    assert through(value) == value
    with pytest.raises(EncodeError, match="nested deeper than 200") as refused:
        CODEC.encode(wrap(wrap(value)))
    assert len(str(refused.value)) < 400
