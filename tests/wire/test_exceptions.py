"""What a host raises is what its caller catches."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from langgraph import errors as lg
from langgraph.types import Command, Interrupt
from pydantic import BaseModel, field_validator

from agentmatrix.errors import DecodeError, HostLost, RemoteError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.exceptions import RemoteTraceback
from agentmatrix.wire.remote_failures import decode_failure, encode_failure

CODEC = Codec()


def through(error: BaseException, codec: Codec = CODEC) -> Any:
    return decode_failure(encode_failure(error, codec), codec)


def caught(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Refused(Exception):
    def __init__(self, reason: str, *, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Strict(Exception):
    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where


class Order(BaseModel):
    count: int
    name: str

    @field_validator("name")
    @classmethod
    def known(cls, value: str) -> str:
        if value != "a":
            raise ValueError("unknown name {x}")
        return value


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 1, ("a", 2)),
        KeyError("missing"),
        StopIteration(3),
        StopAsyncIteration(),
        SystemExit(2),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("why"),
        TimeoutError(),
        RecursionError("deep"),
        caught(lambda: open("/nowhere/at/all")),
        ConnectionResetError(104, "reset"),
        caught(lambda: b"\xff".decode()),
        caught(lambda: "\ud800".encode()),
        caught(lambda: json.loads("{")),
        caught(lambda: compile("1 +", "f", "exec")),
        caught(lambda: object().missing),  # type: ignore[attr-defined]
        caught(lambda: __import__("no_such_module")),
        lg.GraphInterrupt((Interrupt("q", id="i"),)),
        lg.GraphDrained("shutdown"),
        lg.ParentCommand(Command(goto="x", graph=Command.PARENT)),
        lg.GraphRecursionError("limit"),
        lg.InvalidUpdateError("two writers"),
        lg.NodeTimeoutError("n", 1.0, kind="run", run_timeout=0.5),
        lg.NodeCancelledError("n"),
        lg.UnknownInterruptError("x", reason="ambiguous", pending_ids=["a"]),
        lg.EmptyInputError("empty"),
        OutputParserException("bad", observation="o", llm_output="l", send_to_llm=True),
        HostLost("gone"),
        RemoteError("x", "pkg.Boom"),
        Refused("no", code=7),
        Strict("here"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_comes_back_with_its_type_text_arguments_and_attributes(error: BaseException) -> None:
    back = through(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert back.__dict__ == error.__dict__
    assert repr(back) == repr(error)


def test_what_built_in_exceptions_keep_elsewhere_comes_back_too() -> None:
    assert through(StopIteration(3)).value == 3
    assert through(SystemExit(2)).code == 2
    lost = through(caught(lambda: open("/nowhere/at/all")))
    assert (lost.errno, lost.filename) == (2, "/nowhere/at/all")
    assert through(caught(lambda: __import__("no_such_module"))).name == "no_such_module"
    assert through(caught(lambda: b"\xff".decode())).object == b"\xff"
    assert through(Strict("here")).where == "here"


def test_a_validation_error_says_the_same() -> None:
    error = caught(lambda: Order(count="x", name="b"))  # type: ignore[arg-type]
    assert isinstance(error, pydantic.ValidationError)
    back = through(error)
    assert type(back) is pydantic.ValidationError
    assert str(back) == str(error)
    assert [e["loc"] for e in back.errors()] == [e["loc"] for e in error.errors()]


def test_groups_notes_and_chains_come_back() -> None:
    inner = KeyError("k")
    inner.add_note("look here")
    group = ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [inner])])
    back = through(group)
    assert isinstance(back, ExceptionGroup) and back.message == "several"
    assert back.exceptions[1].exceptions[0].__notes__ == ["look here"]

    def work() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise Refused("second", code=2)  # noqa: B904 - the context is what is tested
        except Refused as error:
            raise ValueError("third") from error

    back = through(caught(work))
    assert isinstance(back.__cause__, Refused) and back.__cause__.code == 2
    assert isinstance(back.__cause__.__context__, KeyError)
    assert back.__suppress_context__ and back.__context__ is back.__cause__


def test_an_exception_that_causes_itself_comes_back() -> None:
    error = ValueError("loop")
    error.__cause__ = KeyError("other")
    error.__cause__.__cause__ = error
    assert isinstance(through(error).__cause__, KeyError)


def test_a_very_long_chain_comes_back_shortened() -> None:
    error: BaseException = ValueError(0)
    for number in range(1, 2000):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    assert through(error).args == (1999,)


def fail_on_the_host() -> None:
    raise Refused("no", code=1)


def test_the_remote_traceback_is_printed_with_the_exception() -> None:
    back = through(caught(fail_on_the_host))
    printed = "".join(traceback.format_exception(back))
    assert "in fail_on_the_host" in printed
    assert isinstance(back.__cause__, RemoteTraceback)


def test_three_hosts_do_not_stack_their_tracebacks() -> None:
    def again(error: BaseException) -> BaseException:
        def work() -> None:
            raise error

        return caught(work)

    once = through(caught(fail_on_the_host))
    thrice = through(again(through(again(once))))
    assert "".join(traceback.format_exception(thrice)).count("in fail_on_the_host") == 1
    assert isinstance(thrice.__cause__, RemoteTraceback) and thrice.__cause__.__cause__ is None


def test_control_flow_carries_no_traceback() -> None:
    def work() -> None:
        raise lg.GraphInterrupt((Interrupt(1, id="i"),))

    back = through(caught(work))
    assert back.__cause__ is None and not back.__suppress_context__


def test_what_cannot_cross_becomes_its_repr() -> None:
    lock = threading.Lock()
    error = Refused("no", code=1)
    error.args = ("no", lock)
    error.client = print  # type: ignore[attr-defined]
    back = through(error)
    assert back.args == ("no", repr(lock)) and back.client == repr(print)


def test_an_argument_of_a_class_that_is_not_listed_is_readable() -> None:
    error = ValueError(Order.model_construct(count=1, name="a"))
    assert isinstance(through(error).args[0], str)
    assert "Order(count=1, name='a')" in through(error).args[0]
    assert through(error, Codec([Order])).args[0] == Order(count=1, name="a")


def test_an_unknown_class_becomes_a_remote_error_that_names_it() -> None:
    class Local(Exception):
        pass

    error = Local("why", 3)
    error.add_note("note")
    error.__cause__ = ValueError("cause")
    back = through(error)
    assert type(back) is RemoteError
    assert back.type_name.endswith("Local") and "Local: ('why', 3)" in str(back)
    assert back.original_args == ("why", 3) and back.__notes__ == ["note"]
    assert type(back.__cause__) is ValueError
    assert type(through(error, Codec([Local]))) is Local


def test_an_exception_without_a_text_crosses() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert type(through(Mute())) is RemoteError


def test_a_huge_exception_crosses_shortened() -> None:
    small = Codec(max_bytes=300_000)
    back = through(ValueError("x" * 1_000_000), small)
    assert isinstance(back, RemoteError) and back.type_name == "builtins.ValueError"


def test_other_values_are_no_failures() -> None:
    with pytest.raises(DecodeError, match="exception was due"):
        decode_failure(CODEC.encode({"a": 1}), CODEC)


@given(st.binary(max_size=100))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_an_exception_or_a_decode_error(data: bytes) -> None:
    try:
        assert isinstance(decode_failure(data, CODEC), BaseException)
    except DecodeError:
        pass
