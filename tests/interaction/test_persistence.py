"""Checkpoints of a remote graph lie with its parent: over a killed host, another host, another parent process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import Dag, RemoteAgent
from agentmatrix.errors import HostLost
from agentmatrix.testing import loopback
from tests.forked import Forked
from tests.interaction.served import Log, asking


def parent(nested: Any, saver: Any) -> Any:
    builder = StateGraph(Log).add_node("before", lambda state: {"log": ["before"]}).add_node("nested", nested)
    builder.add_edge(START, "before").add_edge("before", "nested")
    return builder.compile(checkpointer=saver)


def runs(folder: Path, name: str) -> int:
    return len((folder / name).read_text().split())


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_killed_host_loses_nothing_that_was_checkpointed(
    serve: Any, verbs: Any, tmp_path: Path, durability: str
) -> None:
    address, process = serve()
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "1"}}
    graph = parent(RemoteAgent(f"{address}/crashing"), saver)
    with pytest.raises(HostLost, match="checkpoint"):
        await verbs.invoke(graph, {"log": [], "folder": str(tmp_path)}, config, durability=durability)
    process.wait(100)
    address, _ = serve()
    graph = parent(RemoteAgent(f"{address}/crashing"), saver)
    done = await verbs.invoke(graph, None, config, durability=durability)
    assert done["log"] == ["before", "before", "first", "second", "survived", "last"]
    counted = [runs(tmp_path, name) for name in ("first", "second", "last")]
    # Under "async" nodes whose writes were not acknowledged yet may run again; their results count once.
    assert counted == [1, 1, 1] if durability == "sync" else max(counted) <= 2 and counted[2] == 1


async def test_a_saver_is_told_the_tags_and_the_metadata_of_the_run(verbs: Any) -> None:
    class Told(InMemorySaver):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[Any] = []

        def _note(self, what: str, config: Any, *more: Any) -> None:
            if config["configurable"].get("checkpoint_ns"):
                given = {k: v for k, v in config.get("metadata", {}).items() if not k.endswith("checkpoint_ns")}
                self.told.append((what, config.get("tags"), given, *more))

        def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
            self._note("put", config, checkpoint["channel_values"])
            return super().put(config, checkpoint, metadata, new_versions)

        def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
            self._note("writes", config, [*map(type, writes)], task_path)
            super().put_writes(config, writes, task_id, task_path)

    told = []
    for through in (lambda graph: graph, loopback):
        grandchild = StateGraph(Log).add_node("last", lambda state: {"log": ["last"]}).add_edge(START, "last").compile()
        child = StateGraph(Log).add_node("inner", grandchild).add_edge(START, "inner").compile()
        saver = Told()
        config = {"configurable": {"thread_id": "1"}, "metadata": {"pair": (1, 2), "list": [3], "n": 1}, "tags": ["t"]}
        await verbs.invoke(parent(through(child), saver), {"log": []}, config, durability="async")
        told.append(sorted(map(repr, saver.told)))  # threads put them
    assert told[0] == told[1]
    assert told[0]


async def test_resume_on_another_host(serve: Any, verbs: Any, tmp_path: Path) -> None:
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "1"}}
    address, process = serve()
    graph = parent(RemoteAgent(f"{address}/asking"), saver)
    paused = await verbs.invoke(graph, {"log": [], "folder": str(tmp_path)}, config)
    assert paused["__interrupt__"][0].value == "go on?"
    process.send_signal(signal.SIGKILL)
    process.wait(100)
    address, _ = serve()
    done = await verbs.invoke(parent(RemoteAgent(f"{address}/asking"), saver), Command(resume="yes"), config)
    assert done["log"] == ["before", "before", "first", "second", "asked: yes", "last"]
    assert [runs(tmp_path, name) for name in ("first", "second", "last")] == [1, 1, 1]


def go(address: str, folder: str, what: str) -> None:
    """Starts a run in a process of its own, or goes on with it."""
    with SqliteSaver.from_conn_string(f"{folder}/db.sqlite") as saver:
        graph = parent(RemoteAgent(f"{address}/asking"), saver)
        input: Any = Command(resume=what) if what else {"log": [], "folder": folder}
        print(graph.invoke(input, {"configurable": {"thread_id": "1"}}).get("log"))


def test_a_new_parent_process_goes_on(serve: Any, tmp_path: Path) -> None:
    address, _ = serve()
    for what in ("", "again"):
        with Forked(go, address, str(tmp_path), what) as process:
            said, errors = process.communicate(60)
            assert process.wait(100) == 0, errors
    assert "asked: again" in said and "last" in said
    assert runs(tmp_path, "first") == 1


def stream(address: str, folder: str) -> None:
    """Runs a graph and prints what it streams."""
    for part in RemoteAgent(f"{address}/blocking").stream({"log": [], "folder": folder}, stream_mode="custom"):
        print(part, flush=True)


def test_ctrl_c_ends_the_caller_at_once_and_the_remote_runs_no_further_step(serve: Any, tmp_path: Path) -> None:
    address, process = serve()
    with Forked(stream, address, str(tmp_path)) as caller:
        assert caller.stdout.readline() == "blocked\n"
        caller.send_signal(signal.SIGINT)
        _, errors = caller.communicate(5)
    assert "KeyboardInterrupt" in errors
    (tmp_path / "release").touch()
    assert RemoteAgent(f"{address}/asking").ping() < 5
    process.send_signal(signal.SIGTERM)
    process.wait(100)
    assert not (tmp_path / "last").exists()


async def test_state_of_the_remote_seen_and_written_from_the_parent(verbs: Any, tmp_path: Path) -> None:
    """The same history, states, writes and forks as with the local graph."""

    async def story(nested: Any, folder: Path) -> list[Any]:
        folder.mkdir()
        graph = parent(nested, InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        await verbs.invoke(graph, {"log": [], "folder": str(folder)}, config)
        state = await verbs.call(graph, "get_state", config, subgraphs=True)
        inner = state.tasks[0].state.config
        seen: list[Any] = [state.next, state.tasks[0].state.next, state.tasks[0].state.values["log"]]
        past = await verbs.listed(graph, "get_state_history", inner)
        seen.append([(s.next, len(s.values.get("log", []))) for s in past])
        await verbs.call(graph, "update_state", inner, {"log": ["written"]}, as_node="second")
        done = await verbs.invoke(graph, Command(resume="yes"), config)
        seen.append(done["log"])
        before = [s for s in await verbs.listed(graph, "get_state_history", config) if s.next == ("nested",)][-1]
        again = await verbs.invoke(graph, None, before.config)
        seen.append([i.value for i in again["__interrupt__"]])
        fork = await verbs.call(graph, "update_state", before.config, {"log": ["forked"]})
        seen.append((await verbs.invoke(graph, None, fork))["__interrupt__"][0].value)
        return seen

    assert await story(loopback(asking), tmp_path / "remote") == await story(asking, tmp_path / "local")


@pytest.mark.parametrize("checkpointer", [None, True, False])
async def test_every_kind_of_checkpointer_behaves_as_locally(verbs: Any, tmp_path: Path, checkpointer: Any) -> None:
    from tests.interaction.served import chain, first, second

    async def story(place: Any, folder: Path) -> list[Any]:
        folder.mkdir()
        nested = place(chain(first, second, checkpointer=checkpointer))
        graph = parent(nested, InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        results = []
        for _ in range(2):
            done = await verbs.invoke(graph, {"log": [], "folder": str(folder)}, config)
            results.append((done["log"], runs(folder, "first")))
        return results

    assert await story(loopback, tmp_path / "remote") == await story(lambda graph: graph, tmp_path / "local")


def test_a_sync_saver_of_sqlite(tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        graph = parent(loopback(asking), saver)
        config = {"configurable": {"thread_id": "1"}}
        graph.invoke({"log": [], "folder": str(tmp_path)}, config)
        assert graph.invoke(Command(resume="yes"), config)["log"][-1] == "last"


async def test_an_async_saver_of_sqlite(tmp_path: Path) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        graph = parent(loopback(asking), saver)
        config = {"configurable": {"thread_id": "1"}}
        await graph.ainvoke({"log": [], "folder": str(tmp_path)}, config)
        assert (await graph.ainvoke(Command(resume="yes"), config))["log"][-1] == "last"


@checkpointer_test(name="InMemorySaver of a remote graph")
async def remote_memory() -> Any:
    yield loopback(_keeps(InMemorySaver()), allow=["langgraph.checkpoint.conformance"]).checkpointer


@checkpointer_test(name="AsyncSqliteSaver of a remote graph")
async def remote_sqlite() -> Any:
    async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
        yield loopback(_keeps(saver), allow=["langgraph.checkpoint.conformance"]).checkpointer


def _keeps(saver: Any) -> Any:
    return StateGraph(Log).add_sequence([("n", lambda state: {})]).add_edge(START, "n").compile(checkpointer=saver)


@pytest.mark.parametrize("registered", [remote_memory, remote_sqlite], ids=["memory", "sqlite"])
async def test_conformance_of_a_saver_over_a_real_stream(registered: Any) -> None:
    report = await validate(registered)
    failures = [failure for found in report.results.values() for failure in found.failures]
    assert not failures
    assert sum(found.tests_passed for found in report.results.values()) >= 58


def test_the_state_of_a_remote_node_that_has_not_begun() -> None:
    nested = loopback(Dag(name="nested").add_node("ask", lambda messages: interrupt("?")).compile())
    builder = Dag(name="desk").add_node("here", lambda messages: "hello").add_node("nested", nested)
    graph: Any = builder.add_edge("here", "nested").compile(checkpointer=InMemorySaver(), interrupt_before=["nested"])
    config: Any = {"configurable": {"thread_id": "1"}}
    graph.invoke({"messages": "hi"}, config)
    state = graph.get_state(config, subgraphs=True)
    assert state.next == ("nested",) and state.tasks[0].state.values == {}


async def test_no_node_runs_after_an_input_that_could_not_be_saved(place: Any, verbs: Any) -> None:
    class Full(InMemorySaver):
        def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
            if config["configurable"].get("checkpoint_ns") and metadata["source"] == "input":
                raise OSError("the disk is full")
            return super().put(config, checkpoint, metadata, new_versions)

    ran: list[str] = []

    def node(state: Log) -> Any:
        ran.append("node")
        return {"log": ["node"]}

    child = place(StateGraph(Log).add_node("node", node).add_edge(START, "node").compile(), allow=(Log,))
    with pytest.raises(OSError, match="the disk is full"):
        await verbs.invoke(parent(child, Full()), {"log": []}, {"configurable": {"thread_id": "1"}}, durability="sync")
    assert not ran
