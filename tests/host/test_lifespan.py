"""What a host does before it serves and after its last run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.store.memory import InMemoryStore
from typing_extensions import TypedDict

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import AddressError, HostBusy, HostError
from tests.attacks.kit import eventually
from tests.host.probes import health_of


class State(TypedDict):
    count: int


def counter(**options: Any) -> Any:
    builder = StateGraph(State).add_node("add", lambda state: {"count": state["count"] + 1}).add_edge(START, "add")
    return builder.compile(**options)


async def test_it_runs_on_the_loop_of_the_async_nodes_before_and_after_all_runs(verbs: Any) -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        seen.append(asyncio.get_running_loop())
        yield
        seen.append("closed")

    async def node(state: State) -> State:
        seen.append(asyncio.get_running_loop())
        return state

    graph = StateGraph(State).add_node(node).add_edge(START, "node").compile()
    with Host({"agent": graph}, lifespan=lifespan) as host:
        await verbs.invoke(RemoteAgent("agent", url=host.address), {"count": 0})
        assert len(seen) == 2 and seen[0] is seen[1]
    assert seen[2:] == ["closed"]


async def test_in_async_with_it_runs_on_the_running_loop() -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        seen.append(asyncio.get_running_loop())
        yield
        seen.append(asyncio.get_running_loop())

    async with Host({"agent": counter()}, lifespan=lifespan):
        pass
    assert seen == [asyncio.get_running_loop()] * 2


def test_health_says_serving_when_it_is_warm_and_runs_are_refused_until_then() -> None:
    entered, warm = threading.Event(), threading.Event()

    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        entered.set()
        await asyncio.to_thread(warm.wait, 100)
        host.add("late", counter())
        yield

    host = Host({"agent": counter()}, lifespan=lifespan)
    starting = threading.Thread(target=host.start)
    starting.start()
    try:
        assert entered.wait(100)
        assert health_of(host.address) == "NOT_SERVING"
        remote = RemoteAgent("agent", url=host.address)
        with pytest.raises(HostBusy, match="starting"):
            remote.invoke({"count": 0})
        warm.set()
        starting.join(100)
        assert eventually(lambda: health_of(host.address) == "SERVING")
        assert remote.invoke({"count": 0}) == {"count": 1}
        assert RemoteAgent("late", url=host.address).invoke({"count": 1}) == {"count": 2}
    finally:
        warm.set()
        host.stop()


def test_an_error_in_it_ends_the_start_and_gives_the_address_up(tmp_path: Path) -> None:
    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        raise ValueError("CUDA is not there")
        yield

    address = f"unix:{tmp_path}/host.sock"
    with pytest.raises(ValueError, match="CUDA is not there"):
        Host({"agent": counter()}, lifespan=lifespan, address=address).start()
    with Host({"agent": counter()}, address=address) as host:
        assert RemoteAgent("agent", url=host.address).invoke({"count": 0}) == {"count": 1}


@pytest.mark.parametrize("step", ["lifespan", "checkpointer", "store"])
def test_an_error_says_in_which_step_and_where(step: str) -> None:
    def broken(*given: Any) -> Any:
        raise ValueError

    options: dict[str, Any] = {step: broken}
    with pytest.raises(ValueError) as raised:
        Host({"agent": counter()}, **options).start()
    line = broken.__code__.co_firstlineno + 1
    assert raised.value.__notes__ == [f"At the start of the host, in its {step} 'broken' (line {line} of {__file__})"]


def test_an_error_at_its_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        yield
        raise ValueError("the card is gone")

    with Host({"agent": counter()}, lifespan=lifespan):
        pass
    assert "the lifespan has failed at its end" in caplog.text and "the card is gone" in caplog.text


def test_a_host_is_stopped_while_it_starts() -> None:
    entered, left = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        entered.set()
        try:
            await asyncio.sleep(600)
        finally:
            left.set()
        yield

    host = Host({"agent": counter()}, lifespan=lifespan)

    def start() -> None:
        try:
            host.start()
        except HostError as error:
            errors.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    assert entered.wait(100)
    host.stop()
    starting.join(100)
    assert left.is_set() and "while it was starting" in str(errors[0])


async def test_graphs_without_a_checkpointer_keep_their_threads_in_the_hosts(verbs: Any, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'runs.db'}"
    thread: Any = {"configurable": {"thread_id": "1"}}
    for count in (1, 2):  # the second host finds what the first has kept
        with Host({"agent": accumulating()}, checkpointer=database, tokens={"alice": "a", "bob": "b"}) as host:
            remote = RemoteAgent("agent", url=host.address, token="a")
            assert await verbs.invoke(remote, {"log": ["x"]}, thread) == {"log": ["x"] * count}
            assert (await verbs.call(remote, "get_state", thread)).values == {"log": ["x"] * count}
            other = RemoteAgent("agent", url=host.address, token="b")
            assert (await verbs.call(other, "get_state", thread)).values == {}
            # The checkpointer itself, which a parent and `agentmatrix run --thread` ask.
            await other.acard()
            found = await verbs.call(remote.checkpointer, "get_tuple", thread)
            assert found.checkpoint["channel_values"]["log"] == ["x"] * count
            assert await verbs.call(other.checkpointer, "get_tuple", thread) is None


def accumulating() -> Any:
    import operator
    from typing import Annotated

    log = TypedDict("log", {"log": Annotated[list[str], operator.add]})  # noqa: UP013
    return StateGraph(log).add_node("add", lambda state: {"log": []}).add_edge(START, "add").compile()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///no/such/folder/runs.db", "does not exist"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("mysql://root:secret@there/x", "names no checkpointer"),
        ("runs.db", "names no checkpointer"),
    ],
)
def test_a_wrong_database_is_one_sentence_at_the_start(url: str, words: str) -> None:
    with pytest.raises(AddressError, match=words) as caught:
        Host({"agent": counter()}, checkpointer=url).start()
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("this is a text" * 100)
    with pytest.raises(AddressError, match="cannot be opened: file is not a database"):
        Host({"agent": counter()}, checkpointer=f"sqlite:///{tmp_path / 'runs.db'}").start()


async def test_a_store_of_the_hosts(verbs: Any) -> None:
    from langgraph.store.base import BaseStore

    closed: list[bool] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[InMemoryStore]:
        yield InMemoryStore()
        closed.append(True)

    def remember(state: State, *, store: BaseStore) -> State:
        store.put(("notes",), "last", {"count": state["count"]})
        return {"count": len(store.search(("notes",)))}

    graph = StateGraph(State).add_node(remember).add_edge(START, "remember").compile()
    with Host({"agent": graph}, store=make) as host:
        assert await verbs.invoke(RemoteAgent("agent", url=host.address), {"count": 7}) == {"count": 1}
    assert closed == [True]
    with pytest.raises(TypeError, match="store= takes a BaseStore or a function"):
        Host({"agent": graph}, store=lambda: 7).start()
