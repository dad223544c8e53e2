"""A graph with actors on a host that is killed: its caller has their states, and another host goes on with them."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START

from agentmatrix import CyclicGraph, Host, RemoteAgent
from agentmatrix.errors import HostLost
from tests.actors.firm import THREAD, Firm, firm, journal
from tests.conftest import Verbs
from tests.forked import Forked


def serve(folder: Path, kill_at: int) -> None:
    """To be run in a process of its own: a host of a firm, which dies at some call of an actor."""
    with Host({"firm": firm(2, 6, journal(folder, kill_at))}) as host:
        print(host.address, flush=True)
        threading.Event().wait()


def above(address: str, saver: Any) -> Any:
    graph = CyclicGraph(Firm).add_node("firm", RemoteAgent(f"{address}/firm")).add_edge(START, "firm")
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_another_host_goes_on(tmp_path: Path, verbs: Verbs, durability: Any) -> None:
    saver = InMemorySaver()
    given: Any = {"reports": []}
    for kill_at in (2, 4, 5):
        with Forked(serve, tmp_path, kill_at) as host:
            graph = above(host.stdout.readline().strip(), saver)
            with pytest.raises(HostLost):
                await verbs.call(graph, "invoke", given, THREAD, durability=durability)
            assert host.wait(60) == -signal.SIGKILL
        given = None
    with Forked(serve, tmp_path, 0) as host:
        graph = above(host.stdout.readline().strip(), saver)
        assert (await verbs.call(graph, "invoke", None, THREAD, durability=durability)) == {"reports": ["done"]}
    # Each actor has read each message once.
    heard = {}
    for namespace in saver.storage["1"]:
        if "|staff/" in namespace:
            found = saver.get_tuple({"configurable": {"thread_id": "1", "checkpoint_ns": namespace}})
            heard[namespace.partition("|")[2]] = sorted(found.checkpoint["channel_values"]["heard"])  # type: ignore[union-attr]
    assert len(heard) == 9
    assert heard["staff/boss"] == ["done", "done", "start"]
    assert heard["staff/boss.0"] == heard["staff/boss.1"] == ["done", "done", "done", "start"]
    assert all(said == ["start"] for path, said in heard.items() if path.count(".") == 2)
