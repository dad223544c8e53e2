"""Replicas in processes of their own that are killed, or told to stop, in the middle of a run."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentmatrix import Dag, RemoteAgent
from agentmatrix.errors import HostLost
from agentmatrix.live import LiveRun
from tests.attacks.kit import eventually
from tests.faulty_proxy import FaultyProxy
from tests.forked import Forked
from tests.live.triggered_graphs import above
from tests.remote.hosted_steps import Steps, serve_listener, serve_steps


class Processes:
    """Two hosts. Which of them runs a node is seen in the file that the node has written."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder, self._stack = folder, stack
        self.started: list[Forked] = []
        self.addresses: list[str] = []

    def start(self, *checkpointers: str | None) -> None:
        """Both, with these checkpointers of their own."""
        for checkpointer in checkpointers:
            self.started.append(self._stack.enter_context(Forked(serve_steps, 0, checkpointer)))
            self.addresses.append(self.started[-1].stdout.readline().strip())

    def start_again(self, number: int) -> None:
        """The first or the second, at its address."""
        process = Forked(serve_steps, int(self.addresses[number].rpartition(":")[2]))
        self.started[number] = self._stack.enter_context(process)
        assert process.stdout.readline().strip() == self.addresses[number]

    def remote(self, agent: str = "steps", **options: Any) -> RemoteAgent:
        return RemoteAgent([f"{address}/{agent}" for address in self.addresses], **options)

    def nodes(self) -> list[list[str]]:
        path = self.folder / "nodes"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def counts(self) -> Counter[str]:
        return Counter(node for _, node, _ in self.nodes())

    def hold(self, node: str) -> None:
        (self.folder / f"hold-{node}").touch()

    def let_go(self, node: str) -> None:
        (self.folder / f"hold-{node}").unlink()

    async def until(self, node: str, count: int = 1) -> None:
        assert await asyncio.to_thread(eventually, lambda: self.counts()[node] >= count, 60), self.nodes()

    def where(self, node: str) -> Forked:
        """The host that began a node last."""
        pid = next(int(pid) for _, name, pid in reversed(self.nodes()) if name == node)
        return next(process for process in self.started if process._process.pid == pid)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as stack:
        found = Processes(stack, tmp_path)
        found.start(None, None)
        yield found


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack, tmp_path)


def around(remote: RemoteAgent, build: Any = StateGraph, **options: Any) -> Any:
    builder = build(Steps).add_node("inner", remote).add_edge(START, "inner")
    return builder.compile(checkpointer=InMemorySaver(), **options)


def given(processes: Processes) -> tuple[Steps, Any]:
    return {"folder": str(processes.folder), "key": "1"}, {"configurable": {"thread_id": "1"}}


@pytest.mark.parametrize("agent", ["steps", "dag", "sync"])
async def test_a_lost_run_goes_on_elsewhere_from_its_parents_checkpoint(
    verbs: Any, processes: Processes, agent: str
) -> None:
    processes.hold("second")
    graph = around(processes.remote(agent))
    with ThreadPoolExecutor() as threads:
        state, config = given(processes)
        run = threads.submit(lambda: asyncio.run(verbs.invoke(graph, state, config, durability="sync")))
        await processes.until("second")
        processes.where("second").send_signal(signal.SIGKILL)
        await processes.until("second", 2)
        processes.let_go("second")
        assert run.result(60)["log"] == ["first", "second", "third"]
    # What had finished did not run again; what was under way did.
    assert processes.counts() == {"first": 1, "second": 2, "third": 1}
    assert len({pid for *_, pid in processes.nodes()}) == 2
    assert (await graph.aget_state(config)).next == ()


async def test_a_replica_that_is_gone_is_not_waited_for(processes: Processes) -> None:
    processes.hold("second")
    state, config = given(processes)
    # Longer than the test may take.
    graph = around(processes.remote(reconnect_timeout=3600))
    run = asyncio.create_task(graph.ainvoke(state, config, durability="sync"))
    await processes.until("second")
    processes.where("second").send_signal(signal.SIGKILL)
    await processes.until("second", 2)
    processes.let_go("second")
    assert (await run)["log"] == ["first", "second", "third"]


async def test_behind_a_tunnel_that_refuses_a_run_waits_that_cannot_go_on_elsewhere(
    verbs: Any, processes: Processes
) -> None:
    """And nobody waits with it who can: both runs have come to the host by one line."""
    processes.hold("second")
    first, second = processes.addresses
    with FaultyProxy(second) as tunnel, ExitStack() as closed, ThreadPoolExecutor() as threads:
        broken = closed.enter_context(FaultyProxy(first))
        state, config = given(processes)
        remote = RemoteAgent([f"{broken.address}/steps", f"{tunnel.address}/steps"], reconnect_timeout=3600)
        lonely = [
            threads.submit(lambda n=n: asyncio.run(verbs.invoke(remote, {**state, "key": f"lonely-{n}"})))
            for n in range(2)
        ]
        await processes.until("second", 2)
        saved = [
            threads.submit(
                lambda n=n: asyncio.run(
                    verbs.invoke(
                        around(remote),
                        {**state, "key": f"saved-{n}"},
                        config,
                        durability="sync",
                    )
                )
            )
            for n in range(2)
        ]
        await processes.until("second", 4)
        closed.close()
        # The one that had been behind that tunnel goes on behind the other.
        await processes.until("second", 5)
        processes.let_go("second")
        for run in saved:
            assert run.result(60)["log"] == ["first", "second", "third"]
        assert not all(run.done() for run in lonely)
        with FaultyProxy(first, port=broken.port):
            for run in lonely:
                assert run.result(60)["log"] == ["first", "second", "third"]
    runs = Counter(key for key, node, _ in processes.nodes() if node == "second")
    assert sorted(runs.values()) == [1, 1, 1, 2]


async def test_without_a_time_to_reconnect_nobody_waits_behind_a_tunnel_that_refuses(
    verbs: Any, processes: Processes
) -> None:
    processes.hold("second")
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        tunnels = [stack.enter_context(FaultyProxy(address)) for address in processes.addresses]
        remote = RemoteAgent([f"{tunnel.address}/steps" for tunnel in tunnels])
        run = threads.submit(lambda: asyncio.run(verbs.invoke(remote, given(processes)[0])))
        await processes.until("second")
        stack.close()
        with pytest.raises(HostLost):
            run.result(60)
        processes.let_go("second")


@pytest.mark.parametrize("agent", ["steps", "dag"])
async def test_a_drained_run_goes_on_elsewhere_and_no_node_runs_twice(
    verbs: Any, processes: Processes, agent: str
) -> None:
    processes.hold("second")  # until its host asks the run to stop
    graph = around(processes.remote(agent), Dag)
    with ThreadPoolExecutor() as threads:
        state, config = given(processes)
        run = threads.submit(lambda: asyncio.run(verbs.listed(graph, "stream", state, config, stream_mode="values")))
        await processes.until("second")
        stopping = processes.where("second")
        stopping.send_signal(signal.SIGTERM)
        assert run.result(60)[-1]["log"] == ["first", "second", "third"]
        assert await asyncio.to_thread(stopping.wait, 60) == 0
    assert processes.counts() == {"first": 1, "second": 1, "third": 1}
    where = {node: pid for _, node, pid in processes.nodes()}
    assert where["first"] == where["second"] != where["third"]


@pytest.mark.parametrize("comes_back", ["the one that had it", "the other one"])
async def test_a_lost_run_waits_for_a_replica_while_none_is_there(processes: Processes, comes_back: str) -> None:
    processes.hold("second")
    remote = processes.remote()
    state, config = given(processes)
    run = asyncio.create_task(around(remote).ainvoke(state, config, durability="sync"))
    await processes.until("second")
    had_it = processes.started.index(processes.where("second"))
    for process in (processes.started[1 - had_it], processes.started[had_it]):
        process.send_signal(signal.SIGKILL)
    # The run is lost, and the other one was asked.
    assert await asyncio.to_thread(eventually, lambda: all(r.state == "ejected" for r in remote.replicas), 60)
    processes.start_again(had_it if comes_back == "the one that had it" else 1 - had_it)
    await processes.until("second", 2)
    processes.let_go("second")
    assert (await run)["log"] == ["first", "second", "third"]
    assert processes.counts() == {"first": 1, "second": 2, "third": 1}


@pytest.mark.parametrize("is_shared", [True, False])
async def test_a_lost_run_goes_on_from_a_database_of_the_hosts(
    verbs: Any, unstarted: Processes, is_shared: bool
) -> None:
    processes, names = unstarted, ("one", "one" if is_shared else "two")
    processes.start(*(f"sqlite:///{processes.folder / name}.db" for name in names))
    processes.hold("second")
    remote = processes.remote()
    with ThreadPoolExecutor() as threads:
        state, config = given(processes)
        run = threads.submit(lambda: asyncio.run(verbs.invoke(remote, state, config, durability="sync")))
        await processes.until("second")
        had_it = processes.where("second")
        had_it.send_signal(signal.SIGKILL)
        if not is_shared:
            with pytest.raises(HostLost, match="no checkpoint of it: either the run had saved none, or the replicas"):
                run.result(60)
            assert processes.counts() == {"first": 1, "second": 1}
            return
        await processes.until("second", 2)
        processes.let_go("second")
        assert run.result(60)["log"] == ["first", "second", "third"]
    assert processes.counts() == {"first": 1, "second": 2, "third": 1}
    found = await verbs.call(remote, "get_state", config)
    assert found.next == () and found.values["log"] == ["first", "second", "third"]


async def test_a_graph_that_remembers_goes_on_elsewhere(processes: Processes) -> None:
    """Its memory is in its parent's checkpointer (checkpointer=True), from one call of the thread to the next."""
    graph, undisturbed = (around(processes.remote("memory")) for _ in range(2))
    state, config = given(processes)
    await graph.ainvoke(state, config)
    processes.hold("second")
    run = asyncio.create_task(graph.ainvoke(state, config, durability="sync"))
    await processes.until("second", 2)
    processes.where("second").send_signal(signal.SIGKILL)
    await processes.until("second", 3)
    processes.let_go("second")
    log = (await run)["log"]
    assert processes.counts() == {"first": 2, "second": 3, "third": 2}
    await undisturbed.ainvoke(state, config)
    assert log == (await undisturbed.ainvoke(state, config))["log"]


async def test_a_run_that_saves_nothing_on_its_way_is_lost(verbs: Any, processes: Processes) -> None:
    processes.hold("second")
    graph = around(processes.remote())
    with ThreadPoolExecutor() as threads:
        state, config = given(processes)
        run = threads.submit(lambda: asyncio.run(verbs.invoke(graph, state, config, durability="exit")))
        await processes.until("second")
        processes.where("second").send_signal(signal.SIGKILL)
        with pytest.raises(HostLost):
            run.result(60)
    assert processes.counts() == {"first": 1, "second": 1}


async def test_a_graph_called_in_a_node_goes_on_too(processes: Processes) -> None:
    """Two calls in one node are two nested graphs: each goes on in its own namespace."""
    remote, is_held = processes.remote(), asyncio.Event()

    async def calls(state: Steps) -> Steps:
        one = await remote.ainvoke({**state, "key": "one", "log": []})
        await is_held.wait()
        two = await remote.ainvoke({**state, "key": "two", "log": []})
        return {"log": [*one["log"], *two["log"]]}

    graph = StateGraph(Steps).add_node("calls", calls).add_edge(START, "calls").compile(checkpointer=InMemorySaver())
    state, config = given(processes)
    await remote.acard()
    run = asyncio.create_task(graph.ainvoke(state, config, durability="sync"))
    await processes.until("third")
    processes.hold("second")
    is_held.set()
    await processes.until("second", 2)
    processes.where("second").send_signal(signal.SIGKILL)
    await processes.until("second", 3)
    processes.let_go("second")
    assert (await run)["log"] == ["first", "second", "third"] * 2
    assert Counter((key, node) for key, node, _ in processes.nodes()) == {
        **dict.fromkeys([("one", "first"), ("one", "second"), ("one", "third")], 1),
        ("two", "first"): 1,
        ("two", "second"): 2,
        ("two", "third"): 1,
    }


async def test_a_state_is_read_elsewhere(verbs: Any, processes: Processes) -> None:
    remote = processes.remote()
    graph = around(remote)
    state, config = given(processes)
    await verbs.invoke(graph, state, config)
    processes.started[0].send_signal(signal.SIGKILL)
    for _ in range(4):
        assert (await verbs.call(remote, "get_graph")).nodes
        found = await verbs.call(graph, "get_state", config, subgraphs=True)
        assert found.values["log"] == ["first", "second", "third"]


@pytest.mark.parametrize("ends", ["killed", "drained"])
async def test_a_live_run_goes_on_elsewhere_and_no_signal_is_lost(tmp_path: Path, ends: str) -> None:
    with Forked(serve_listener) as one, Forked(serve_listener) as two:
        remote = RemoteAgent([f"{process.stdout.readline().strip()}/listener" for process in (one, two)])
        graph = above(remote, checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "1"}}
        async with LiveRun(graph, {"heard": []}, config, durability="sync") as run:
            for number in range(5):
                await run.signal("panel/audio", number)
            busy = next(n for n, replica in enumerate(remote.replicas) if replica.runs)
            (one, two)[busy].send_signal(signal.SIGKILL if ends == "killed" else signal.SIGTERM)
            for number in range(5, 10):
                await run.signal("panel/audio", number)
                assert await asyncio.to_thread(eventually, lambda: sum(r.runs for r in remote.replicas) == 1, 60)
        assert (await run.result())["heard"] == list(range(10))
