"""What a watcher is told is the same, part for part, wherever a graph runs and by whichever verb."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from agentmatrix import watching
from agentmatrix.testing import loopback
from agentmatrix.watch import WatchedRun
from tests.watch.watched_graphs import INPUT, SHAPES, THREAD, Wrap, told


def here(graph: Any) -> Any:
    return graph


def watched(name: str, wrap: Wrap, verb: str) -> WatchedRun:
    graph = SHAPES[name](wrap)

    async def astart() -> None:
        if verb == "ainvoke":
            await graph.ainvoke(INPUT, THREAD)
        else:
            async for _ in graph.astream(INPUT, THREAD):
                pass

    with watching() as run, contextlib.suppress(ValueError):
        if verb == "invoke":
            graph.invoke(INPUT, THREAD)
        elif verb == "stream":
            list(graph.stream(INPUT, THREAD))
        else:
            asyncio.run(astart())
    if run.questions:
        run.answer("because")
    return run


# Who begins first and who is last of those who speak at once is chance.
CHANCE = ("cast", "crowd")


def facts(run: WatchedRun, *, in_order: bool) -> Any:
    summary = run.summary()
    counts = (summary.state, summary.calls, summary.tokens, summary.silent_turns, summary.errors)
    nodes = {path: (node.state, node.count, node.calls, node.tokens) for path, node in run.nodes.items()}
    lines = [(line.path, line.speaker, line.text) for line in run.transcript]
    return counts, nodes, lines if in_order else sorted(lines)


def waited_for(run: WatchedRun) -> list[str]:
    return [step.path for step in run.summary().critical_path]


@pytest.mark.parametrize("name", SHAPES)
def test_events_are_the_same_wherever_and_however_it_runs(name: str) -> None:
    local = watched(name, here, "invoke")
    assert local.summary().state == ("failed" if name == "fails" else "done")
    for wrap, verb in ((here, "ainvoke"), (loopback, "invoke"), (loopback, "ainvoke")):
        other = watched(name, wrap, verb)
        if name in CHANCE:
            assert sorted(told(other.events()), key=repr) == sorted(told(local.events()), key=repr), (wrap, verb)
        else:
            assert told(other.events()) == told(local.events()), (wrap.__name__, verb)
            assert waited_for(other) == waited_for(local)
        in_order = name not in CHANCE
        assert facts(other, in_order=in_order) == facts(local, in_order=in_order)


@pytest.mark.parametrize("verb", ["stream", "astream"])
def test_a_streamed_run_tells_the_same(verb: str) -> None:
    # A crowd that is streamed is not in one task: its members begin in another order.
    for name in ("deep", "panel", "asks"):
        assert told(watched(name, loopback, verb).events()) == told(watched(name, here, "invoke").events())


def test_the_seconds_of_a_node_are_measured_where_it_runs() -> None:
    import time

    from tests.watch.watched_graphs import one

    measured: list[float] = []
    begun, worked = threading.Event(), threading.Event()

    def work(messages: Any) -> str:
        began = time.perf_counter()
        begun.set()
        time.sleep(0.1)
        measured.append(time.perf_counter() - began)
        worked.set()
        return "worked"

    async def blocked(graph: Any) -> None:
        """A caller whose own event loop stands still meanwhile reads what has come only afterwards."""
        running = asyncio.create_task(graph.ainvoke(INPUT))
        assert await asyncio.to_thread(begun.wait, 100)
        assert worked.wait(100)
        time.sleep(1.5)
        await running

    with watching() as run:
        asyncio.run(blocked(one("far", loopback(one("work", work)))))
    told_seconds = run.nodes["far/work"].seconds
    # By this side's clock it would be no time, or that in which the loop stood still as well.
    assert measured[0] <= told_seconds < measured[0] + 1.5


def test_the_log_of_a_group_has_the_key_that_a_watcher_reads() -> None:
    from agentmatrix.chat.conversation import EVENT_LOG
    from agentmatrix.watch.node_output import TURN_LOG

    assert TURN_LOG == EVENT_LOG
