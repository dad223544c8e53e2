"""Bytes from a peer: nothing but listed types is made, and nothing but DecodeError is raised."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import ormsgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, Send
from pydantic import BaseModel, Field, model_validator

from agentmatrix.errors import DecodeError, EncodeError, TypeNotAllowed
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.extensions import CLASS, OBJECT, TAG
from agentmatrix.wire.remote_failures import decode_failure

CODEC = Codec()


class Account(BaseModel):
    owner: str
    cents: int = Field(default=0, ge=0)
    notes: list[str] = []


class Even(BaseModel):
    number: int

    @model_validator(mode="after")
    def even(self) -> Even:
        if self.number % 2:
            raise ValueError("an odd number")
        return self


@dataclasses.dataclass
class Card:
    title: str


class Mood(enum.Enum):
    GOOD = "good"


LISTED = Codec([Account, Even, Card, Mood])
FORGIVING = Codec([Account, Card], unlisted="dict")
CODECS = (LISTED, FORGIVING, FORGIVING.for_storage(), FORGIVING.for_storage(text=True))
"""Also those that make a dict of an object of an unlisted class."""


def decoded(codec: Codec, data: bytes) -> None:
    """The bytes are a value that can be encoded again, or a DecodeError."""
    try:
        value = codec.decode(data)
    except DecodeError:
        return
    with contextlib.suppress(EncodeError):  # an object of a class that has no form on the wire
        codec.encode(value)


def object_ext(cls: type | str) -> ormsgpack.Ext:
    name = cls if isinstance(cls, str) else f"{cls.__module__}:{cls.__qualname__}"
    return ormsgpack.Ext(OBJECT, name.encode())


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x91\xd4\x00\x00")
@example(bytes.fromhex("ddbfdb829fd6df4ec8c191"))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    for codec in CODECS:
        decoded(codec, data)


RAW = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=20)
    | st.builds(ormsgpack.Ext, st.integers(0, 25), st.binary(max_size=20))
    | st.builds(lambda n: ormsgpack.Ext(TAG, bytes([n])), st.integers(0, 60))
    | st.sampled_from([object_ext(c) for c in (Account, Even, Card, Mood, AIMessage, Send, Command, "os:system")])
    | st.builds(lambda n: ormsgpack.Ext(CLASS, n), st.sampled_from([b"builtins:int", b"os:system", b"\xff"])),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(["", "=", "+", "_", "owner", "title", "number", "args", "type", "node"]), inner, max_size=6
        )
    ),
    max_leaves=15,
)


@given(RAW)
@settings(max_examples=600, deadline=None)
def test_any_message_of_our_marks_is_a_value_or_a_decode_error(raw: Any) -> None:
    data = ormsgpack.packb(raw)
    for codec in CODECS:
        decoded(codec, data)
        with contextlib.suppress(DecodeError):
            decode_failure(data, codec)


@given(st.binary(min_size=1, max_size=8), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_a_message_with_bytes_changed_is_a_value_or_a_decode_error(noise: bytes, at: int) -> None:
    data = bytearray(
        LISTED.encode(
            {"m": [AIMessage("x"), HumanMessage("y")], "a": Account(owner="o"), "t": (1, {2}), "g": Mood.GOOD}
        )
    )
    at %= len(data)
    data[at : at + len(noise)] = noise
    for codec in CODECS:
        decoded(codec, bytes(data))


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:eval", "builtins:type", "nowhere:Thing"])
@pytest.mark.parametrize(
    "message",
    [
        lambda ext: [ext, "true"],
        lambda ext: {"": ext, "args": ["true"]},
        lambda ext: {"state": [1, {"": ext}]},
        lambda ext: ext,
    ],
)
def test_a_name_that_is_not_listed_is_refused(name: str, message: Any) -> None:
    with pytest.raises(TypeNotAllowed, match="is not listed; admit it with allow="):
        LISTED.decode(ormsgpack.packb(message(object_ext(name))))


def test_naming_a_module_does_not_import_it() -> None:
    with pytest.raises(TypeNotAllowed):
        CODEC.decode(ormsgpack.packb([object_ext("antigravity:Thing")]))
    failure = ormsgpack.packb([ormsgpack.Ext(TAG, b"\x30"), {"type": "antigravity:Boom", "text": "x"}])
    decode_failure(failure, CODEC)
    assert "antigravity" not in sys.modules


def test_the_bytes_that_run_a_command_in_langgraphs_serializer_are_refused(tmp_path: Any) -> None:
    proof = tmp_path / "ran"
    payload = ormsgpack.packb(("os", "system", f"touch {proof}"))
    with pytest.raises(DecodeError):
        CODEC.decode(ormsgpack.packb(ormsgpack.Ext(0, payload)))
    assert not proof.exists()
    JsonPlusSerializer().loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(0, payload))))
    assert proof.exists()


def test_an_exception_that_is_no_exception_is_not_made() -> None:
    for name in ("subprocess:Popen", "os:_Environ", "builtins:object", "agentmatrix.errors:DecodeError.__init__"):
        data = ormsgpack.packb([ormsgpack.Ext(TAG, b"\x30"), {"type": name, "text": "x", "args": ["true"]}])
        assert type(decode_failure(data, CODEC)).__name__ == "RemoteError"


def test_an_unlisted_class_is_refused_with_path_type_and_option() -> None:
    data = CODEC.encode({"docs": [1, 2, {"meta": Card("x")}]})
    with pytest.raises(TypeNotAllowed) as caught:
        CODEC.decode(data, "state")
    text = str(caught.value)
    assert 'state["docs"][2]["meta"]' in text and f"{__name__}.Card" in text and "allow=[Card]" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"owner": 7, "cents": 1, "notes": []}, r"\.owner"),
        ({"owner": "o", "cents": "1", "notes": []}, r"\.cents"),
        ({"owner": "o", "cents": True, "notes": []}, r"\.cents"),
        ({"owner": "o", "cents": -1, "notes": []}, r"\.cents"),
        ({"owner": "o", "cents": 1, "notes": [1]}, r"\.notes"),
        ({"owner": "o", "cents": 1, "notes": "ab"}, r"\.notes"),
        ({"owner": "o", "cents": 1}, "lacks its field 'notes'"),
        ({"owner": "o", "cents": 1, "notes": [], "more": 1}, "has no field 'more'"),
        ({"owner": "o", "cents": 1, "notes": [], "+": {"more": 1}}, "takes no extra fields"),
        ({"owner": "o", "cents": 1, "notes": [], "=": ["more"]}, "unknown fields"),
        ({"owner": "o", "cents": 1, "notes": [], "=": 5}, "unknown fields"),
    ],
)
def test_a_listed_model_with_wrong_fields_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        LISTED.decode(ormsgpack.packb({"": object_ext(Account), **fields}))


def test_a_model_that_its_own_validator_would_refuse_is_refused() -> None:
    assert LISTED.decode(ormsgpack.packb({"": object_ext(Even), "number": 2, "=": ["number"]})) == Even(number=2)
    with pytest.raises(DecodeError, match="odd"):
        LISTED.decode(ormsgpack.packb({"": object_ext(Even), "number": 3, "=": ["number"]}))


@pytest.mark.parametrize(
    "fields",
    [{"content": 7}, {"content": "x", "tool_calls": [{"name": 1}]}, {"content": "x", "id": 3}, {"type": "human"}],
)
def test_a_message_with_wrong_fields_is_refused(fields: Any) -> None:
    whole = {**AIMessage("x").__dict__, **fields}
    with pytest.raises(DecodeError):
        CODEC.decode(ormsgpack.packb({"": object_ext(AIMessage), **whole}))


def test_a_command_or_send_of_wrong_types_is_refused() -> None:
    with pytest.raises(DecodeError, match="node"):
        CODEC.decode(ormsgpack.packb([object_ext(Send), {"node": 1, "arg": 2, "timeout": None}]))
    with pytest.raises(DecodeError, match="graph"):
        CODEC.decode(ormsgpack.packb({"": object_ext(Command), "graph": 1, "update": None, "resume": None, "goto": []}))


def test_dunder_attributes_cannot_be_set() -> None:
    with pytest.raises(DecodeError, match="__class__"):
        LISTED.decode(ormsgpack.packb({"": object_ext(Card), "title": "x", "+": {"__class__": 1}}))


def test_local_classes_are_listed_as_objects_and_the_last_of_a_name_wins() -> None:
    def make(kind: type) -> type:
        @dataclasses.dataclass
        class Local:
            x: kind  # type: ignore[valid-type]

        return Local

    first, second = make(int), make(str)
    assert type(Codec([first, second]).decode(CODEC.encode(first(1)))) is second
    assert type(Codec([second]).extended([first]).decode(CODEC.encode(first(1)))) is first
    assert Codec([second]).allows(second) and not Codec([second]).allows(first)
    with pytest.raises(TypeNotAllowed, match=r"allow=\[Local\]"):
        CODEC.decode(CODEC.encode(first(1)))


@pytest.mark.parametrize("unit", [b"\x80", b"\x90", b"\x81\xa0\x80", b"\x91\xd4\x00\x03"])
def test_a_small_message_that_grows_large_is_refused_before_it_does(unit: bytes) -> None:
    import tracemalloc

    count = 2_000_000 // len(unit)
    bomb = b"\xdd" + count.to_bytes(4, "big") + unit * count
    codec = Codec(max_bytes=20 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="max_bytes"):
            codec.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def test_twenty_megabytes_of_empty_maps_are_refused_by_default() -> None:
    with pytest.raises(DecodeError, match="max_bytes"):
        CODEC.decode(b"\xdd" + (20_000_000).to_bytes(4, "big") + b"\x80" * 20_000_000)


def test_large_buffers_and_texts_pass() -> None:
    value = {"data": bytes(20 << 20), "text": "a" * (20 << 20)}
    assert CODEC.decode(CODEC.encode(value)) == value


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81\xa1a", b"\x92\xd4\x00\x00", b"\x93\xd4\x00\x04\x01", b"\x92" + b"\xc7\x00\x01"]
)
@pytest.mark.parametrize("levels", [250, 1_000, 5_000, 100_000])
def test_deep_nesting_is_refused(opening: bytes, levels: int) -> None:
    with pytest.raises(DecodeError):
        CODEC.decode(opening * levels + b"\xc0")


def test_deep_nesting_is_refused_in_a_thread_with_a_small_stack() -> None:
    script = """
import threading
from agentmatrix.errors import DecodeError
from agentmatrix.wire.codec import Codec
codec, ended = Codec(), []
def work():
    for opening in (b"\\x91", b"\\x92\\xd4\\x00\\x00", b"\\x81\\xa1a"):
        for levels in (190, 900, 1000, 100_000):
            try:
                codec.decode(opening * levels + b"\\xc0")
            except DecodeError:
                pass
    ended.append(True)
threading.stack_size(256 << 10)
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert ended
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_a_caller_deep_in_its_stack_still_decodes() -> None:
    value: Any = 0
    for _ in range(150):
        value = (value,)
    data = CODEC.encode(value)

    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels else CODEC.decode(data)

    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(deeper(sys.getrecursionlimit() - 150)))
    thread.start()
    thread.join()
    assert result == [value]


def test_keys_chosen_to_collide_are_refused() -> None:
    prime = sys.hash_info.modulus
    with pytest.raises(DecodeError, match="same hash"):
        CODEC.decode(CODEC.encode(list(range(3)))[:0] + _set_of([prime * n for n in range(1, 5000)]))


def _set_of(numbers: list[int]) -> bytes:
    items = [ormsgpack.Ext(3, n.to_bytes(n.bit_length() // 8 + 1, "big", signed=True)) for n in numbers]
    return ormsgpack.packb([ormsgpack.Ext(TAG, b"\x01"), *items])


def test_a_message_larger_than_the_cap_is_refused_on_both_sides() -> None:
    small = Codec(max_bytes=1000)
    with pytest.raises(Exception, match="max_bytes"):
        small.encode("x" * 2000)
    with pytest.raises(DecodeError, match="max_bytes"):
        small.decode(CODEC.encode("x" * 2000))


BOMBS = {
    "one list": b"\xdd\xff\xff\xff\xff",
    "lists in lists": b"\xdd\x01\xff\xff\xff" * 150,
    "one map": b"\xdf\xff\xff\xff\xff",
    "bytes": b"\xc6\xff\xff\xff\xff",
    "lists beside each other": b"\x9f" + b"\xdd\x00\x00\x00\x00" * 14 + b"\xdd\x0f\xff\xff\xff",
}


@pytest.mark.parametrize("max_bytes", [1 << 30, 4000])  # the fast look, and the scan
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_what_is_announced_and_not_there_costs_no_memory(bomb: bytes, max_bytes: int) -> None:
    codec = Codec(max_bytes=max_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            codec.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
