"""A disk that is full: one sentence to the caller, nothing lost, and the thread goes on when there is room again."""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from agentmatrix import Dag, Host, RemoteAgent
from tests.attacks.kit import eventually

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


@pytest.mark.parametrize("build", [StateGraph, Dag])
async def test_a_full_disk_is_an_error_of_the_run_and_costs_no_thread(
    verbs: Any, build: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    savers: list[AsyncSqliteSaver] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[AsyncSqliteSaver]:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.db")) as saver:
            await saver.setup()
            savers.append(saver)
            yield saver

    async def limit(pages: int) -> None:
        import asyncio

        setting = asyncio.run_coroutine_threadsafe(limited(pages), savers[0].loop)
        await asyncio.wrap_future(setting)

    async def limited(pages: int) -> None:
        await savers[0].conn.execute(f"PRAGMA max_page_count = {pages}")

    graph = build(State).add_node("say", lambda state: {"log": ["x" * 100_000]}).add_edge(START, "say").compile()
    with Host({"agent": graph}, checkpointer=make) as host:
        remote = RemoteAgent("agent", url=host.address)
        await verbs.invoke(remote, {"log": []}, THREAD)
        await limit(1)  # SQLite takes it as: no page more than there are
        with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
            await verbs.invoke(remote, {"log": ["more"]}, THREAD)
        assert eventually(lambda: "agent.invoke failed" in caplog.text)
        assert (await verbs.call(remote, "get_state", THREAD)).values["log"] == ["x" * 100_000]
        await limit(1_000_000)
        await verbs.invoke(remote, {"log": ["more"]}, THREAD)
        assert (await verbs.call(remote, "get_state", THREAD)).values["log"] == ["x" * 100_000, "more", "x" * 100_000]
