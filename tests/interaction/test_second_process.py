"""Every verb over a host in another process, by TCP and by a Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command

from agentmatrix import RemoteAgent


@pytest.fixture(params=["tcp", "unix"])
def keeping(request: pytest.FixtureRequest, serve: Any, tmp_path: Path) -> RemoteAgent:
    if request.param == "tcp":
        address, _ = serve()
        return RemoteAgent(f"{address}/keeping")
    address, _ = serve(f"unix:{tmp_path}/host.sock")
    return RemoteAgent("keeping", url=f"unix:{tmp_path}/host.sock")


async def test_every_verb(keeping: RemoteAgent, verbs: Any, tmp_path: Path) -> None:
    def thread(name: str) -> dict[str, Any]:
        return {"configurable": {"thread_id": name}}

    start: dict[str, Any] = {"log": [], "folder": str(tmp_path)}
    paused = await verbs.invoke(keeping, start, thread("1"))
    assert paused["__interrupt__"][0].value == "go on?"
    assert (await verbs.call(keeping, "get_state", thread("1"))).next == ("ask",)
    await verbs.call(keeping, "update_state", thread("1"), {"log": ["written"]}, as_node="first")
    done = await verbs.invoke(keeping, Command(resume="yes"), thread("1"))
    assert done["log"] == ["first", "written", "asked: yes"]
    assert len(await verbs.listed(keeping, "get_state_history", thread("1"))) == 5
    parts = await verbs.listed(keeping, "stream", start, thread("2"), stream_mode=["updates", "values"])
    assert [mode for mode, _ in parts] == ["values", "updates", "values", "updates", "values"]
    batch = await verbs.call(keeping, "batch", [start, start], [thread("3"), thread("4")])
    assert [result["log"] for result in batch] == [["first"], ["first"]]
    saver = keeping.checkpointer
    assert saver.get_tuple(thread("1")).checkpoint["channel_values"]["log"] == done["log"]
    assert [name for name, _ in keeping.get_subgraphs()] == []
    assert "ask" in keeping.get_graph().nodes
    assert keeping.card.checkpointer == "own"
    assert keeping.ping() < 5


async def test_events_of_a_remote_run(keeping: RemoteAgent, tmp_path: Path) -> None:
    config: Any = {"configurable": {"thread_id": "1"}}
    names = [
        event["name"]
        async for event in keeping.astream_events({"log": [], "folder": str(tmp_path)}, config, version="v2")
        if event["event"] == "on_chain_start"
    ]
    assert names == ["LangGraph", "first", "ask"]
