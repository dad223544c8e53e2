"""A host's own checkpointer: each identity has threads of its own, and sees its own ids everywhere."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.session.thread_scope import scoped_graph, scoped_saver
from agentmatrix.transport.identity import Identity

TOKENS = {"alice": "token-of-alice", "bob": "token-of-bob"}
THREAD: RunnableConfig = {"configurable": {"thread_id": "1"}}


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def note(state: Log, config: RunnableConfig) -> Log:
    return {"log": [f"in {config['configurable']['thread_id']}"]}


def ask(state: Log) -> Log:
    return {"log": [interrupt("which?")]}


def builder(cls: Any = StateGraph) -> Any:
    made = cls(Log).add_node("note", note) if cls is StateGraph else cls(Log)
    if cls is not StateGraph:
        made.add_node("note", note)
    made.add_node("ask", ask)
    made.add_edge(START, "note")
    made.add_edge("note", "ask")
    return made


def callers(host: Host) -> list[RemoteAgent]:
    return [RemoteAgent(f"{host.address}/kept", api_key=token) for token in TOKENS.values()]


async def story(graph: Any, verbs: Any) -> list[Any]:
    """Everything that a caller does with its thread, and what it sees of it."""
    told: list[Any] = [(await verbs.invoke(graph, {"log": ["hi"]}, THREAD))["log"]]
    paused = await verbs.call(graph, "get_state", THREAD)
    told.append((paused.values, paused.next, paused.config["configurable"]["thread_id"], paused.metadata["step"]))
    told.append(await verbs.invoke(graph, Command(resume="this"), THREAD))
    updated = await verbs.call(graph, "update_state", THREAD, {"log": ["updated"]})
    told.append(updated["configurable"]["thread_id"])
    history = await verbs.listed(graph, "get_state_history", THREAD)
    told.append([(s.values, s.config["configurable"]["thread_id"]) for s in history])
    told.append([s.parent_config and s.parent_config["configurable"]["thread_id"] for s in history])
    fork = history[-2].config
    told.append((await verbs.invoke(graph, None, fork))["log"])
    parts = await verbs.listed(graph, "stream", {"log": ["more"]}, THREAD, stream_mode=["checkpoints"])
    told.append([payload["config"]["configurable"]["thread_id"] for _, payload in parts])
    return told


@pytest.mark.parametrize("cls", [StateGraph, Dag])
async def test_two_callers_have_two_threads_of_one_id(verbs: Any, cls: Any) -> None:
    saver = InMemorySaver()
    with Host({"kept": builder(cls).compile(checkpointer=saver)}, tokens=TOKENS) as host:
        local = await story(builder(cls).compile(checkpointer=InMemorySaver()), verbs)
        for remote in callers(host):
            assert await story(remote, verbs) == local
    assert set(saver.storage) == {"alice/1", "bob/1"}


def test_a_list_of_all_lists_ones_own_and_a_limit_counts_them() -> None:
    graph = StateGraph(Log).add_node("note", note).add_edge(START, "note").compile(checkpointer=InMemorySaver())
    with Host({"kept": graph}, tokens=TOKENS) as host:
        alice, bob = callers(host)
        for number in range(3):
            alice.invoke({}, {"configurable": {"thread_id": f"a{number}"}})
            bob.invoke({}, {"configurable": {"thread_id": f"b{number}"}})
        alice.card  # noqa: B018
        found = [item.config["configurable"]["thread_id"] for item in alice.checkpointer.list(None)]
        assert set(found) == {"a0", "a1", "a2"}
        assert len(list(alice.checkpointer.list(None, limit=2))) == 2
        alice.checkpointer.delete_thread("b0")
        bob.card  # noqa: B018
        assert len({item.config["configurable"]["thread_id"] for item in bob.checkpointer.list(None)}) == 3
        alice.checkpointer.delete_thread("a0")
        assert alice.get_state({"configurable": {"thread_id": "a0"}}).values == {}


def test_what_a_caller_may_not_delete() -> None:
    with Host({"kept": builder().compile(checkpointer=InMemorySaver())}, tokens=TOKENS) as host:
        alice, _ = callers(host)
        alice.card  # noqa: B018
        with pytest.raises((PermissionError, AttributeError, NotImplementedError)):
            alice.checkpointer.delete_for_runs(["1"])


async def test_shared_threads_by_choice(verbs: Any) -> None:
    saver = InMemorySaver()
    with Host({"kept": builder().compile(checkpointer=saver)}, tokens=TOKENS, share_threads=True) as host:
        alice, bob = callers(host)
        await verbs.invoke(alice, {"log": ["hi"]}, THREAD)
        assert (await verbs.invoke(bob, Command(resume="yes"), THREAD))["log"][-1] == "yes"
    assert set(saver.storage) == {"1"}


async def test_one_token_for_all_shares_threads_too(verbs: Any) -> None:
    saver = InMemorySaver()
    with Host({"kept": builder().compile(checkpointer=saver)}, token="secret") as host:
        await verbs.invoke(RemoteAgent(f"{host.address}/kept", api_key="secret"), {"log": ["hi"]}, THREAD)
    assert set(saver.storage) == {"1"}


async def test_a_host_that_keeps_nothing_uses_the_parents_thread_as_it_is(verbs: Any) -> None:
    saver = InMemorySaver()
    with Host({"kept": builder().compile()}, tokens=TOKENS) as host:
        parent = StateGraph(Log).add_node("far", callers(host)[0]).add_edge(START, "far").compile(checkpointer=saver)
        await verbs.invoke(parent, {"log": ["hi"]}, THREAD)
        assert (await verbs.invoke(parent, Command(resume="x"), THREAD))["log"][-1] == "x"
    assert set(saver.storage) == {"1"}


async def test_a_remote_agent_that_is_offered_in_turn_keeps_its_threads_where_it_is(verbs: Any) -> None:
    saver = InMemorySaver()
    with Host({"kept": builder().compile(checkpointer=saver)}, tokens={"between": "token-of-between"}) as far:
        between = RemoteAgent(f"{far.address}/kept", token="token-of-between")
        between.card  # noqa: B018
        with Host({"kept": between}, tokens=TOKENS) as near:
            assert (await verbs.invoke(callers(near)[0], {"log": ["hi"]}, THREAD))["log"] == ["hi", "in 1"]
    assert set(saver.storage) == {"between/1"}


@pytest.mark.parametrize("name", ["a/b", "a%2Fb", "a", "ä ö", "a@b.org"])
def test_no_name_gets_into_the_threads_of_another(name: str) -> None:
    inner = InMemorySaver()
    own, other = scoped_saver(inner, name), scoped_saver(inner, "a")
    own.put({"configurable": {"thread_id": "b/1", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {})
    found = list(own.list(None))
    assert [item.config["configurable"]["thread_id"] for item in found] == ["b/1"]
    for thread in ("b/1", "1", "/b/1", "../a/1"):
        seen = other.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
        assert (seen is not None) == (name == "a" and thread == "b/1")


def test_errors_speak_of_the_callers_own_ids() -> None:
    class Failing(InMemorySaver):
        def get_tuple(self, config: RunnableConfig) -> Any:
            raise ValueError(f"no thread {config['configurable']['thread_id']!r} here")

    with pytest.raises(ValueError, match="^no thread '1' here$"):
        scoped_saver(Failing(), "alice").get_tuple(THREAD)


def test_a_thread_id_keeps_its_type_and_its_absence_is_the_savers_to_notice() -> None:
    saver = scoped_saver(InMemorySaver(), "alice")
    number: RunnableConfig = {"configurable": {"thread_id": 7, "checkpoint_ns": ""}}
    assert saver.put(number, empty_checkpoint(), {}, {})["configurable"]["thread_id"] == 7
    found = saver.get_tuple(number)
    assert found is not None and found.config["configurable"]["thread_id"] == 7
    with pytest.raises(KeyError):
        saver.get_tuple({"configurable": {}})


def test_only_a_checkpointer_of_its_own_is_scoped() -> None:
    for checkpointer in (None, False, True):
        graph = builder().compile(checkpointer=checkpointer)
        assert scoped_graph(graph, Identity("alice")) is graph
    own = builder().compile(checkpointer=InMemorySaver())
    assert scoped_graph(own, None) is own and scoped_graph(own, Identity("alice")) is not own
    assert isinstance(own.checkpointer, InMemorySaver)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_scoped_saver_conforms(tmp_path: Path, kind: str) -> None:
    """LangGraph's own tests of savers, on the threads of one of two identities."""

    @checkpointer_test(f"scoped-{kind}", skip_capabilities={"delete_for_runs"})
    async def scoped() -> Any:
        if kind == "memory":
            yield scoped_saver(InMemorySaver(), "alice")
            return
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "db.sqlite")) as saver:
            yield scoped_saver(saver, "alice")

    report = await validate(scoped)
    failures = [failure for found in report.results.values() for failure in found.failures]
    assert not failures


def test_threads_survive_a_restart_of_the_host(tmp_path: Path) -> None:
    for answer in (None, "later"):
        with SqliteSaver.from_conn_string(str(tmp_path / "db.sqlite")) as saver:
            with Host({"kept": builder().compile(checkpointer=saver)}, tokens=TOKENS) as host:
                alice, bob = callers(host)
                given: Any = {"log": ["hi"]} if answer is None else Command(resume=answer)
                done = alice.invoke(given, THREAD)
                assert bob.get_state(THREAD).values == {}
    assert done["log"] == ["hi", "in 1", "later"]
