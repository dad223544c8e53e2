"""A host with one card: one run at a time, the others wait, and know how long the queue is."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy
from typing_extensions import TypedDict

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.errors import DeadlineExceeded, HostBusy, HostLost, HostUnreachable
from agentmatrix.session import run_queue
from tests.attacks.kit import eventually
from tests.faulty_proxy import FaultyProxy


class State(TypedDict):
    name: str


class Card:
    """An agent that has a card to itself: each run holds it until it is let go."""

    def __init__(self) -> None:
        self.active = self.most = 0
        self.order: list[str] = []
        self._free = threading.Semaphore(0)
        self._lock = threading.Lock()
        self.graph = StateGraph(State).add_node("work", self.work).add_edge(START, "work").compile()

    def work(self, state: State) -> State:
        with self._lock:
            self.active += 1
            self.most = max(self.most, self.active)
            self.order.append(state["name"])
        assert self._free.acquire(timeout=100)
        with self._lock:
            self.active -= 1
        return state

    def let_go(self, runs: int = 1) -> None:
        self._free.release(runs)


class Places(BaseCallbackHandler):
    """Notes each place in a queue."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        assert name == "queue"
        self.told.append(data)

    @property
    def places(self) -> list[int]:
        return [data["place"] for data in self.told]


async def test_one_at_a_time_and_each_waiting_caller_knows_its_place(verbs: Any) -> None:
    card = Card()
    with Host({"expert": card.graph}, concurrency={"expert": 1}) as host, ThreadPoolExecutor() as threads:

        def call(name: str, places: Places) -> Any:
            remote = RemoteAgent("expert", url=host.address)
            return asyncio.run(verbs.invoke(remote, {"name": name}, {"callbacks": [places]}))

        seen = [Places() for _ in range(3)]
        runs = []
        for number, places in enumerate(seen):
            runs.append(threads.submit(call, str(number), places))
            if number:
                assert eventually(lambda places=places, number=number: places.places == [number])
            else:
                assert eventually(lambda: card.active == 1)
        card.let_go()
        assert runs[0].result(100) == {"name": "0"}
        thread: Any = {"configurable": {"thread_id": "1"}}
        with pytest.raises(ValueError, match="No checkpointer"):  # a look at a thread waits for no card
            await verbs.call(RemoteAgent("expert", url=host.address), "get_state", thread)
        assert eventually(lambda: seen[2].places == [2, 1])
        card.let_go(2)
        assert [run.result(100)["name"] for run in runs] == ["0", "1", "2"]
    assert card.most == 1 and card.order == ["0", "1", "2"]
    assert seen[0].places == [] and seen[1].told == [{"agent": f"{seen[1].told[0]['agent']}", "place": 1}]
    assert str(seen[1].told[0]["agent"]).endswith("/expert")


def test_a_run_that_is_lost_in_the_queue_is_told_that_it_has_not_begun() -> None:
    card, places = Card(), {"a": Places(), "b": Places()}
    with (
        Host({"expert": card.graph}, concurrency={"expert": 1}) as host,
        FaultyProxy(str(host.address)) as proxy,
        ThreadPoolExecutor() as threads,
    ):
        remote = RemoteAgent("expert", url=proxy.address, reconnect_timeout=0)
        first = threads.submit(RemoteAgent("expert", url=host.address).invoke, {"name": "first"})
        assert eventually(lambda: card.active == 1)
        runs = {}
        for name in places:
            runs[name] = threads.submit(remote.invoke, {"name": name}, {"callbacks": [places[name]]})
            assert eventually(lambda name=name: places[name].places == [1])
            if name == "a":
                card.let_go()
                assert eventually(lambda: card.order == ["first", "a"])
        proxy.cut()
        errors = {name: run.exception(100) for name, run in runs.items()}
        card.let_go(2)
        assert first.result(100) == {"name": "first"}
    assert isinstance(errors["a"], HostLost) and "how far this run came is unknown" in str(errors["a"])
    assert isinstance(errors["b"], HostLost) and "unknown" not in str(errors["b"])
    assert "this run was waiting for its turn, at place 1, and had not begun" in str(errors["b"])
    assert places["a"].places == places["b"].places == [1]


async def test_the_event_is_among_the_events_of_a_parent() -> None:
    card = Card()
    with Host({"expert": card.graph}, concurrency={"expert": 1}) as host, ThreadPoolExecutor() as threads:
        remote = RemoteAgent("expert", url=host.address)
        first = threads.submit(remote.invoke, {"name": "first"})
        assert await asyncio.to_thread(eventually, lambda: card.active == 1)
        parent = Dag(State).add_node("inner", remote).compile()
        events = []
        async for event in parent.astream_events({"name": "second"}):
            events.append((event["event"], event["name"]))
            if events[-1] == ("on_custom_event", "queue"):
                card.let_go(2)
        assert ("on_custom_event", "queue") in events
        first.result(100)


async def test_a_deadline_and_a_cancel_hold_in_the_queue(verbs: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentmatrix")
    card = Card()
    with Host({"expert": card.graph}, concurrency={"expert": 1}) as host, ThreadPoolExecutor() as threads:
        remote = RemoteAgent("expert", url=host.address)
        first = threads.submit(remote.invoke, {"name": "first"})
        assert await asyncio.to_thread(eventually, lambda: card.active == 1)
        with pytest.raises(DeadlineExceeded):
            await verbs.invoke(RemoteAgent("expert", url=host.address, timeout=0.3), {"name": "late"})
        places = Places()
        leaving = asyncio.create_task(remote.ainvoke({"name": "left"}, {"callbacks": [places]}))
        assert await asyncio.to_thread(eventually, lambda: len(places.told) > 0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await asyncio.to_thread(eventually, lambda: len(host._state.queue) == 0)  # type: ignore[union-attr]
        card.let_go()
        first.result(100)
        card.let_go()
        assert (await verbs.invoke(remote, {"name": "next"}))["name"] == "next"
    assert card.order == ["first", "next"]
    outcomes = [vars(record)["outcome"] for record in caplog.records if hasattr(record, "outcome")]
    # Both sides keep the deadline: whichever is first, the caller leaves or the host gives up. On a busy machine it is
    # over before the host hears of the run.
    assert sorted(outcomes) in (
        ["cancelled", "deadline", "ok", "ok"],
        ["cancelled", "cancelled", "ok", "ok"],
        ["cancelled", "ok", "ok"],
    )


async def test_a_full_queue_is_a_busy_host_that_says_when_to_come_again(
    verbs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card()
    options: dict[str, Any] = {"concurrency": {"expert": 1}, "max_queue": 0}
    with Host({"expert": card.graph}, **options) as host, ThreadPoolExecutor() as threads:
        remote = RemoteAgent("expert", url=host.address)
        first = threads.submit(remote.invoke, {"name": "first"})
        assert await asyncio.to_thread(eventually, lambda: card.active == 1)
        with pytest.raises(HostBusy, match="'expert' has 1 runs, as many as it may; try again in about 1 s") as busy:
            await verbs.invoke(remote, {"name": "second"})
        assert busy.value.retry_after == 1.0

        policy = RetryPolicy(initial_interval=0.01, max_attempts=100, jitter=False)
        with monkeypatch.context() as later:
            later.setattr(run_queue, "_UNKNOWN_SECONDS", 1000.0)
            with pytest.raises(HostBusy):  # it does not wait beyond its own time
                await verbs.invoke(
                    RemoteAgent("expert", url=host.address, retry_policy=policy, timeout=200), {"name": "short"}
                )
        patient = RemoteAgent("expert", url=host.address, retry_policy=policy)
        third = threads.submit(lambda: asyncio.run(verbs.listed(patient, "stream", {"name": "third"})))
        card.let_go(2)
        assert first.result(100) == {"name": "first"} and third.result(100)
    assert card.order == ["first", "third"]


async def test_a_run_that_waits_too_long_is_refused(verbs: Any) -> None:
    card = Card()
    options: dict[str, Any] = {"concurrency": {"expert": 1}, "queue_timeout": 0.2}
    with Host({"expert": card.graph}, **options) as host, ThreadPoolExecutor() as threads:
        remote = RemoteAgent("expert", url=host.address)
        first = threads.submit(remote.invoke, {"name": "first"})
        assert await asyncio.to_thread(eventually, lambda: card.active == 1)
        with pytest.raises(HostBusy, match="waited for its turn for 0.2 s"):
            await verbs.invoke(remote, {"name": "second"})
        card.let_go()
        first.result(100)


async def test_a_host_that_drains_refuses_those_that_wait(verbs: Any) -> None:
    card = Card()
    with Host({"expert": card.graph}, concurrency={"expert": 1}) as host, ThreadPoolExecutor() as threads:
        remote = RemoteAgent("expert", url=host.address)
        first = threads.submit(remote.invoke, {"name": "first"})
        assert await asyncio.to_thread(eventually, lambda: card.active == 1)
        places = Places()
        second = threads.submit(lambda: asyncio.run(verbs.invoke(remote, {"name": "second"}, {"callbacks": [places]})))
        assert await asyncio.to_thread(eventually, lambda: len(places.told) > 0)
        draining = threads.submit(host.drain, 100)
        with pytest.raises(HostBusy, match="the host is stopping"):
            second.result(100)
        card.let_go()
        first.result(100)
        draining.result(100)


async def test_a_host_that_is_not_there_is_tried_again(verbs: Any) -> None:
    card = Card()
    card.let_go()
    with Host({"expert": card.graph}) as host:
        address = host.address
    policy = RetryPolicy(initial_interval=0.05, backoff_factor=1, max_attempts=1000, jitter=False)
    with ThreadPoolExecutor() as threads:
        remote = RemoteAgent("expert", url=address, retry_policy=policy)
        run = threads.submit(lambda: asyncio.run(verbs.invoke(remote, {"name": "x"})))
        with pytest.raises(HostUnreachable):
            await verbs.invoke(RemoteAgent("expert", url=address), {"name": "x"})
        with Host({"expert": card.graph}, address=address):
            assert run.result(100) == {"name": "x"}


async def test_a_parent_on_the_host_may_call_the_card_many_times_at_once(verbs: Any) -> None:
    card = Card()
    card.let_go(100)
    with Host({"expert": card.graph}, concurrency={"expert": 1}, max_runs=2) as host:
        builder = Dag(State)
        for number in range(4):
            builder.add_node(f"call {number}", RemoteAgent("expert", url=host.address), output_map=lambda state: {})
        host.add("team", builder.compile())
        runs = [asyncio.to_thread(RemoteAgent("team", url=host.address).invoke, {"name": "x"}) for _ in range(3)]
        assert await asyncio.gather(*runs) == [{"name": "x"}] * 3
    assert card.most == 1 and len(card.order) == 12
