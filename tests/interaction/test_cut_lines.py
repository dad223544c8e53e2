"""Lines to a host in another process are cut under runs: nothing is lost, nothing comes twice, nothing runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentmatrix import Dag, Host, RemoteAgent, any_of
from agentmatrix.errors import DeadlineExceeded, HostLost
from agentmatrix.live import LiveRun
from agentmatrix.session import caller_async, caller_sync
from tests.faulty_proxy import FaultyProxy
from tests.forked import Forked
from tests.interaction.cut_graphs import PARTS, State, begun, serve
from tests.live import triggered_graphs

THREAD: Any = {"configurable": {"thread_id": "1"}}
Cut = Callable[..., FaultyProxy]


@pytest.fixture
def line() -> Iterator[Cut]:
    """Starts a host in another process; returns the proxy before it."""
    with contextlib.ExitStack() as stack:

        def start(inner: str = "", **options: Any) -> FaultyProxy:
            process = stack.enter_context(Forked(serve, inner, {"linger": 60.0, **options}))
            address = process.stdout.readline().split()[0]
            return stack.enter_context(FaultyProxy(address))

        yield start


@contextlib.contextmanager
def cutting(proxy: FaultyProxy) -> Iterator[None]:
    """Cuts the line at once, and again and again, less and less often: a slow machine has to come back in between."""
    ended = threading.Event()
    proxy.cut()

    def cut() -> None:
        pause = 0.1
        while not ended.wait(pause):
            proxy.cut()
            pause *= 1.15

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.01)
    return condition()


def free(folder: Path, *names: str) -> None:
    for name in names or ("one", "two", "three"):
        (folder / f"{name}.end").touch()


def down(remote: RemoteAgent, proxy: FaultyProxy) -> None:
    """Cuts the line until `proxy.refuses` is False again, and waits until the caller has noticed."""
    proxy.refuses = True
    proxy.cut()
    assert eventually(lambda: "lost" in repr(remote))


def above(nested: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("far", nested).add_edge(START, "far").compile(**options)


async def test_every_part_of_a_stream_comes_once(line: Cut, verbs: Any, tmp_path: Path) -> None:
    proxy = line()
    remote = RemoteAgent(f"{proxy.address}/{'a' if verbs.is_async else ''}talk", reconnect_timeout=60)
    given = {"done": [], "text": "x" * 300_000}
    assert remote.card  # a host that is not reached at first is not tried again
    with cutting(proxy):
        parts = await verbs.listed(remote, "stream", given, stream_mode=["custom", "values"])
    assert [part for mode, part in parts if mode == "custom"] == list(range(PARTS))
    assert parts[-1][1] == {"done": ["talked"], "text": "x" * 300_000}
    assert proxy.accepted > 1


async def test_a_run_waits_at_its_saver_while_the_line_is_cut(line: Cut, verbs: Any, tmp_path: Path) -> None:
    proxy = line(answer_timeout=3.0)
    remote = RemoteAgent(f"{proxy.address}/{'a' if verbs.is_async else ''}steps", reconnect_timeout=60)
    graph = above(remote, checkpointer=InMemorySaver())
    given: Any = {"done": [], "folder": str(tmp_path)}

    def break_and_mend() -> None:
        assert eventually(lambda: begun(tmp_path) == ["one"])
        down(remote, proxy)
        free(tmp_path)
        time.sleep(4.0)  # longer than the host waits for an answer: that stands still, and so does the run
        assert begun(tmp_path) == ["one"]
        proxy.refuses = False

    breaking = asyncio.create_task(asyncio.to_thread(break_and_mend))
    call = verbs.invoke(graph, given, THREAD, durability="sync")
    result = await call if verbs.is_async else await asyncio.to_thread(asyncio.run, call)
    await breaking
    assert result["done"] == begun(tmp_path) == ["one", "two", "three"]
    assert [*graph.get_state_history(THREAD)][0].values["done"] == ["one", "two", "three"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_every_signal_counts_once(line: Cut, tmp_path: Path, way: str) -> None:
    proxy = line()
    words = [str(number) for number in range(40)]
    with Forked(triggered_graphs.run_live, proxy.address, str(tmp_path), way) as caller:

        def say(words: list[str]) -> None:
            for word in words:
                caller.stdin.write(f"{word}\n")
                caller.stdin.flush()
                assert caller.stdout.readline() == f"taken {word}\n"

        say(words[:1])  # a host that is not reached at first is not tried again
        with cutting(proxy):
            say(words[1:])
            out, errors = caller.communicate(60)
    assert out == f"result {','.join(words)}\n", errors
    assert (tmp_path / "heard").read_text().split() == words and proxy.accepted > 1


def test_a_host_that_is_a_caller_itself(line: Cut, tmp_path: Path) -> None:
    inner = line()
    outer = line(inner.address)
    graph = above(RemoteAgent(f"{outer.address}/outer", reconnect_timeout=60), checkpointer=InMemorySaver())

    def work() -> None:
        for number, name in enumerate(("one", "two", "three"), 1):
            assert eventually(lambda number=number: len(begun(tmp_path)) == number)  # type: ignore[misc]
            (inner, outer, inner)[number - 1].cut()
            free(tmp_path, name)
            outer.cut()

    breaking = threading.Thread(target=work)
    breaking.start()
    result = graph.invoke({"done": [], "folder": str(tmp_path)}, THREAD, durability="sync")
    breaking.join()
    assert result["done"] == begun(tmp_path) == ["one", "two", "three"]


@pytest.fixture
def patient_unwinding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a run to unwind, waits for longer than a test may take."""
    monkeypatch.setattr(caller_async, "UNWIND_SECONDS", 1000)
    monkeypatch.setattr(caller_sync, "UNWIND_SECONDS", 1000)


@pytest.mark.usefixtures("patient_unwinding")
async def test_who_leaves_while_the_line_is_cut_does_not_wait_for_it(line: Cut, tmp_path: Path) -> None:
    proxy = line(linger=0.5)
    remote = RemoteAgent(f"{proxy.address}/asteps", reconnect_timeout=60)
    call = asyncio.create_task(remote.ainvoke({"done": [], "folder": str(tmp_path)}))
    assert await asyncio.to_thread(eventually, lambda: begun(tmp_path) == ["one"])
    await asyncio.to_thread(down, remote, proxy)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.usefixtures("patient_unwinding")
async def test_a_run_that_is_being_stopped_when_the_line_is_cut(line: Cut, tmp_path: Path) -> None:
    proxy = line()
    remote = RemoteAgent(f"{proxy.address}/steps", reconnect_timeout=60)
    call = asyncio.create_task(remote.ainvoke({"done": [], "folder": str(tmp_path)}))
    assert await asyncio.to_thread(eventually, lambda: begun(tmp_path) == ["one"])
    call.cancel()  # the node goes on: sync code is not interrupted
    await asyncio.sleep(0.2)
    proxy.refuses = True
    proxy.cut()
    with pytest.raises(asyncio.CancelledError):
        await call
    free(tmp_path)


def test_a_deadline_is_kept_while_the_line_is_cut(line: Cut, tmp_path: Path) -> None:
    proxy = line()
    remote = RemoteAgent(f"{proxy.address}/steps", timeout=3.0, reconnect_timeout=60)
    breaking = threading.Thread(target=lambda: eventually(lambda: begun(tmp_path) == ["one"]) and down(remote, proxy))
    breaking.start()
    with pytest.raises(DeadlineExceeded, match="the line is cut, and it ends there by itself"):
        remote.invoke({"done": [], "folder": str(tmp_path)})
    breaking.join()
    free(tmp_path)


@pytest.mark.usefixtures("patient_unwinding")
def test_a_run_whose_work_is_given_up_while_the_line_is_cut(line: Cut, tmp_path: Path) -> None:
    """A race of two nodes, whose loser is on a host that cannot be told."""
    proxy = line()
    remote = RemoteAgent(f"{proxy.address}/steps", reconnect_timeout=60)

    def quick(state: State) -> State:
        assert eventually(lambda: begun(tmp_path) == ["one"])
        down(remote, proxy)
        return {"done": ["quick"]}

    dag = Dag(State).add_node("far", remote).add_node("quick", quick).add_node("end", lambda state: {"done": ["end"]})
    dag.add_trigger("end", any_of("far", "quick", cancel_rest=True))
    assert dag.compile().invoke({"done": [], "folder": str(tmp_path)})["done"] == ["quick", "end"]
    free(tmp_path)


def test_what_cannot_be_taken_up_says_what_is_known(line: Cut, tmp_path: Path) -> None:
    proxy = line(linger=0.3)
    remote = RemoteAgent(f"{proxy.address}/steps", reconnect_timeout=60)
    graph = above(remote, checkpointer=InMemorySaver())

    def break_for_long() -> None:
        assert eventually(lambda: begun(tmp_path) == ["one"])
        down(remote, proxy)
        time.sleep(1.0)
        proxy.refuses = False

    breaking = threading.Thread(target=break_for_long)
    breaking.start()
    with pytest.raises(HostLost) as lost:
        graph.invoke({"done": [], "folder": str(tmp_path)}, THREAD, durability="sync")
    breaking.join()
    for word in ("does not keep this connection any more", "the host had taken it", "call again with None"):
        assert word in str(lost.value)
    assert lost.value.delivered
    free(tmp_path)
    assert graph.invoke(None, THREAD)["done"] == ["one", "two", "three"]


def test_a_live_run_outlives_its_line_in_this_process(line: Cut, tmp_path: Path) -> None:
    proxy = line()
    remote = RemoteAgent(f"{proxy.address}/sync", reconnect_timeout=60)
    graph = triggered_graphs.above(remote, checkpointer=InMemorySaver())
    with LiveRun(graph, {"heard": [], "folder": str(tmp_path)}, THREAD) as run:
        run.signal("panel/audio", 1)
        down(remote, proxy)
        threading.Timer(0.5, setattr, (proxy, "refuses", False)).start()
        run.signal("panel/audio", 2)
    assert run.result()["heard"] == [1, 2]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_what_is_no_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="linger= takes seconds"):
        Host({"a": lambda messages: "x"}, linger=seconds)
    with pytest.raises(ValueError, match="reconnect_timeout= takes seconds"):
        RemoteAgent("127.0.0.1:1/a", reconnect_timeout=seconds)
