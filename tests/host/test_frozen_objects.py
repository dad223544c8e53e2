"""A process that waits for its host has its garbage collector pass over what was there before."""

from __future__ import annotations

import gc
import threading
from typing import TypedDict

from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.host.frozen_objects import frozen_objects


class Count(TypedDict, total=False):
    frozen: int


def count(state: Count) -> Count:
    return {"frozen": gc.get_freeze_count()}


GRAPH = StateGraph(Count).add_node("count", count).add_edge(START, "count").compile()


def frozen_on(remote: RemoteAgent, *, at_all: bool) -> int:
    """What a node on the host counts, once there is something, or nothing any more."""
    while bool(found := remote.invoke({})["frozen"]) is not at_all:
        pass
    return int(found)


def test_what_is_there_is_passed_over_until_the_end() -> None:
    before = gc.get_threshold()
    with frozen_objects():
        assert gc.get_freeze_count() > 100_000
        assert gc.get_threshold()[0] >= 2_000
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_what_the_program_has_frozen_itself_stays_so() -> None:
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        made = [[] for _ in range(1_000)]
        with frozen_objects():
            # What was there may be gone meanwhile, but nothing is added.
            assert 0 < gc.get_freeze_count() <= before
        assert made and 0 < gc.get_freeze_count() <= before
    finally:
        gc.unfreeze()


def test_a_collector_that_is_off_stays_off() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with frozen_objects():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_it_is_so_while_somebody_waits_for_a_host_to_end() -> None:
    with Host({"count": GRAPH}) as host:
        remote = RemoteAgent(f"{host.address}/count")
        assert not host.wait(0.0)
        frozen_on(remote, at_all=False)
        waiting = threading.Thread(target=host.wait)
        waiting.start()
        assert frozen_on(remote, at_all=True) > 100_000
    waiting.join()
    assert gc.get_freeze_count() == 0
