"""A host that stops in good order: no run is cut that could end, or stop at a checkpoint."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import grpc
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.errors import HostBusy, HostLost
from tests.attacks.kit import eventually
from tests.host.probes import watched

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


class Steps:
    """A graph of two nodes, of which the first waits until it is let go, or the run is drained."""

    def __init__(self, build: Callable[..., Any] = StateGraph, **options: Any) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.ran: list[str] = []
        builder = build(State).add_node("first", self.first).add_node("second", self.second)
        builder.add_edge(START, "first").add_edge("first", "second")
        self.graph = builder.compile(**options)

    def first(self, state: State, runtime: Runtime[Any]) -> State:
        self.entered.set()
        control = runtime.control
        assert eventually(lambda: self.go.is_set() or (control is not None and control.drain_requested), 100)
        self.ran.append("first")
        return {"log": ["first"]}

    def second(self, state: State) -> State:
        self.ran.append("second")
        return {"log": ["second"]}


def begun(threads: Executor, verbs: Any, *arguments: Any) -> Future[Any]:
    """A run of a remote agent, in a thread of its own."""
    return threads.submit(lambda: asyncio.run(verbs.invoke(*arguments)))


def drained(host: Host, timeout: float, grace: float) -> threading.Thread:
    thread = threading.Thread(target=host.drain, args=(timeout,), kwargs={"grace": grace})
    thread.start()
    return thread


@pytest.mark.parametrize("build", [StateGraph, Dag])
async def test_a_run_of_a_host_with_a_checkpointer_stops_there_and_goes_on_elsewhere(
    verbs: Any, build: Callable[..., Any], tmp_path: Path
) -> None:
    options: Any = {"checkpointer": f"sqlite:///{tmp_path / 'runs.db'}"}
    first, second = Steps(build), Steps(build)
    second.go.set()
    with ThreadPoolExecutor() as threads:
        with Host({"agent": first.graph}, **options) as host:
            run = begun(threads, verbs, RemoteAgent("agent", url=host.address), {"log": []}, THREAD)
            assert first.entered.wait(100)
            draining = drained(host, 100, 0)
            with pytest.raises(GraphDrained, match="the host is stopping"):
                run.result(100)
            draining.join(100)
    assert first.ran == ["first"]
    with Host({"agent": second.graph}, **options) as other:
        remote = RemoteAgent("agent", url=other.address)
        assert await verbs.invoke(remote, None, THREAD) == {"log": ["first", "second"]}
    assert second.ran == ["second"]


@pytest.mark.parametrize("build", [StateGraph, Dag])
async def test_a_remote_node_stops_in_its_parents_checkpointer(verbs: Any, build: Callable[..., Any]) -> None:
    saver = InMemorySaver()

    def parent(url: str) -> Any:
        builder = build(State).add_node("inner", RemoteAgent("agent", url=url)).add_edge(START, "inner")
        return builder.compile(checkpointer=saver)

    first, second = Steps(build), Steps(build)
    second.go.set()
    with ThreadPoolExecutor() as threads:
        with Host({"agent": first.graph}) as host:
            run = begun(threads, verbs, parent(host.address), {"log": []}, THREAD)
            assert first.entered.wait(100)
            draining = drained(host, 100, 0)
            with pytest.raises(GraphDrained, match="the host is stopping"):
                run.result(100)
            draining.join(100)
    assert first.ran == ["first"]
    with Host({"agent": second.graph}) as other:
        assert (await verbs.invoke(parent(other.address), None, THREAD))["log"][-2:] == ["first", "second"]
    assert second.ran == ["second"]


async def test_a_run_without_a_checkpointer_may_end(verbs: Any) -> None:
    steps = Steps()
    with ThreadPoolExecutor() as threads, Host({"agent": steps.graph}) as host:
        run = begun(threads, verbs, RemoteAgent("agent", url=host.address), {"log": []})
        assert steps.entered.wait(100)
        draining = drained(host, 100, 0)
        steps.go.set()
        assert run.result(100) == {"log": ["first", "second"]}
        draining.join(100)


async def test_a_run_within_the_grace_is_not_stopped(verbs: Any, tmp_path: Path) -> None:
    steps = Steps()
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with ThreadPoolExecutor() as threads, Host({"agent": steps.graph}, checkpointer=url) as host:
        run = begun(threads, verbs, RemoteAgent("agent", url=host.address), {"log": []}, THREAD)
        assert steps.entered.wait(100)
        draining = drained(host, 100, 100)
        steps.go.set()
        assert run.result(100) == {"log": ["first", "second"]}
        draining.join(100)


async def test_a_run_that_is_left_at_the_end_is_lost_with_advice(verbs: Any) -> None:
    steps = Steps()
    with ThreadPoolExecutor() as threads, Host({"agent": steps.graph}) as host:
        run = begun(threads, verbs, RemoteAgent("agent", url=host.address), {"log": []})
        assert steps.entered.wait(100)
        host.drain(0.1)
        with pytest.raises(HostLost):
            run.result(100)
        steps.go.set()


def test_health_changes_first_and_new_runs_are_refused() -> None:
    steps = Steps()
    with ThreadPoolExecutor() as threads, Host({"agent": steps.graph}) as host:
        remote = RemoteAgent("agent", url=host.address)
        with grpc.insecure_channel(host.address) as channel:
            changes = watched(channel)
            assert next(changes) == "SERVING"
            run = threads.submit(remote.invoke, {"log": []})
            assert steps.entered.wait(100)
            draining = drained(host, 100, 0)
            assert next(changes) == "NOT_SERVING"
            with pytest.raises(HostBusy, match="the host is stopping"):
                remote.invoke({"log": []})
            assert not run.done()
            steps.go.set()
            assert run.result(100) == {"log": ["first", "second"]}
        draining.join(100)
