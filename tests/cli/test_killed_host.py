"""SIGKILL in each state of a host: its callers hear of it at once, and nothing that was done is lost or done again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from agentmatrix import RemoteAgent
from agentmatrix.errors import HostBusy, HostLost, HostUnreachable
from tests.attacks.kit import eventually
from tests.cli.conftest import Project
from tests.cli.test_serve import address_of, wait_for
from tests.forked import Forked
from tests.host.probes import health_of

Start = Callable[..., Forked]

STEPS = """
import asyncio
import operator
import os
from contextlib import asynccontextmanager
from typing import Annotated
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

class State(TypedDict):
    log: Annotated[list[str], operator.add]

def done(name):
    with open("done", "a") as file:
        file.write(name + "\\n")
    return {"log": [name]}

async def first(state: State):
    return done("first")

async def hold(state: State):
    open("holding", "w").close()
    while not os.path.exists("go"):
        await asyncio.sleep(0.02)
    return done("hold")

async def last(state: State):
    return done("last")

graph = StateGraph(State).add_sequence([first, hold, last]).add_edge(START, "first").compile()

@asynccontextmanager
async def lifespan(host):
    open("loading", "w").close()
    while not os.path.exists("loaded"):
        await asyncio.sleep(0.02)
    yield
"""
THREAD: Any = {"configurable": {"thread_id": "1"}, "durability": "sync"}


class Queued(BaseCallbackHandler):
    """Notes that a run waits."""

    waits = False

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        self.waits = name == "queue"


class Box:
    """A host that is started again on its port, with its database."""

    def __init__(self, project: Project, started: Start) -> None:
        self.folder, self._started = project.folder, started
        self._port = "0"
        project.write("steps.py", STEPS)

    def serve(self, *options: str) -> Forked:
        keep = ("--checkpointer", "sqlite:///runs.db", "--concurrency", "graph=1", "--log-level", "error")
        self.process = self._started("serve", "steps:graph", "--port", self._port, *keep, *options)
        return self.process

    def ready(self) -> RemoteAgent:
        address = address_of(self.process)
        self._port = address.rpartition(":")[2]
        return RemoteAgent(f"{address}/graph")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(100)

    @property
    def done(self) -> list[str]:
        path = self.folder / "done"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def box(project: Project, started: Start) -> Box:
    return Box(project, started)


def begun(threads: ThreadPoolExecutor, box: Box, remote: RemoteAgent) -> Future[Any]:
    run = threads.submit(remote.invoke, {"log": []}, THREAD, durability="sync")
    wait_for(box.folder / "holding", box.process)
    return run


@pytest.mark.parametrize("state", ["running", "draining"])
def test_a_run_goes_on_from_its_last_checkpoint(box: Box, state: str) -> None:
    with ThreadPoolExecutor() as threads:
        box.serve("--grace", "600", "--drain-timeout", "600")
        remote = box.ready()
        run = begun(threads, box, remote)
        if state == "draining":
            box.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: health_of(remote.url.removeprefix("grpc://")) == "NOT_SERVING")
        box.kill()
        with pytest.raises(HostLost, match="call again with None"):
            run.result(100)
    Path("go").touch()
    box.serve()
    assert box.ready().invoke(None, THREAD) == {"log": ["first", "hold", "last"]}
    assert box.done == ["first", "hold", "last"]


def test_a_run_that_waited_has_done_nothing(box: Box) -> None:
    with ThreadPoolExecutor() as threads:
        box.serve()
        remote = box.ready()
        first = begun(threads, box, remote)
        queued = Queued()
        other: Any = {"configurable": {"thread_id": "2"}, "callbacks": [queued]}
        second = threads.submit(remote.invoke, {"log": []}, other)
        assert eventually(lambda: queued.waits)
        box.kill()
        for run in (first, second):
            with pytest.raises(HostLost):
                run.result(100)
    assert box.done == ["first"]
    Path("go").touch()
    box.serve()
    remote = box.ready()
    assert remote.get_state({"configurable": {"thread_id": "2"}}).values == {}
    assert remote.invoke({"log": []}, {"configurable": {"thread_id": "2"}}) == {"log": ["first", "hold", "last"]}


def test_a_host_that_loads_is_busy_and_then_unreachable(box: Box) -> None:
    box.serve()
    remote = box.ready()
    box.kill()
    box.serve("--lifespan", "steps:lifespan")
    wait_for(box.folder / "loading", box.process)
    assert eventually(lambda: health_of(remote.url.removeprefix("grpc://")) == "NOT_SERVING")
    with pytest.raises(HostBusy, match="starting"):
        remote.invoke({"log": []}, THREAD)
    box.kill()
    with pytest.raises(HostUnreachable):
        remote.invoke({"log": []}, THREAD)
    for name in ("loaded", "go"):
        Path(name).touch()
    box.serve("--lifespan", "steps:lifespan")
    assert box.ready().invoke({"log": []}, THREAD) == {"log": ["first", "hold", "last"]}
    assert box.done == ["first", "hold", "last"]
