"""A caller that does not answer, or does not read, ends its run and holds nothing for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.store.memory import InMemoryStore

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import HostBusy, HostError
from agentmatrix.session.part_sender import wait_for_room
from agentmatrix.session.pending_requests import PendingRequests
from agentmatrix.wire.v1.run_pb2 import Frame, Reply


class Text(TypedDict, total=False):
    text: str


class Answer:
    """A reply that has arrived."""

    def __init__(self, number: int) -> None:
        self.frame = Frame(reply=Reply(id=number, value=b"\xc0"))
        self.released = False

    def field(self, name: str) -> bytes:
        value: bytes = getattr(self.frame.reply, name)
        return value

    def release(self) -> None:
        self.released = True


def test_an_answer_in_time() -> None:
    requests = PendingRequests(60)
    request, answer = requests.open(1, "saver", "put"), Answer(1)
    threading.Thread(target=requests.answered, args=(answer,)).start()
    assert requests.wait(request) is answer


def test_after_one_late_answer_nobody_waits_for_the_others() -> None:
    requests = PendingRequests(0.01)
    many = [requests.open(number, "store", "batch") for number in range(1000)]
    for request in many:
        with pytest.raises(HostError, match=r"has not answered store.batch within 0.01 s \(answer_timeout"):
            requests.wait(request)


async def test_the_same_awaited_and_an_answer_that_nobody_awaits_any_more_is_released() -> None:
    requests = PendingRequests(0.01)
    with pytest.raises(HostError, match="saver.aput within"):
        await requests.await_answer(requests.open(1, "saver", "aput"))
    late = Answer(1)
    requests.answered(late)
    assert late.released


async def test_a_callback_may_ask_a_person() -> None:
    requests = PendingRequests(0.0)
    request = requests.open(1, "callback", "acall")
    waiting = asyncio.ensure_future(requests.await_answer(request))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    requests.answered(Answer(1))
    await waiting


@pytest.mark.parametrize("is_async", [False, True])
def test_a_saver_that_hangs_ends_the_run_on_the_host(is_async: bool) -> None:
    free = threading.Event()

    class Hanging(InMemorySaver):
        def put(self, config: Any, *args: Any, **kwargs: Any) -> Any:
            if config["configurable"]["checkpoint_ns"]:
                free.wait(60)
            return super().put(config, *args, **kwargs)

        async def aput(self, config: Any, *args: Any, **kwargs: Any) -> Any:
            if config["configurable"]["checkpoint_ns"]:
                await asyncio.to_thread(free.wait, 60)
            return await super().aput(config, *args, **kwargs)

    inner = StateGraph(Text).add_node("n", lambda state: {"text": "x"}).add_edge(START, "n").compile()
    with Host({"inner": inner}, answer_timeout=0.2) as host:
        remote = RemoteAgent(f"{host.address}/inner")
        parent = StateGraph(Text).add_node("far", remote).add_edge(START, "far")
        graph = parent.compile(checkpointer=Hanging(), store=InMemoryStore())
        config: Any = {"configurable": {"thread_id": "1"}}
        threading.Timer(2.0, free.set).start()  # the caller's own thread hangs in it as well
        with pytest.raises(HostError, match="has not answered saver"):
            if is_async:
                asyncio.run(graph.ainvoke({}, config, durability="sync"))
            else:
                graph.invoke({}, config, durability="sync")


class Full:
    """A stream whose peer reads nothing."""

    run = 1

    def __init__(self, room: int) -> None:
        self.room = room
        self.calls: list[Callable[[], None]] = []

    def on_room(self, least: int, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def send(self, frame: Frame) -> None:
        raise NotImplementedError

    def reset(self, kind: str, reason: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


async def test_code_on_an_event_loop_never_waits_and_fails_when_too_much_does() -> None:
    wait_for_room(Full(-1000))
    with pytest.raises(HostBusy, match="reads too slowly: more than 64 MiB wait for it"):
        wait_for_room(Full(-(65 << 20)))


def test_code_in_a_thread_waits_for_room() -> None:
    full = Full(0)
    waiting = threading.Thread(target=wait_for_room, args=(full,))
    waiting.start()
    while not full.calls:
        waiting.join(0.01)
    assert waiting.is_alive()
    full.calls[0]()
    waiting.join(60)
    assert not waiting.is_alive()
