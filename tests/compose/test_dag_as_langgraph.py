"""Whoever knows LangGraph does not meet the engine: the same graph as a StateGraph and as a Dag, side by side."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt
from typing_extensions import TypedDict

from agentmatrix.compose import CyclicGraph, Dag
from agentmatrix.testing.scripted import ScriptedChatModel

Kind = type[StateGraph[Any, Any, Any, Any]]
both = pytest.mark.parametrize("kind", [Dag, CyclicGraph])
THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    topic: str


def says(name: str) -> Callable[[State], State]:
    def node(state: State) -> State:
        return {"log": [f"{name}<-{len(state['log'])}"]}

    return node


def diamond(kind: Any, middle: Any = None) -> StateGraph[Any, Any, Any, Any]:
    """Branches of the same length, where LangGraph's joins and ours mean the same."""
    graph = kind(State)
    graph.add_node("plan", says("plan"), metadata={"who": "planner"})
    graph.add_node("left", middle or says("left"))
    graph.add_node("right", says("right"))
    graph.add_node("join", says("join"))
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "left")
    graph.add_edge("plan", "right")
    graph.add_edge(["left", "right"], "join")
    graph.add_edge("join", END)
    return graph  # type: ignore[no-any-return]


def stepwise(graph: Any, **options: Any) -> Any:
    """The graph in LangGraph's supersteps, where parts, checkpoints and history of each step are compared."""
    return graph.compile(barriers=True, **options) if isinstance(graph, Dag) else graph.compile(**options)


def tidy(part: Any) -> Any:
    """A stream part without what differs between any two runs, and without the channels that woke a node."""
    if isinstance(part, dict):
        return {k: tidy(v) for k, v in part.items() if k not in HIDDEN}
    if isinstance(part, (list, tuple)):
        return [tidy(item) for item in part]
    return part


HIDDEN = {"id", "checkpoint_id", "thread_ts", "timestamp", "created_at", "triggers", "langgraph_triggers"}
HIDDEN |= {"checkpoint_ns", "langgraph_checkpoint_ns"}


@both
@pytest.mark.parametrize("mode", ["values", "updates", "tasks", "checkpoints", "debug", "messages", "custom"])
def test_streams_are_the_same(kind: Any, mode: Any) -> None:
    def parts(graph: Any) -> list[Any]:
        compiled = stepwise(graph, checkpointer=InMemorySaver())
        return sorted(str(tidy(p)) for p in compiled.stream({"log": ["in"]}, THREAD, stream_mode=mode))

    assert parts(diamond(kind)) == parts(diamond(StateGraph))


@both
async def test_async_streams_of_subgraphs_are_the_same(kind: Any) -> None:
    async def parts(of: Any) -> list[Any]:
        inner = stepwise(diamond(of))
        outer = stepwise(diamond(of, inner), checkpointer=InMemorySaver())
        stream = outer.astream({"log": ["in"]}, THREAD, stream_mode=["updates", "values"], subgraphs=True)
        return sorted([str((tuple(n.split(":")[0] for n in ns), mode, tidy(p))) async for ns, mode, p in stream])

    assert await parts(kind) == await parts(StateGraph)


@both
async def test_events_have_the_same_names_and_metadata(kind: Any) -> None:
    async def events(of: Any) -> list[Any]:
        found = [event async for event in diamond(of).compile().astream_events({"log": []}, version="v2")]
        keys = ("langgraph_node", "who")
        return sorted((e["event"], e["name"], *(e["metadata"].get(key, "") for key in keys)) for e in found)

    assert await events(kind) == await events(StateGraph)


@both
def test_tokens_come_with_the_node_that_says_them(kind: Any) -> None:
    graph = kind()
    graph.add_node("poet", ScriptedChatModel("roses are red"))
    graph.add_edge(START, "poet")
    parts = graph.compile().stream({"messages": "hi"}, stream_mode="messages")
    words = [(chunk.content, meta["langgraph_node"]) for chunk, meta in parts]
    assert words == [("roses ", "poet"), ("are ", "poet"), ("red", "poet"), ("", "poet")]


@both
def test_drawings_and_schemas_are_the_same(kind: Any) -> None:
    ours, native = diamond(kind).compile(), diamond(StateGraph).compile()
    assert ours.get_graph().draw_mermaid() == native.get_graph().draw_mermaid()
    assert ours.get_input_jsonschema() == native.get_input_jsonschema()
    assert ours.get_output_jsonschema() == native.get_output_jsonschema()


@both
def test_history_and_snapshots_are_the_same(kind: Any) -> None:
    def history(of: Any) -> list[Any]:
        compiled = stepwise(diamond(of), checkpointer=InMemorySaver())
        compiled.invoke({"log": ["in"], "topic": "t"}, THREAD)
        return [
            (s.values, s.next, s.metadata["source"], s.metadata["step"], [(t.name, t.result) for t in s.tasks])
            for s in compiled.get_state_history(THREAD)
        ]

    assert history(kind) == history(StateGraph)


@both
def test_the_saver_holds_the_keys_of_the_state_in_the_clear(kind: Any) -> None:
    saver = InMemorySaver()
    diamond(kind).compile(checkpointer=saver).invoke({"log": ["in"], "topic": "t"}, THREAD)
    saved = saver.get_tuple(THREAD)
    assert saved is not None
    assert saved.checkpoint["channel_values"]["topic"] == "t"
    assert len(saved.checkpoint["channel_values"]["log"]) == 5


@both
@pytest.mark.parametrize("breakpoints", [{"interrupt_before": ["join"]}, {"interrupt_after": ["plan"]}])
def test_static_breakpoints(kind: Any, breakpoints: Any) -> None:
    def run(of: Any) -> list[Any]:
        compiled = diamond(of).compile(checkpointer=InMemorySaver(), **breakpoints)
        first = compiled.invoke({"log": ["in"]}, THREAD)
        return [first, compiled.get_state(THREAD).next, compiled.invoke(None, THREAD), compiled.get_state(THREAD).next]

    assert run(kind) == run(StateGraph)


@both
def test_interrupts_in_parallel_branches_are_resumed_one_by_one(kind: Any) -> None:
    calls: list[str] = []

    def asks(name: str) -> Any:
        def node(state: State) -> State:
            answer = interrupt(f"{name}?")
            calls.append(name)
            return {"log": [f"{name}={answer}"]}

        return node

    def free(state: State) -> State:
        calls.append("free")
        return {"log": ["free"]}

    graph = kind(State)
    for name, node in {"ask1": asks("ask1"), "ask2": asks("ask2"), "free": free, "end": says("end")}.items():
        graph.add_node(name, node)
    for name in ("ask1", "ask2", "free"):
        graph.add_edge(START, name)
    graph.add_edge(["ask1", "ask2", "free"], "end")
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke({"log": []}, THREAD)
    snapshot = compiled.get_state(THREAD)
    assert (snapshot.next, snapshot.values["log"]) == (("ask1", "ask2"), ["free"])
    first, second = sorted(snapshot.interrupts, key=lambda i: i.value)
    compiled.invoke(Command(resume={first.id: "one"}), THREAD)
    assert compiled.get_state(THREAD).next == ("ask2",)
    assert compiled.get_state(THREAD).values["log"] == ["ask1=one", "free"]
    result = compiled.invoke(Command(resume={second.id: "two"}), THREAD)
    assert result["log"] == ["ask1=one", "ask2=two", "free", "end<-3"]
    assert sorted(calls) == ["ask1", "ask2", "free"]


@both
def test_send_fans_out_and_joins(kind: Any) -> None:
    graph = kind(State)
    graph.add_node("plan", says("plan"))
    graph.add_node("work", lambda packet: {"log": [f"work {packet['item']}"]})
    graph.add_node("sum", says("sum"))
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda s: [Send("work", {"item": i}) for i in range(3)], ["work"])
    graph.add_edge("work", "sum")
    result = graph.compile().invoke({"log": []})
    assert result["log"] == ["plan<-0", "work 0", "work 1", "work 2", "sum<-4"]


@both
def test_commands_with_an_annotation_route(kind: Any) -> None:
    def pick(state: State) -> Command[Literal["yes", "no"]]:
        return Command(goto="yes", update={"log": ["picked"]})

    graph = kind(State)
    graph.add_node("pick", pick)
    graph.add_node("yes", says("yes"))
    graph.add_node("no", says("no"))
    graph.add_edge(START, "pick")
    assert graph.compile().invoke({"log": []})["log"] == ["picked", "yes<-1"]


@both
def test_retries_caches_and_error_handlers(kind: Any) -> None:
    calls: list[str] = []

    def flaky(state: State) -> State:
        calls.append("flaky")
        if len(calls) == 1:
            raise ConnectionError("once")
        return {"log": ["flaky"]}

    def broken(state: State) -> State:
        raise ValueError("for good")

    def mend(state: State) -> Command[Literal["after"]]:
        return Command(goto="after", update={"log": ["mended"]})

    graph = kind(State)
    graph.add_node("flaky", flaky, retry_policy=RetryPolicy(initial_interval=0.0), cache_policy=CachePolicy())
    graph.add_node("broken", broken, error_handler=mend)
    graph.add_node("unreached", says("unreached"))
    graph.add_node("after", says("after"))
    graph.add_edge(START, "flaky")
    graph.add_edge("flaky", "broken")
    graph.add_edge("broken", "unreached")
    compiled = graph.compile(cache=InMemoryCache())
    assert compiled.invoke({"log": []})["log"] == ["flaky", "mended", "after<-2"]
    assert compiled.invoke({"log": []})["log"] == ["flaky", "mended", "after<-2"]
    assert calls == ["flaky", "flaky"]


@both
def test_store_context_and_managed_values_reach_a_node(kind: Any) -> None:
    class Context(TypedDict):
        user: str

    def node(state: State, runtime: Runtime[Context]) -> State:
        assert runtime.store is not None
        runtime.store.put(("notes",), "k", {"v": 1})
        return {"log": [runtime.context["user"]]}

    graph = kind(State, Context)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    store = InMemoryStore()
    assert graph.compile(store=store).invoke({"log": []}, context={"user": "ann"})["log"] == ["ann"]
    found = store.get(("notes",), "k")
    assert found is not None and found.value == {"v": 1}


@both
def test_a_crash_runs_no_finished_node_again(kind: Any) -> None:
    calls: list[str] = []
    saved = threading.Event()

    class Saver(InMemorySaver):
        def put_writes(self, config: Any, writes: Any, *args: Any, **kwargs: Any) -> None:
            super().put_writes(config, writes, *args, **kwargs)
            if ("log", ["good"]) in writes:
                saved.set()

    def good(state: State) -> State:
        calls.append("good")
        return {"log": ["good"]}

    def bad(state: State) -> State:
        calls.append("bad")
        if calls.count("bad") == 1:
            assert saved.wait(100)
            raise RuntimeError("crash")
        return {"log": ["bad"]}

    graph = kind(State)
    graph.add_node("good", good)
    graph.add_node("bad", bad)
    graph.add_node("end", says("end"))
    for name in ("good", "bad"):
        graph.add_edge(START, name)
    graph.add_edge(["good", "bad"], "end")
    compiled = graph.compile(checkpointer=Saver())
    with pytest.raises(RuntimeError, match="crash"):
        compiled.invoke({"log": []}, THREAD)
    assert compiled.get_state(THREAD).next == ("bad",)
    assert sorted(compiled.invoke(None, THREAD)["log"][:2]) == ["bad", "good"]
    assert sorted(calls) == ["bad", "bad", "good"]


@both
def test_time_travel_forks_at_an_earlier_step(kind: Any) -> None:
    compiled = stepwise(diamond(kind), checkpointer=InMemorySaver())
    compiled.invoke({"log": ["in"]}, THREAD)
    before = next(s for s in compiled.get_state_history(THREAD) if s.next == ("join",))
    fork = compiled.update_state(before.config, {"log": ["edited"]}, as_node="right")
    result = compiled.invoke(None, fork)
    assert "edited" in result["log"] and result["log"][-1].startswith("join")


@both
def test_a_thread_keeps_its_state_between_runs(kind: Any) -> None:
    graph = kind()
    graph.add_node("answer", lambda state: f"answer {len(state['messages'])}")
    graph.add_edge(START, "answer")
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke({"messages": "one"}, THREAD)
    result = compiled.invoke({"messages": "two"}, THREAD)
    assert [m.content for m in result["messages"]] == ["one", "answer 1", "two", "answer 3"]
    assert [type(m) for m in result["messages"]] == [HumanMessage, AIMessage] * 2


@both
def test_a_new_input_at_a_pause_drops_what_was_unfinished(kind: Any) -> None:
    compiled = diamond(kind).compile(checkpointer=InMemorySaver(), interrupt_before=["join"])
    compiled.invoke({"log": ["first"]}, THREAD)
    compiled.invoke({"log": ["second"]}, THREAD)
    log = compiled.get_state(THREAD).values["log"]
    assert compiled.get_state(THREAD).next == ("join",)
    run = ["plan", "left", "right"]
    assert [entry.split("<-")[0] for entry in log] == ["first", *run, "second", *run]


@both
def test_with_config_and_copies_stay_whole(kind: Any) -> None:
    compiled = diamond(kind).compile(checkpointer=InMemorySaver())
    other = compiled.with_config(tags=["mine"])
    assert type(other) is type(compiled)
    assert len(other.invoke({"log": []}, THREAD)["log"]) == 4
    assert len(compiled.invoke({"log": []}, THREAD)["log"]) == 8


@both
def test_a_state_of_messages_is_the_default(kind: Any) -> None:
    graph = kind()
    assert graph.state_schema is MessagesState


@both
def test_a_command_from_outside_starts_a_node(kind: Any) -> None:
    def run(of: Any) -> Any:
        compiled = diamond(of).compile(checkpointer=InMemorySaver())
        compiled.invoke({"log": ["in"]}, THREAD)
        packet = Send("left", {"log": ["packet"]})
        first = compiled.invoke(Command(goto="join", update={"log": ["note"]}), THREAD)
        return first["log"], compiled.invoke(Command(goto=packet), THREAD)["log"][-1], compiled.get_state(THREAD).next

    assert run(kind) == run(StateGraph)


@both
def test_updates_show_what_a_node_returned(kind: Any) -> None:
    graph = kind()
    graph.add_node("node", lambda state: {"messages": [("ai", "as a pair")]})
    graph.add_edge(START, "node")
    parts = list(graph.compile().stream({"messages": "hi"}, stream_mode="updates"))
    assert parts == [{"node": {"messages": [("ai", "as a pair")]}}]


@both
async def test_async_only_nodes_say_so_to_sync_callers(kind: Any) -> None:
    async def node(state: State) -> State:
        return {"log": ["async"]}

    graph = kind(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    assert (await graph.compile().ainvoke({"log": []}))["log"] == ["async"]
    with pytest.raises(TypeError, match='No synchronous function provided to "node"'):
        graph.compile().invoke({"log": []})


@both
def test_a_default_error_handler_answers_for_any_node(kind: Any) -> None:
    def broken(state: State) -> State:
        raise ValueError("broken")

    def mend(state: State) -> State:
        return {"log": ["mended"]}

    graph = kind(State)
    graph.add_node("broken", broken)
    graph.add_node("after", says("after"))
    graph.add_edge(START, "broken")
    graph.add_edge("broken", "after")
    graph.set_node_defaults(error_handler=mend)
    assert graph.compile().invoke({"log": []})["log"] == ["mended"]
