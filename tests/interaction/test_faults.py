"""What goes wrong between a caller and a host: one clear error in bounded time, and nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.errors import (
    AgentNotFound,
    DeadlineExceeded,
    EncodeError,
    HostBusy,
    HostLost,
    HostUnreachable,
    ProtocolError,
    RemoteError,
    TypeNotAllowed,
    Unauthenticated,
    VersionMismatch,
)
from agentmatrix.session import caller_async, caller_sync
from agentmatrix.testing import loopback
from agentmatrix.wire.v1 import run_pb2 as pb


class State(TypedDict, total=False):
    text: Any


def graph_of(*nodes: Any) -> Any:
    builder = StateGraph(State)
    previous = START
    for number, node in enumerate(nodes):
        builder.add_node(f"n{number}", node).add_edge(previous, f"n{number}")
        previous = f"n{number}"
    return builder.compile()


def echo(state: State) -> State:
    return {"text": state["text"]}


class Gate:
    """An async node that says when it started and when it was cancelled."""

    def __init__(self) -> None:
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def __call__(self, state: State) -> State:
        self.started.set()
        get_stream_writer()("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {}


async def wait(event: threading.Event, seconds: float = 100.0) -> bool:
    return await asyncio.to_thread(event.wait, seconds)


async def test_a_cancelled_task_stops_the_remote_work() -> None:
    gate = Gate()
    remote = loopback(graph_of(gate.__call__))
    task = asyncio.create_task(remote.ainvoke({"text": "x"}))
    assert await wait(gate.started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await wait(gate.cancelled)


async def test_leaving_a_stream_early_stops_the_remote_work() -> None:
    gate = Gate()
    remote = loopback(graph_of(echo, gate.__call__))
    stream = remote.astream({"text": "x"}, stream_mode="custom")
    async with contextlib.aclosing(stream):  # type: ignore[type-var]
        assert await anext(stream) == "started"
    assert await wait(gate.cancelled)


def test_leaving_a_sync_stream_runs_no_further_step() -> None:
    later = threading.Event()

    def mark(state: State) -> State:
        later.set()
        return {}

    remote = loopback(graph_of(echo, echo, mark))
    stream = remote.stream({"text": "x"}, stream_mode="updates")
    assert next(stream) == {"n0": {"text": "x"}}
    stream.close()
    assert not later.wait(0.3)


def test_a_deadline_ends_the_call_and_the_run() -> None:
    gate = Gate()
    remote = loopback(graph_of(gate.__call__), timeout=0.3)
    while not gate.started.is_set():  # on a busy machine its time may be over before that
        with pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
            asyncio.run(remote.ainvoke({"text": "x"}))
    assert gate.cancelled.wait(100)


def test_a_deadline_of_a_sync_call_whose_node_does_not_end() -> None:
    release, ended = threading.Event(), threading.Event()

    def block(state: State) -> State:
        release.wait(100)
        ended.set()
        return {}

    remote = loopback(graph_of(block), timeout=0.3)
    with pytest.raises(DeadlineExceeded):
        remote.invoke({"text": "x"})
    assert not ended.is_set()
    release.set()


def test_a_host_that_is_down() -> None:
    with pytest.raises(HostUnreachable, match="127.0.0.1:9"):
        RemoteAgent("127.0.0.1:9/agent", connect_timeout=1000).invoke({"text": "x"})


def test_an_unknown_agent_lists_those_that_there_are() -> None:
    with Host({"here": graph_of(echo)}) as host:
        with pytest.raises(AgentNotFound, match="here"):
            RemoteAgent(f"{host.address}/there").invoke({"text": "x"})
        with pytest.raises(AgentNotFound, match="here"):
            _ = RemoteAgent(f"{host.address}/there").card


def test_a_wrong_token() -> None:
    with Host({"a": graph_of(echo)}, token="right") as host:
        assert RemoteAgent(f"{host.address}/a", api_key="right").invoke({"text": "x"}) == {"text": "x"}
        for wrong in ("wrong", None):
            with pytest.raises(Unauthenticated, match="token"):
                RemoteAgent(f"{host.address}/a", api_key=wrong).invoke({"text": "x"})


async def test_a_state_that_cannot_cross_names_the_path() -> None:
    remote = loopback(graph_of(echo))
    with pytest.raises(EncodeError, match=r'\["text"\]\[1\]'):
        remote.invoke({"text": [1, threading.Lock()]})
    with pytest.raises(EncodeError, match="lock"):
        await remote.ainvoke({"text": threading.Lock()})


def test_a_result_that_cannot_cross_is_an_error_of_the_run() -> None:
    remote = loopback(graph_of(lambda state: {"text": threading.Lock()}))
    with pytest.raises(EncodeError, match="lock"):
        remote.invoke({"text": "x"})


class Unlisted:
    """A class that the host may send and the caller did not admit."""


def test_a_type_that_was_not_admitted() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Secret:
        word: str

    with Host({"a": graph_of(lambda state: {"text": Secret("x")})}) as host:
        with pytest.raises(TypeNotAllowed, match="allow="):
            RemoteAgent(f"{host.address}/a", unlisted="error").invoke({"text": "x"})
        assert RemoteAgent(f"{host.address}/a").invoke({"text": "x"}) == {"text": {"word": "x"}}
        assert RemoteAgent(f"{host.address}/a", allow=[Secret]).invoke({"text": 1}) == {"text": Secret("x")}


def test_another_version_of_langgraph(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    other = pb.Version(wire=1, langgraph="1.9.0", agentmatrix="0")
    monkeypatch.setattr("agentmatrix.remote.calls.spoken_version", lambda: other)
    with Host({"a": graph_of(echo)}) as host, pytest.raises(VersionMismatch, match=r"1\.9\.0"):
        RemoteAgent(f"{host.address}/a").invoke({"text": "x"})
    with Host({"a": graph_of(echo)}, allow_version_skew=True) as host:
        for _ in range(2):
            assert RemoteAgent(f"{host.address}/a").invoke({"text": "x"}) == {"text": "x"}
    warnings = [
        record for record in caplog.records if record.name == "agentmatrix.host" and record.levelname == "WARNING"
    ]
    assert len(warnings) == 1 and "the caller '1.9.0'" in warnings[0].getMessage()


async def test_a_host_that_is_full_refuses() -> None:
    gate = Gate()
    with Host({"a": graph_of(gate.__call__)}, max_runs=1, max_queue=0) as host:
        remote = RemoteAgent(f"{host.address}/a")
        first = asyncio.create_task(remote.ainvoke({"text": "x"}))
        assert await wait(gate.started)
        with pytest.raises(HostBusy, match="1 run"):
            await remote.ainvoke({"text": "y"})
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


# Of a GeneratorExit out of an async node a `StateGraph` alone warns too: it closes coroutines of LangGraph at work.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()])
async def test_whatever_escapes_from_user_code_ends_its_run_alone(error: BaseException) -> None:
    def fail(state: State) -> State:
        raise error

    async def afail(state: State) -> State:
        raise error

    with Host({"sync": graph_of(fail), "async": graph_of(afail), "fine": graph_of(echo)}) as host:
        for name, call in (("sync", "invoke"), ("async", "ainvoke")):
            remote = RemoteAgent(f"{host.address}/{name}", timeout=100)
            with pytest.raises(BaseException) as caught:
                if call == "invoke":
                    await asyncio.to_thread(lambda remote=remote: _quietly(remote.invoke, {"text": "x"}))
                else:
                    await asyncio.wait_for(_aquietly(remote.ainvoke({"text": "x"})), 100)
            assert not isinstance(caught.value, (DeadlineExceeded, TimeoutError))
            assert RemoteAgent(f"{host.address}/fine").invoke({"text": "x"}) == {"text": "x"}


def _quietly(call: Any, *args: Any) -> Any:
    """SystemExit would end the test's own thread or loop: tell of it as an ordinary error."""
    try:
        return call(*args)
    except BaseException as error:
        raise RuntimeError(repr(error)) from error


async def _aquietly(call: Any) -> Any:
    try:
        return await call
    except BaseException as error:
        raise RuntimeError(repr(error)) from error


async def test_a_host_that_stops_tells_its_callers() -> None:
    gate = Gate()
    host = Host({"a": graph_of(gate.__call__)}).start()
    task = asyncio.create_task(RemoteAgent(f"{host.address}/a").ainvoke({"text": "x"}))
    assert await wait(gate.started)
    await asyncio.to_thread(host.stop)
    with pytest.raises(HostLost, match="stopped"):
        await asyncio.wait_for(task, 100)


async def test_many_loops_and_threads_share_one_agent() -> None:
    remote = loopback(graph_of(echo))
    results: list[Any] = []

    def in_a_loop_of_its_own(number: int) -> None:
        results.append(asyncio.run(remote.ainvoke({"text": number})))
        results.append(remote.invoke({"text": number}))

    threads = [threading.Thread(target=in_a_loop_of_its_own, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    results.append(await remote.ainvoke({"text": 99}))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(r["text"] for r in results) == sorted([*range(8), *range(8), 99])


def test_values_of_64_megabytes_cross() -> None:
    remote = loopback(graph_of(echo))
    blob = bytes(range(256)) * (64 * 4096)
    assert remote.invoke({"text": blob})["text"] == blob


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"max_value": 1 << 20}, ProtocolError, "1,048,576 bytes that this side accepts"),
        ({"max_bytes": 1 << 20}, HostBusy, "this process holds for one host .*max_bytes"),
    ],
)
def test_a_caller_bounds_what_a_host_sends_it(options: Any, error: type[Exception], says: str) -> None:
    with Host({"many": graph_of(lambda state: {"text": b"x" * state["text"]})}) as host:
        remote = RemoteAgent(f"{host.address}/many", **options)
        with pytest.raises(error, match=says):
            remote.invoke({"text": 2_000_000})
        assert len(remote.invoke({"text": 200_000})["text"]) == 200_000


def test_an_unknown_exception_degrades_to_remote_error() -> None:
    namespace: dict[str, Any] = {"__name__": "nowhere.to.be.found"}
    exec("class Odd(Exception):\n    pass", namespace)

    def fail(state: State) -> State:
        raise namespace["Odd"]("what happened")

    with pytest.raises(RemoteError, match="what happened") as caught:
        loopback(graph_of(fail)).invoke({"text": "x"})
    assert caught.value.type_name.endswith("Odd")


def test_the_unwinding_is_bounded() -> None:
    assert caller_sync.UNWIND_SECONDS <= 10


def test_a_nested_graph_whose_host_is_down_does_not_hide_the_rest() -> None:
    builder = Dag(name="desk").add_node("here", lambda messages: "hello")
    builder.add_node("gone", RemoteAgent("127.0.0.1:9/expert")).add_edge("here", "gone")
    with Host({"desk": builder.compile()}) as host:
        desk = RemoteAgent(f"{host.address}/desk")
        assert desk.card.name == "desk" and "here" in desk.get_graph().nodes
        with pytest.raises(HostUnreachable, match="127.0.0.1:9"):
            desk.invoke({"messages": "hi"})


async def test_a_run_that_is_cancelled_before_its_first_step_ends_on_both_sides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller_async, "UNWIND_SECONDS", 600)

    async def node(messages: list[AnyMessage]) -> str:
        return "done"

    remote = loopback(Dag().add_node("node", node).compile())
    await remote.ainvoke({"messages": "hi"})
    async with asyncio.timeout(100):
        for turns in range(100):
            run = asyncio.create_task(remote.ainvoke({"messages": "hi"}))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await run
