"""A remote agent at several hosts, over real connections: shares, losses, drains, queues, cards that differ."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.types import Command, RetryPolicy, interrupt
from typing_extensions import TypedDict

from agentmatrix import CyclicGraph, Dag, Host, RemoteAgent
from agentmatrix.errors import HostBusy, HostLost, HostUnreachable, ReplicaMismatch
from tests.attacks.kit import eventually


class State(TypedDict, total=False):
    n: int
    by: str


class Hosts:
    """Hosts of one graph in this process; each notes the runs that it has, and holds them up if it is told to."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.hosts: list[Host] = []
        self.runs = Counter[str]()
        self.held = asyncio.Event()
        self.working = threading.Semaphore(0)
        self.holds = False

    def graph(self, name: str, **options: Any) -> Any:
        async def work(state: State) -> State:
            self.runs[name] += 1
            self.working.release()
            while self.holds:
                await asyncio.sleep(0.005)
            return {"by": name}

        return Dag(State, name="worker").add_node("work", work).compile(**options)

    def start(self, name: str, graph: Any = None, address: str = "127.0.0.1:0", **options: Any) -> Host:
        host = Host({"worker": graph or self.graph(name)}, address=address, **options).start()
        self.hosts.append(host)
        self._stack.callback(host.stop)
        return host

    def remote(self, **options: Any) -> RemoteAgent:
        remote = RemoteAgent([f"{host.address}/worker" for host in self.hosts], **options)
        self._stack.callback(remote.close)
        return remote


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        yield Hosts(stack)


def states(remote: RemoteAgent) -> list[str]:
    return [replica.state for replica in remote.replicas]


async def test_64_callers_are_shared_out(hosts: Hosts) -> None:
    hosts.start("a")
    hosts.start("b")
    remote = hosts.remote()

    async def caller() -> None:
        for n in range(5):
            assert (await remote.ainvoke({"n": n}))["n"] == n

    await asyncio.gather(*(caller() for _ in range(64)))
    assert hosts.runs.total() == 320
    assert all(0.4 <= runs / 320 <= 0.6 for runs in hosts.runs.values()), hosts.runs
    assert [replica.runs for replica in remote.replicas] == [0, 0]


async def test_a_replica_that_is_gone_costs_no_run_and_returns(verbs: Any, hosts: Hosts) -> None:
    first = hosts.start("a")
    hosts.start("b")
    remote = hosts.remote()
    address = first.address
    for _ in range(4):
        await verbs.invoke(remote, {"n": 1})
    first.stop()
    for _ in range(6):
        assert (await verbs.invoke(remote, {"n": 1}))["by"] == "b"
    assert states(remote) == ["ejected", "ready"]
    hosts.start("a again", address=address)
    seen = set()
    async with asyncio.timeout(60):
        while "a again" not in seen:  # it is asked for its health while runs come
            seen.add((await verbs.invoke(remote, {"n": 1}))["by"])
    assert states(remote) == ["ready", "ready"]


async def test_where_no_replica_lives_the_error_names_all(verbs: Any, hosts: Hosts) -> None:
    remote = RemoteAgent(["127.0.0.1:1/worker", "127.0.0.1:2/worker"])
    with pytest.raises(HostUnreachable, match="127.0.0.1:[12].*127.0.0.1:[12]|no host answers"):
        await verbs.invoke(remote, {"n": 1})
    host = hosts.start("a")
    remote = RemoteAgent(["127.0.0.1:1/worker", f"{host.address}/worker"])
    assert (await verbs.invoke(remote, {"n": 1}))["by"] == "a"


async def test_a_draining_replica_gets_no_run(hosts: Hosts) -> None:
    hosts.holds = True
    draining = hosts.start("a")
    hosts.start("b")
    remote = hosts.remote()
    under_way = [asyncio.create_task(remote.ainvoke({"n": n})) for n in range(4)]
    await asyncio.to_thread(eventually, lambda: hosts.runs.total() == 4)
    drain = threading.Thread(target=draining.drain, args=(100,), kwargs={"grace": 100})
    drain.start()
    probe = RemoteAgent(f"{draining.address}/worker")
    async with asyncio.timeout(60):
        while True:  # until it drains
            try:
                await asyncio.wait_for(probe.ainvoke({"n": 1}), 0.2)
            except HostBusy:
                break
            except TimeoutError:
                continue
    before = hosts.runs["a"]
    more = [asyncio.create_task(remote.ainvoke({"n": n})) for n in range(10)]
    await asyncio.to_thread(eventually, lambda: hosts.runs["b"] == 12)
    assert hosts.runs["a"] == before
    hosts.holds = False
    assert Counter([(await run)["by"] for run in more]) == {"b": 10}
    assert Counter([(await run)["by"] for run in under_way]) == {"a": 2, "b": 2}
    drain.join(100)


async def test_a_full_replica_sends_to_another_before_the_policy_waits(verbs: Any, hosts: Hosts) -> None:
    hosts.holds = True
    for name in "ab":
        hosts.start(name, max_runs=1, max_queue=0)
    remote = hosts.remote()
    with ThreadPoolExecutor() as threads:
        taken = [threads.submit(RemoteAgent(f"{host.address}/worker").invoke, {"n": 0}) for host in hosts.hosts[:1]]
        assert await asyncio.to_thread(eventually, lambda: hosts.runs["a"] == 1)
        second = threads.submit(lambda: asyncio.run(verbs.invoke(remote, {"n": 1})))
        assert await asyncio.to_thread(eventually, lambda: hosts.runs["b"] == 1)
        with pytest.raises(HostBusy) as busy:
            await verbs.invoke(remote, {"n": 2})
        assert busy.value.retry_after
        patient = hosts.remote(retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=1000, jitter=False))
        third = threads.submit(lambda: asyncio.run(verbs.listed(patient, "stream", {"n": 3})))
        hosts.holds = False
        assert third.result(100) and second.result(100)["by"] == "b" and taken[0].result(100)["by"] == "a"


async def test_a_touched_run_without_a_checkpointer_is_lost(verbs: Any, hosts: Hosts) -> None:
    hosts.holds = True
    hosts.start("a")
    hosts.start("b")
    remote = hosts.remote()
    with ThreadPoolExecutor() as threads:
        run = threads.submit(lambda: asyncio.run(verbs.invoke(remote, {"n": 1})))
        assert hosts.working.acquire(timeout=100)
        hosts.hosts["ab".index(next(iter(hosts.runs)))].stop(0)
        with pytest.raises(HostLost, match="call again with None"):
            run.result(100)
    assert hosts.runs.total() == 1


async def test_cards_that_differ_are_an_error_that_names_both(verbs: Any, hosts: Hosts) -> None:
    class Other(State, total=False):
        more: str

    hosts.start("a")
    hosts.start("b", Dag(Other, name="worker").add_node("work", lambda state: {"by": "b"}).compile())
    remote = hosts.remote()
    a, b = (host.address for host in hosts.hosts)
    for _ in range(2):
        with pytest.raises(ReplicaMismatch, match=f"{a}/worker and grpc://{b}/worker .*schemas.*more"):
            await verbs.invoke(remote, {"n": 1})
    assert not hosts.runs


async def test_a_replica_that_comes_back_with_another_graph_gets_no_run(hosts: Hosts) -> None:
    first = hosts.start("a")
    hosts.start("b")
    remote, address = hosts.remote(), first.address
    await remote.ainvoke({"n": 1})
    first.stop()
    for _ in range(3):
        await remote.ainvoke({"n": 1})
    other = CyclicGraph(State, name="worker").add_node("other", lambda state: {"by": "other"})
    hosts.start("a", other.add_edge("__start__", "other").compile(), address=address)
    async with asyncio.timeout(60):
        for _ in range(30):
            assert (await remote.ainvoke({"n": 1}))["by"] == "b"
            await asyncio.sleep(0.05)
    # When the others are gone, too, what is there is asked anew.
    hosts.hosts[1].stop()
    with pytest.raises(ReplicaMismatch):
        await remote.ainvoke({"n": 1})
    assert (await remote.ainvoke({"n": 1}))["by"] == "other"


async def test_a_resolver_is_asked_again_when_a_replica_is_lost(verbs: Any, hosts: Hosts) -> None:
    hosts.start("a")
    asked: list[int] = []

    async def where() -> Iterable[str]:
        asked.append(len(hosts.hosts))
        return [f"{host._bound}/worker" for host in hosts.hosts if host._bound]

    remote = RemoteAgent(where)
    assert (await verbs.invoke(remote, {"n": 1}))["by"] == "a"
    assert len(asked) == 1
    hosts.start("b")
    hosts.hosts[0].stop()
    async with asyncio.timeout(100):
        while True:
            try:
                found = await verbs.invoke(remote, {"n": 1})
                break
            except HostUnreachable:  # it is asked once a second
                await asyncio.sleep(0.05)
    assert found["by"] == "b"
    assert [replica.target for replica in remote.replicas] == [f"grpc://{hosts.hosts[1].address}/worker"]


async def test_a_name_of_the_dns(verbs: Any, hosts: Hosts) -> None:
    host = hosts.start("a")
    remote = RemoteAgent(f"dns:///localhost:{host.address.rpartition(':')[2]}/worker")
    assert (await verbs.invoke(remote, {"n": 1}))["by"] == "a"
    assert any("127.0.0.1" in replica.target for replica in remote.replicas)


async def test_all_that_a_remote_agent_offers(verbs: Any, hosts: Hosts, tmp_path: Path) -> None:
    for name in "ab":
        hosts.start(name, token="secret")
    remote = hosts.remote(token="secret")
    assert "not reached" in str(remote.get_graph().nodes["worker"].name)
    assert await verbs.listed(remote, "stream", {"n": 1}, stream_mode="updates")
    assert set(remote.get_graph().nodes) == {"__start__", "work", "__end__"}
    assert remote.get_input_jsonschema()["properties"].keys() == {"n", "by"}
    assert remote.ping() > 0 and await remote.aping() > 0
    assert [event["name"] async for event in remote.astream_events({"n": 1}) if event["event"] == "on_chain_end"]
    tagged = remote.with_config(tags=["t"])
    assert (await verbs.invoke(tagged, {"n": 1}))["n"] == 1
    again = pickle.loads(pickle.dumps(remote))
    again._connection.given = remote._connection.given  # a pickle keeps no token
    assert (await verbs.invoke(again, {"n": 1}))["n"] == 1
    # Inside of another graph, which a third host exports.
    outer = Dag(State, name="outer").add_node("inner", remote).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    assert (await verbs.invoke(outer, {"n": 5}, config))["n"] == 5
    assert "inner" in dict(outer.get_subgraphs())
    with Host({"outer": outer}) as third:
        assert (await verbs.invoke(RemoteAgent(f"{third.address}/outer"), {"n": 6}, config))["n"] == 6


async def test_any_replica_takes_the_answer_to_a_question(verbs: Any, hosts: Hosts) -> None:
    def ask(state: State) -> State:
        return {"by": interrupt("who?")}

    for name in "ab":
        hosts.start(name, Dag(State, name="worker").add_node("ask", ask).compile())
    remote = hosts.remote()
    outer = Dag(State).add_node("inner", remote).compile(checkpointer=InMemorySaver())
    for n in range(6):
        config: Any = {"configurable": {"thread_id": str(n)}}
        assert "__interrupt__" in await verbs.invoke(outer, {"n": n}, config)
        assert await verbs.invoke(outer, Command(resume="me"), config) == {"n": n, "by": "me"}


async def test_a_run_that_stops_at_a_checkpoint_of_its_host_goes_on_at_another(verbs: Any, tmp_path: Path) -> None:
    """Where they share a database; where they do not, its caller is told."""
    from tests.host.test_drain import Steps, begun, drained

    for shared in (True, False):
        first, second = Steps(), Steps()
        second.go.set()
        databases = ["runs.db" if shared else f"{shared}-{name}.db" for name in "ab"]
        options: list[Any] = [{"checkpointer": f"sqlite:///{tmp_path / name}"} for name in databases]
        config: Any = {"configurable": {"thread_id": "1"}}
        with (
            ThreadPoolExecutor() as threads,
            Host({"agent": first.graph}, **options[0]) as a,
            Host({"agent": second.graph}, **options[1]) as b,
        ):
            remote = RemoteAgent([f"{host.address}/agent" for host in (a, b)])
            run = begun(threads, verbs, remote, {"log": []}, config)
            assert first.entered.wait(100)
            draining = drained(a, 100, 0)
            if shared:
                assert run.result(100) == {"log": ["first", "second"]}
            else:
                with pytest.raises(GraphDrained):
                    run.result(100)
            draining.join(100)
        assert first.ran == ["first"] and second.ran == (["second"] if shared else [])
