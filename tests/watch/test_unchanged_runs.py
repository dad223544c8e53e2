"""A watched run is the same run: its result, every part of its streams, and what it keeps."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix import watching
from agentmatrix.testing import loopback
from tests.watch.watched_graphs import INPUT, SHAPES, THREAD

MODES = ["values", "updates", "messages", "tasks", "custom"]
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=--)[0-9a-f]{32}|[0-9a-f]{32}|0x\w+")


def plain(value: Any) -> str:
    """A value without ids, which are others in each run."""
    return _ID.sub("id", repr(value))


async def parts(graph: Any, modes: list[str], is_async: bool) -> list[str]:
    options: dict[str, Any] = {"stream_mode": modes, "subgraphs": True}
    try:
        if is_async:
            return [plain(part) async for part in graph.astream(INPUT, THREAD, **options)]
        return [plain(part) for part in await asyncio.to_thread(lambda: list(graph.stream(INPUT, THREAD, **options)))]
    except ValueError as error:
        return [str(error)]


@pytest.mark.parametrize("modes", [["updates"], MODES], ids=["updates", "all"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["panel", "asks", "plain", "root", "fails"])
async def test_streams_are_the_same(name: str, is_async: bool, modes: list[str]) -> None:
    for wrap in (lambda graph: graph, loopback):
        without = await parts(SHAPES[name](wrap), modes, is_async)
        with watching():
            watched = await parts(SHAPES[name](wrap), modes, is_async)
        assert watched == without


def test_what_is_kept_is_the_same() -> None:
    kept = []
    for is_watched in (False, True):
        saver = InMemorySaver()
        graph = SHAPES["panel"](loopback).copy({"checkpointer": saver})
        if is_watched:
            with watching():
                graph.invoke(INPUT, THREAD)
        else:
            graph.invoke(INPUT, THREAD)
        history = [(plain(entry.values), entry.next, entry.metadata) for entry in graph.get_state_history(THREAD)]
        kept.append(history)
    assert kept[0] == kept[1]
