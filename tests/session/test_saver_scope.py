"""What a host may do with its caller's checkpointer: what the node that it works for may do, and nothing more."""

from __future__ import annotations

import operator
import time
import uuid
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, StateSnapshot, interrupt

from agentmatrix.session.namespace_scope import NamespaceScope
from agentmatrix.session.saver_scope import LentSaver
from agentmatrix.testing import loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def said(word: str) -> Any:
    return lambda state: {"log": [word]}


def ask(state: Log) -> Log:
    return {"log": [f"asked {interrupt('go on?')}"]}


def chain(*nodes: tuple[str, Any], **options: Any) -> Any:
    builder = StateGraph(Log)
    for name, node in nodes:
        builder.add_node(name, node)
    for before, after in zip((START, *(name for name, _ in nodes)), (name for name, _ in nodes), strict=False):
        builder.add_edge(before, after)
    return builder.compile(**options)


# What a local child does, a remote one may do: the same results, behind one host and behind two.


def hops(number: int, graph: Any) -> Any:
    """A node that holds the graph, with hosts between."""
    for _ in range(number):
        graph = loopback(graph)
    return graph


def nested(hosts: int, grand_is_kept: bool) -> Any:
    """A parent, a child and a grandchild; `hosts` 1 puts the child on a host, 2 the grandchild on one more."""
    grand = chain(("ask", ask), ("end", said("end")), checkpointer=True if grand_is_kept else None)
    child = chain(("first", said("first")), ("grand", hops(int(hosts > 1), grand)))
    return chain(("before", said("before")), ("child", hops(int(hosts > 0), child)), checkpointer=InMemorySaver())


def names(snapshot: Any) -> Any:
    """A snapshot and the snapshots in it, without ids."""
    inner = [names(task.state) for task in snapshot.tasks if isinstance(task.state, StateSnapshot)]
    return snapshot.values, snapshot.next, [i.value for i in snapshot.interrupts], inner


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("kept", [False, True], ids=["stateless", "kept"])
async def test_resume_states_time_travel_and_forks(verbs: Any, hosts: int, kept: bool) -> None:
    async def story(graph: Any) -> list[Any]:
        told: list[Any] = [(await verbs.invoke(graph, {"log": []}, THREAD))["log"]]
        paused = await verbs.call(graph, "get_state", THREAD, subgraphs=True)
        told.append(names(paused))
        inner = paused.tasks[0].state.config
        told.append(names(await verbs.call(graph, "get_state", inner, subgraphs=True)))
        told.append(await verbs.invoke(graph, Command(resume="yes"), THREAD))
        history = await verbs.listed(graph, "get_state_history", THREAD)
        told.append([names(snapshot) for snapshot in history])
        # Time travel: from before the child, in the same thread.
        before = next(snapshot for snapshot in history if snapshot.next == ("child",))
        told.append((await verbs.invoke(graph, None, before.config))["log"])
        told.append((await verbs.invoke(graph, Command(resume="again"), THREAD))["log"])
        # A fork: another state at that point.
        forked = await verbs.call(graph, "update_state", before.config, {"log": ["forked"]}, as_node="before")
        told.append((await verbs.invoke(graph, None, forked))["log"])
        told.append((await verbs.invoke(graph, Command(resume="third"), THREAD))["log"])
        return told

    assert await story(nested(hosts, kept)) == await story(nested(0, kept))


@pytest.mark.parametrize("hosts", [1, 2])
async def test_an_update_of_an_inner_state(verbs: Any, hosts: int) -> None:
    async def story(graph: Any) -> Any:
        await verbs.invoke(graph, {"log": []}, THREAD)
        paused = await verbs.call(graph, "get_state", THREAD, subgraphs=True)
        inner = paused.tasks[0].state.tasks[0].state.config
        await verbs.call(graph, "update_state", inner, {"log": ["updated"]})
        return (await verbs.invoke(graph, Command(resume="yes"), THREAD))["log"]

    assert await story(nested(hosts, False)) == await story(nested(0, False))


# What a node may not do.


def granted(namespace: str = "child:t1", **configurable: Any) -> tuple[LentSaver, InMemorySaver]:
    saver = InMemorySaver()
    own = {"thread_id": "mine", "checkpoint_ns": namespace, **configurable}
    return LentSaver(saver, {}, own, NamespaceScope(namespace)), saver


def at(namespace: str | None, thread: Any = "mine", **more: Any) -> Any:
    place = {} if namespace is None else {"checkpoint_ns": namespace}
    return {"configurable": {"thread_id": thread, **place, **more}}


def dated(seconds: float) -> str:
    """The id of a checkpoint made `seconds` from now."""
    ticks = int((time.time() + seconds) * 1e7) + 0x01B21DD213814000
    return str(uuid.UUID(int=(ticks >> 12) << 80 | 6 << 76 | (ticks & 0xFFF) << 64 | 2 << 62))


@pytest.mark.parametrize("namespace", ["child:t1", "child:t1|1", "child:t1|x:t2", "child", "child|grand", "child|x:t3"])
def test_at_or_below_the_node(namespace: str) -> None:
    lent, saver = granted()
    checkpoint = empty_checkpoint()
    saved = lent.put(at(namespace), checkpoint, {}, {})
    lent.put_writes(saved, [("log", "x")], "t")
    assert lent.get_tuple(at(namespace)).checkpoint["id"] == checkpoint["id"]  # type: ignore[union-attr]
    assert [found.checkpoint["id"] for found in lent.list(at(namespace))] == [checkpoint["id"]]
    assert saver.get_tuple(at(namespace)).pending_writes == [("t", "log", "x")]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "namespace", ["", "child2", "child2:t1", "child:t2", "chil", "other:t", "|child:t1", "child:t1x", None]
)
def test_no_other_namespace(namespace: str | None) -> None:
    lent, saver = granted()
    for call in (
        lambda: lent.get_tuple(at(namespace)),
        lambda: list(lent.list(at(namespace))),
        lambda: lent.put(at(namespace), empty_checkpoint(), {}, {}),
        lambda: lent.put_writes(at(namespace, checkpoint_id="1"), [("log", "x")], "t"),
    ):
        with pytest.raises(PermissionError, match="at or below 'child:t1'"):
            call()
    assert not saver.storage and not saver.writes


@pytest.mark.parametrize("thread", ["other", "mine2", "", None, 1, ["mine"]])
def test_no_other_thread(thread: Any) -> None:
    lent, saver = granted()
    with pytest.raises(PermissionError, match="of the thread of its run, 'mine'"):
        lent.get_tuple(at("child:t1", thread))
    with pytest.raises(PermissionError):
        lent.put(at("child:t1", thread), empty_checkpoint(), {}, {})
    assert not saver.storage


def test_a_thread_id_that_is_a_number_is_the_same_as_text() -> None:
    lent, _ = granted(thread_id=7)
    assert lent.get_tuple(at("child:t1", "7")) is lent.get_tuple(at("child:t1", 7)) is None
    with pytest.raises(PermissionError):
        lent.get_tuple(at("child:t1", True))


def test_no_list_of_all_and_no_foreign_filter() -> None:
    lent, _ = granted()
    with pytest.raises(PermissionError, match="not of all"):
        list(lent.list(None))
    for filter in ({"a') OR 1=1 --": 1}, {1: 1}, [("source", "loop")]):
        with pytest.raises(PermissionError, match="filter"):
            list(lent.list(at("child:t1"), filter=filter))
    with pytest.raises(PermissionError, match="no number"):
        list(lent.list(at("child:t1"), limit="1; DROP TABLE checkpoints"))
    assert not list(lent.list(at("child:t1"), filter={"source": "loop", "step": 1}, limit=1))


def test_before_is_taken_and_says_nothing_but_an_id() -> None:
    lent, _ = granted()
    ids = [lent.put(at("child:t1"), empty_checkpoint(), {}, {})["configurable"]["checkpoint_id"] for _ in range(3)]
    before = at("", "another thread", checkpoint_id=ids[2])
    assert [found.checkpoint["id"] for found in lent.list(at("child:t1"), before=before)] == [ids[1], ids[0]]


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (dated(100 * 24 * 3600), "ahead of the caller's clock.*set the clocks"),
        ("ffffffff-ffff-6fff-bfff-ffffffffffff", "ahead of the caller's clock"),
        ("FFFFFFFF-0000-6FFF-BFFF-FFFFFFFFFFFF", "none of LangGraph's"),
        (str(uuid.uuid4()), "none of LangGraph's"),
        ("z", "none of LangGraph's"),
        (None, "none of LangGraph's"),
    ],
    ids=["ahead", "the last", "capitals", "of another kind", "no id", "none"],
)
def test_no_checkpoint_stays_the_newest(number: Any, sentence: str) -> None:
    lent, saver = granted()
    with pytest.raises(PermissionError, match=sentence):
        lent.put(at("child:t1"), {**empty_checkpoint(), "id": number}, {}, {})
    assert not saver.storage


def test_a_checkpoint_follows_its_parent() -> None:
    lent, _ = granted()
    parent = lent.put(at("child:t1"), {**empty_checkpoint(), "id": dated(5)}, {}, {})
    with pytest.raises(PermissionError, match="the host's clock is behind"):
        lent.put(parent, {**empty_checkpoint(), "id": dated(1)}, {}, {})
    lent.put(parent, {**empty_checkpoint(), "id": dated(50)}, {}, {})


def test_the_callers_own_keys_reach_the_saver_and_not_the_host() -> None:
    """A saver may choose a tenant by a key of its own: the caller's word counts there, whatever the host says."""
    saver = InMemorySaver()
    own = {"thread_id": "mine", "checkpoint_ns": "child:t1", "tenant": "a", "colour": "red"}
    lent = LentSaver(saver, {}, own, NamespaceScope("child:t1"), forward=["colour"])
    lent.put(at("child:t1", tenant="b", colour="blue", more="x"), empty_checkpoint(), {}, {})
    stored = saver.get_tuple(at("child:t1"))
    assert stored is not None and {"tenant": "a", "colour": "red", "more": "x"}.items() <= stored.metadata.items()
    shown = lent.get_tuple(at("child:t1", checkpoint_id=stored.checkpoint["id"]))
    assert shown is not None and "tenant" not in shown.metadata and shown.metadata["colour"] == "red"
    assert "tenant" not in shown.config["configurable"]


parts = st.text("ab1", min_size=1, max_size=2)
tasks = st.builds("{}:{}".format, parts, parts)
namespaces = st.lists(st.one_of(tasks, parts), max_size=4).map("|".join)


@given(namespaces, namespaces)
def test_what_is_covered_has_the_node_as_its_beginning(own: str, other: str) -> None:
    scope = NamespaceScope(own)
    assert scope.covers(own) and (not own or scope.covers(f"{own}|{other}" if other else own))
    if scope.covers(other) and own:
        mine, theirs = ([part.split(":")[0] for part in text.split("|")] for text in (own, other))
        unnumbered = [part.split(":")[0] for part in own.split("|") if not part.isdigit()]
        assert theirs[: len(mine)] == mine or theirs[: len(unnumbered)] == unnumbered


def test_a_node_that_is_named_by_a_number_covers_itself_alone() -> None:
    assert NamespaceScope("1:t").covers("1") and not NamespaceScope("1:t").covers("2:t")
    assert not NamespaceScope("1:t").covers("")


async def test_a_thread_of_another_is_refused_where_it_is_asked(verbs: Any) -> None:
    """On the real path: a node on a host asks the parent's saver for another thread; the run ends with the sentence."""

    def steal(state: Log, config: RunnableConfig) -> Log:
        config["configurable"]["__pregel_checkpointer"].get_tuple(at("", "victim"))
        return {}

    async def asteal(state: Log, config: RunnableConfig) -> Log:
        await config["configurable"]["__pregel_checkpointer"].aget_tuple(at("", "victim"))
        return {}

    far = loopback(chain(("steal", asteal if verbs.is_async else steal)))
    graph = chain(("far", far), checkpointer=InMemorySaver())
    with pytest.raises(PermissionError, match="of the thread of its run, '1', not of 'victim'"):
        await verbs.invoke(graph, {"log": []}, THREAD)
