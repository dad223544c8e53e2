"""What a nested graph finds around it, and what its parent's node options do with it: the same wherever it runs."""

from __future__ import annotations

import asyncio
import copy
import pickle
import socket
import threading
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_store
from langgraph.errors import GraphDrained, NodeTimeoutError
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.prebuilt import ToolNode
from langgraph.runtime import RunControl, Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, RetryPolicy

from agentmatrix import ChatGroup, Dag, RemoteAgent
from agentmatrix.errors import HostUnreachable
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback


class State(TypedDict, total=False):
    text: str


def one(node: Any, **options: Any) -> Any:
    return StateGraph(State, **options).add_node("node", node).add_edge(START, "node").compile()


def around(nested: Any, *, store: Any = None, cache: Any = None, **options: Any) -> Any:
    builder = StateGraph(State).add_node("nested", nested, **options).add_edge(START, "nested")
    return builder.compile(store=store, cache=cache)


async def test_a_retry_sees_the_exception_of_the_remote(place: Any, verbs: Any) -> None:
    tries: list[int] = []

    def flaky(state: State) -> State:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionResetError("again")
        return {"text": "third"}

    policy = RetryPolicy(max_attempts=3, initial_interval=0.001, retry_on=ConnectionResetError)
    graph = around(place(one(flaky)), retry_policy=policy)
    assert (await verbs.invoke(graph, {"text": ""}))["text"] == "third"


async def test_a_cached_node_does_not_call_again(place: Any, verbs: Any) -> None:
    calls: list[int] = []

    def work(state: State) -> State:
        calls.append(1)
        return {"text": f"call {len(calls)}"}

    graph = around(place(one(work)), cache=InMemoryCache(), cache_policy=CachePolicy())
    first = await verbs.invoke(graph, {"text": "same"})
    assert await verbs.invoke(graph, {"text": "same"}) == first
    assert len(calls) == 1


async def test_a_node_timeout_stops_the_remote(place: Any) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def slow(state: State) -> State:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return {}

    graph = around(place(one(slow)), timeout=0.2)
    while not begun.is_set():  # on a busy machine its time may be over before that
        with pytest.raises(NodeTimeoutError):
            await graph.ainvoke({"text": ""})
    assert await asyncio.to_thread(cancelled.wait, 100)


async def test_a_cache_and_a_managed_value_inside(place: Any, verbs: Any) -> None:
    class Managed(TypedDict, total=False):
        text: str
        left: RemainingSteps

    def work(state: Any) -> Any:
        return {"text": str(state["left"])}

    nested = StateGraph(Managed).add_node("w", work).add_edge(START, "w").compile()
    config: RunnableConfig = {"recursion_limit": 7}
    remote = await verbs.invoke(around(place(nested)), {"text": ""}, config)
    assert remote == await verbs.invoke(around(nested), {"text": ""}, config)


async def test_the_store_in_every_way(place: Any, verbs: Any) -> None:
    def use(state: State, runtime: Runtime[Any]) -> State:
        store = runtime.store
        assert store is not None
        store.put(("a", "b"), "k1", {"n": 1})
        store.put(("a", "c"), "k2", {"n": 2})
        found = store.search(("a",))
        names = store.list_namespaces(prefix=("a",))
        store.delete(("a", "b"), "k1")
        return {"text": f"{sorted(item.key for item in found)} {sorted(names)} {store.get(('a', 'b'), 'k1')}"}

    async def ause(state: State, runtime: Runtime[Any]) -> State:
        store = get_store()
        await store.aput(("a", "b"), "k1", {"n": 1})
        await store.aput(("a", "c"), "k2", {"n": 2})
        found = await store.asearch(("a",))
        names = await store.alist_namespaces(prefix=("a",))
        await store.adelete(("a", "b"), "k1")
        return {"text": f"{sorted(i.key for i in found)} {sorted(names)} {await store.aget(('a', 'b'), 'k1')}"}

    graph = around(place(one(ause if verbs.is_async else use)), store=InMemoryStore())
    done = await verbs.invoke(graph, {"text": ""})
    assert done["text"] == "['k1', 'k2'] [('a', 'b'), ('a', 'c')] None"


def test_a_store_prefix_narrows() -> None:
    def use(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.store is not None
        runtime.store.put(("mine",), "k", {})
        runtime.store.put(("secret",), "k", {})
        return {}

    store = InMemoryStore()
    with pytest.raises(PermissionError, match="store_prefix"):
        around(loopback(one(use), store_prefix=["mine"]), store=store).invoke({"text": ""})
    assert store.get(("mine",), "k") is not None and store.get(("secret",), "k") is None


def test_forward_narrows_the_configurable_values() -> None:
    def read(state: State, config: RunnableConfig) -> State:
        return {"text": str(sorted(k for k in config["configurable"] if k in ("a", "b")))}

    remote = loopback(one(read), forward=["a"])
    assert remote.invoke({"text": ""}, {"configurable": {"a": 1, "b": 2}})["text"] == "['a']"


async def test_config_inside_a_tool(place: Any, verbs: Any) -> None:
    @tool
    def colour() -> str:
        """The colour of the run."""
        return str(get_config()["configurable"]["colour"])

    call = AIMessage("", tool_calls=[{"name": "colour", "args": {}, "id": "1"}])
    nested = StateGraph(MessagesState).add_node("tools", ToolNode([colour])).add_edge(START, "tools").compile()
    done = await verbs.invoke(place(nested), {"messages": [call]}, {"configurable": {"colour": "red"}})
    assert done["messages"][-1].content == "red"


async def test_a_functional_graph_with_tasks(place: Any, verbs: Any) -> None:
    @task
    def double(n: int) -> int:
        return 2 * n

    @entrypoint(checkpointer=InMemorySaver())
    def work(numbers: list[int], *, previous: Any = None) -> Any:
        return entrypoint.final(value=[double(n).result() for n in numbers], save=(previous or 0) + 1)

    @entrypoint(checkpointer=InMemorySaver())
    async def awork(numbers: list[int], *, previous: Any = None) -> Any:
        return entrypoint.final(value=[await double(n) for n in numbers], save=(previous or 0) + 1)

    agent = place(awork if verbs.is_async else work)
    config = {"configurable": {"thread_id": "1"}}
    assert await verbs.invoke(agent, [1, 2, 3], config) == [2, 4, 6]


async def test_a_drain_from_inside_and_from_the_parent(place: Any, verbs: Any) -> None:
    def drain(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.control is not None
        runtime.control.request_drain("enough")
        return {"text": "first"}

    builder = StateGraph(State).add_node("drain", drain).add_node("never", lambda s: {"text": "never"})
    nested = builder.add_edge(START, "drain").add_edge("drain", "never").compile()
    control = RunControl()
    with pytest.raises(GraphDrained, match="enough"):
        await verbs.invoke(around(place(nested)), {"text": ""}, control=control)
    assert control.drain_requested


async def test_copies_stay_remote_and_transparent() -> None:
    agent = loopback(one(lambda s, config: {"text": f"{s['text']} {config['configurable'].get('who')}"}))
    who: RunnableConfig = {"configurable": {"who": "me"}}
    for twin in (
        agent.with_config(who),
        copy.deepcopy(agent).with_config(who),
        copy.copy(agent).with_config(who),
        pickle.loads(pickle.dumps(agent.with_config(who))),
        agent.with_retry().with_config(who),
        agent.bind().with_config(who),
    ):
        assert twin.invoke({"text": "hi"})["text"] == "hi me"
        assert (await twin.ainvoke({"text": "hi"}))["text"] == "hi me"
    assert isinstance(agent.with_config(who), RemoteAgent)


async def test_a_remote_in_a_group_in_a_dag(verbs: Any) -> None:
    model = ScriptedChatModel(["from afar"], cycle=True)
    afar = loopback(
        StateGraph(MessagesState)
        .add_node("talk", lambda s: {"messages": [model.invoke(s["messages"])]})
        .add_edge(START, "talk")
        .compile()
    )
    group = ChatGroup({"near": ScriptedChatModel(["from near"], cycle=True), "afar": afar}, stop=max_turns(2)).compile()
    dag = Dag(name="dag")
    dag.add_node("group", group)
    done = await verbs.invoke(dag.compile(), {"messages": [HumanMessage("go")]})
    assert done["messages"][-1].text == "from afar"


async def test_a_remote_that_calls_back_a_graph_of_its_caller(verbs: Any) -> None:
    back = loopback(one(lambda s: {"text": s["text"] + " and back"}))

    def forth(state: State) -> State:
        return back.invoke({"text": state["text"] + " forth"})

    async def aforth(state: State) -> State:
        return await back.ainvoke({"text": state["text"] + " forth"})

    graph = around(loopback(one(aforth if verbs.is_async else forth)))
    assert (await verbs.invoke(graph, {"text": "go"}))["text"] == "go forth and back"


async def test_the_same_graph_local_and_remote_in_one_parent(verbs: Any) -> None:
    class Both(TypedDict, total=False):
        log: Annotated[list[str], lambda a, b: a + b]

    nested = StateGraph(Both).add_node("n", lambda s: {"log": ["n"]}).add_edge(START, "n").compile()
    builder = StateGraph(Both).add_node("here", nested).add_node("there", loopback(nested))
    graph = builder.add_edge(START, "here").add_edge("here", "there").compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert len((await verbs.invoke(graph, {"log": []}, config))["log"]) == 3


def test_building_compiling_drawing_and_pickling_touch_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    agent = RemoteAgent("gpu-box:50051/expert")
    graph = around(agent)
    graph.get_graph(xray=True).draw_mermaid()
    pickle.loads(pickle.dumps(agent))
    assert "not reached" in agent.get_graph().nodes["expert"].name
    assert repr(agent) == "RemoteAgent(grpc://gpu-box:50051/expert, idle)"
    assert not agent.reached


async def test_schemas_and_structure_are_those_of_the_graph(place: Any) -> None:
    class Typed(MessagesState):
        """Messages alone."""

    nested = StateGraph(Typed).add_node("n", lambda s: {}).add_edge(START, "n").compile(name="nested")
    local = StateGraph(Typed).add_node("inside", nested).add_edge(START, "inside").compile(name="outer")
    agent = place(local)
    for schema in ("get_input_jsonschema", "get_output_jsonschema", "get_context_jsonschema"):
        assert getattr(agent, schema)() == getattr(local, schema)()
    assert agent.get_graph(xray=True).to_json() == local.get_graph(xray=True).to_json()
    assert [name for name, _ in agent.get_subgraphs(recurse=True)] == ["inside"]
    assert agent.get_name() == "outer"


def test_ping_card_and_close() -> None:
    agent = loopback(one(lambda s: {"text": "x"}))
    assert agent.ping() < 5
    assert agent.card.name and agent.card.langgraph
    with agent:
        agent.invoke({"text": ""})
    assert agent.invoke({"text": ""}) == {"text": "x"}
    with pytest.raises(HostUnreachable):
        RemoteAgent("127.0.0.1:9/x").ping()


def test_spans_inside_a_remote_are_children_of_the_callers() -> None:
    from opentelemetry.sdk import trace

    tracer = trace.TracerProvider().get_tracer("test")
    seen: list[int] = []

    def work(state: State) -> State:
        with tracer.start_as_current_span("inside") as span:
            seen.append(span.get_span_context().trace_id)
        return {}

    agent = loopback(one(work))
    with tracer.start_as_current_span("outside") as span:
        agent.invoke({"text": ""})
        assert seen == [span.get_span_context().trace_id]


def test_langsmith_runs_inside_a_remote_know_their_parent() -> None:
    from langsmith.run_helpers import get_current_run_tree, tracing_context
    from langsmith.run_trees import RunTree

    seen: list[Any] = []

    def work(state: State) -> State:
        run = get_current_run_tree()
        seen.append(run and (run.id, run.trace_id))
        return {}

    agent = loopback(one(work))
    parent = RunTree(name="parent", run_type="chain", inputs={})
    with tracing_context(parent=parent, enabled=False):
        agent.invoke({"text": ""})
    assert seen == [(parent.id, parent.trace_id)]


def test_a_loopback_equals_the_graph_that_it_stands_for() -> None:
    inside = one(lambda s: {})
    nested = around(inside)
    remote = loopback(nested)
    assert remote == nested and remote != around(inside) and remote != remote.with_config(tags=["a"])
    assert list(remote.get_subgraphs()) == [("nested", inside)]
    assert len({remote, nested, loopback(nested)}) == 3
