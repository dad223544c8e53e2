"""What a host may do with its caller's store and cache."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchItem, SearchOp
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy

from agentmatrix.session.store import LentCache, LentStore
from agentmatrix.testing import loopback


class State(TypedDict, total=False):
    text: str


def one(node: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("n", node, **options).add_edge(START, "n").compile()


def around(nested: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("nested", nested).add_edge(START, "nested").compile(**options)


async def test_the_store_is_closed_by_default_and_says_how_it_is_opened(verbs: Any) -> None:
    def use(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.store is not None
        runtime.store.put(("notes",), "k", {"n": 1})
        return {"text": "written"}

    async def ause(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.store is not None
        await runtime.store.aput(("notes",), "k", {"n": 1})
        return {"text": "written"}

    store, nested = InMemoryStore(), one(ause if verbs.is_async else use)
    with pytest.raises(PermissionError, match=r"RemoteAgent\(store_prefix=\[\.\.\.\]\)"):
        await verbs.invoke(around(loopback(nested), store=store), {"text": ""})
    assert store.get(("notes",), "k") is None
    for prefix in (("notes",), ()):
        graph = around(loopback(nested, store_prefix=prefix), store=store)
        assert await verbs.invoke(graph, {"text": ""}) == {"text": "written"}
    # A graph that uses no store does not notice.
    assert await verbs.invoke(around(loopback(one(lambda s: {"text": "x"})), store=store), {"text": ""})


def test_a_prefix_goes_by_whole_labels() -> None:
    store = InMemoryStore()
    for namespace in (("team",), ("team", "a"), ("teammate",), ("users", "bob")):
        store.put(namespace, "k", {"at": ".".join(namespace)})
    lent = LentStore(store, ("team",))
    found, names = lent.batch([SearchOp(("team",)), ListNamespacesOp((MatchCondition("prefix", ("team",)),))])
    assert sorted(item.namespace for item in found) == [("team",), ("team", "a")]  # type: ignore[union-attr]
    assert sorted(names) == [("team",), ("team", "a")]  # type: ignore[arg-type, type-var]
    for op in (
        GetOp(("teammate",), "k"),
        PutOp(("users", "bob"), "k", {}),
        SearchOp(()),
        SearchOp(("te",)),
        ListNamespacesOp(),
        ListNamespacesOp((MatchCondition("suffix", ("team",)),)),
        ListNamespacesOp((MatchCondition("prefix", ("*",)),)),
    ):
        with pytest.raises(PermissionError, match="store_prefix"):
            lent.batch([op])


def test_a_store_that_compares_texts_leaks_nothing() -> None:
    """SQL stores look for `prefix LIKE 'team%'`."""

    class Leaky(InMemoryStore):
        def batch(self, ops: Any) -> Any:
            item = {"value": {}, "key": "k", "created_at": "2026-01-01", "updated_at": "2026-01-01"}
            return [[SearchItem(namespace=("teammate",), **item), SearchItem(namespace=("team",), **item)]]  # type: ignore[arg-type]

    (found,) = LentStore(Leaky(), ("team",)).batch([SearchOp(("team",))])
    assert [item.namespace for item in found] == [("team",)]  # type: ignore[union-attr]


def test_no_filter_or_limit_that_could_be_sql() -> None:
    lent = LentStore(InMemoryStore(), ())
    for op in (SearchOp((), filter={"a') --": 1}), SearchOp((), limit="1; --"), ListNamespacesOp(offset="x")):  # type: ignore[arg-type]
        with pytest.raises(PermissionError):
            lent.batch([op])


def test_a_cache_is_a_part_of_the_callers() -> None:
    cache = InMemoryCache[Any]()
    cache.set({(("secret",), "k"): ("own", None)})
    here, there = LentCache(cache, ("remote", "here")), LentCache(cache, ("remote", "there"))
    assert here.get([(("secret",), "k")]) == {}
    here.set({(("secret",), "k"): ("planted", None)})
    assert here.get([(("secret",), "k")]) == {(("secret",), "k"): "planted"}
    assert there.get([(("secret",), "k")]) == {}
    with pytest.raises(PermissionError, match="not all of it"):
        here.clear()
    here.clear([("secret",)])
    assert here.get([(("secret",), "k")]) == {}
    assert cache.get([(("secret",), "k")]) == {(("secret",), "k"): "own"}


async def test_a_cached_node_on_a_host_runs_once(place: Any, verbs: Any) -> None:
    """LangGraph lends no cache to a nested graph by itself; a config may."""
    ran: list[str] = []

    def work(state: State) -> State:
        ran.append(state["text"])
        return {"text": "done"}

    graph, cache = place(one(work, cache_policy=CachePolicy())), InMemoryCache[Any]()
    for _ in range(2):
        done = await verbs.invoke(graph, {"text": "go"}, {"configurable": {"__pregel_cache": cache}})
        assert done == {"text": "done"}
    assert ran == ["go"]
