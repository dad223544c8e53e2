"""Under durability "sync" a hosted graph waits for its caller's saver where it would wait for one of its own."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentmatrix import Dag
from agentmatrix.session.host_rpc import HostRpc
from agentmatrix.testing import loopback


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def chain(builder: Any, *nodes: tuple[str, Any], saver: Any = None) -> Any:
    for name, node in nodes:
        builder.add_node(name, node)
    for before, after in zip((START, *(name for name, _ in nodes)), (name for name, _ in nodes), strict=False):
        builder.add_edge(before, after)
    return builder.compile(checkpointer=saver)


def parent(nested: Any, saver: Any) -> Any:
    return chain(StateGraph(Log), ("nested", nested), saver=saver)


def said(word: str) -> Callable[[Log], Log]:
    return lambda state: {"log": [word]}


THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.mark.parametrize(
    ("builder", "nodes", "waits"),
    [
        (StateGraph, 1, ["aput"]),  # of the input, before the node starts
        (StateGraph, 3, ["aput"] * 3),
        (Dag, 1, ["aput_writes", "aput"] * 2),
    ],
    ids=["one node", "three nodes", "Dag"],
)
async def test_what_is_waited_for(monkeypatch: Any, builder: Any, nodes: int, waits: list[str]) -> None:
    asked: list[str] = []
    send = HostRpc._send_request

    def noted(self: HostRpc, target: str, method: str, *rest: Any) -> Any:
        asked.append(method)
        return send(self, target, method, *rest)

    monkeypatch.setattr(HostRpc, "_send_request", noted)
    child = chain(builder(Log), *((f"n{number}", said(str(number))) for number in range(nodes)))
    graph = parent(loopback(child), InMemorySaver())
    done = await graph.ainvoke({"log": []}, THREAD, durability="sync")
    assert done["log"] == [*map(str, range(nodes))]
    assert sorted(asked) == sorted(waits)


class Late(InMemorySaver):
    """Keeps a child's last checkpoint when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if config["configurable"]["checkpoint_ns"] and checkpoint["channel_values"].get("log") == ["a", "b"]:
            self.asked.set()
            await self.may.wait()
        return await super().aput(config, checkpoint, metadata, new_versions)


@pytest.mark.parametrize("hosts", [1, 2])
async def test_nobody_is_told_the_result_before_the_last_checkpoint_is_kept(hosts: int) -> None:
    child = chain(StateGraph(Log), ("a", said("a")), ("b", said("b")))
    for _ in range(hosts):
        child = loopback(child)
    saver = Late()
    run = asyncio.create_task(parent(child, saver).ainvoke({"log": []}, THREAD, durability="sync"))
    await saver.asked.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not run.done()
    saver.may.set()
    assert (await run)["log"] == ["a", "b"]
    kept = [found async for found in saver.alist(None)]
    assert [found.checkpoint["channel_values"]["log"] for found in kept if found.metadata["step"] == 2] == [["a", "b"]]


class Full(InMemorySaver):
    """Has no room for the last checkpoint of a child."""

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if config["configurable"]["checkpoint_ns"] and checkpoint["channel_values"].get("log") == ["a", "b"]:
            raise OSError("the disk is full")
        return super().put(config, checkpoint, metadata, new_versions)


@pytest.mark.parametrize("through", [lambda graph: graph, loopback], ids=["local", "remote"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync verb", "async verb"])
async def test_a_last_checkpoint_that_is_not_kept_fails_the_run(is_async: bool, through: Any) -> None:
    graph = parent(through(chain(StateGraph(Log), ("a", said("a")), ("b", said("b")))), Full())
    with pytest.raises(OSError, match="the disk is full"):
        if is_async:
            await graph.ainvoke({"log": []}, THREAD, durability="sync")
        else:
            await asyncio.to_thread(graph.invoke, {"log": []}, THREAD, durability="sync")
    assert not graph.get_state(THREAD).values["log"]


class Slow(InMemorySaver):
    """Takes its time to keep what a node has written."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        time.sleep(0.02)
        super().put_writes(config, writes, task_id, task_path)
        self.kept.extend(value for _, value in writes)


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a StateGraph"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync verb", "async verb"])
async def test_a_dag_starts_no_node_before_the_writes_of_the_last_one_are_kept(
    hosts: int, inside: bool, is_async: bool
) -> None:
    saver = Slow()

    def second(state: Log) -> Log:
        return {"log": [f"a is kept: {['a'] in saver.kept}"]}

    child = chain(Dag(Log), ("a", said("a")), ("b", second))
    child = chain(StateGraph(Log), ("inner", child)) if inside else child
    for _ in range(hosts):
        child = loopback(child)
    graph = parent(child, saver)
    if is_async:
        done = await graph.ainvoke({"log": []}, THREAD, durability="sync")
    else:
        done = await asyncio.to_thread(graph.invoke, {"log": []}, THREAD, durability="sync")
    assert done["log"][-1] == "a is kept: True"
