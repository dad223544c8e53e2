"""One node that stands for many agents by key: who they are, what they read, and what others see of them."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from agentmatrix import AgentSpec, CyclicGraph, RemoteAgent, get_activation, idle
from agentmatrix.errors import SendError
from agentmatrix.testing import ScriptedChatModel, loopback
from tests.conftest import Verbs

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


class Memory(TypedDict, total=False):
    word: str
    heard: Annotated[list[str], operator.add]


def hears(state: Memory) -> Memory:
    return {"heard": [state["word"]]}


def told(*messages: tuple[str, Any], agent: Any = hears, state: Any = Memory, **options: Any) -> CyclicGraph:
    """Actors that are sent these messages when the graph begins."""
    graph = CyclicGraph(State, name="firm")
    graph.add_node("begin", lambda state: Command(goto=[Send(path, value) for path, value in messages]))
    graph.add_node("office", lambda state: {"log": state["log"]})
    graph.add_edge(START, "begin")
    return graph.add_actors("staff", agent, state=state, destinations=("office",), **options)


def words(*keys: str) -> list[tuple[str, Any]]:
    return [(f"staff/{key.partition(' ')[0]}", {"word": key.partition(" ")[2]}) for key in keys]


async def test_messages_are_read_in_order_and_one_at_a_time(place: Callable[..., Any], verbs: Verbs) -> None:
    at_work: list[str] = []
    read: list[str] = []

    def reads(state: Memory) -> Any:
        key = str(get_activation().key)
        assert key not in at_work
        at_work.append(key)
        read.append(f"{key} {state['word']}")
        try:
            return Command(update={"heard": [state["word"]]}, goto=Send("office", {"log": [f"{key} {state['word']}"]}))
        finally:
            at_work.remove(key)

    sent = words(*(f"{key} {number}" for number in range(5) for key in ("ann", "bob")))
    result = await verbs.call(place(told(*sent, agent=reads).compile()), "invoke", {"log": []})
    for key in ("ann", "bob"):
        assert [line for line in read if line.startswith(key)] == [f"{key} {number}" for number in range(5)]
    assert sorted(result["log"]) == sorted(read)


def test_different_keys_are_at_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def meets(state: Memory) -> None:
        meeting.wait()

    told(*words("ann x", "bob x", "cid x"), agent=meets).compile().invoke({"log": []}, {"max_concurrency": 3})


async def test_their_states_last_as_long_as_the_thread(verbs: Verbs) -> None:
    saver = InMemorySaver()
    await verbs.call(told(*words("ann a", "bob b")).compile(checkpointer=saver), "invoke", {"log": []}, THREAD)
    graph = told(*words("ann c")).compile(checkpointer=saver)
    assert await verbs.call(graph, "invoke", {"log": []}, THREAD) == {"log": []}
    staff = await verbs.call(graph, "actors", THREAD)
    assert {path: (a.key, a.count, a.values["heard"]) for path, a in staff.items()} == {
        "staff/ann": ("ann", 2, ["a", "c"]),
        "staff/bob": ("bob", 1, ["b"]),
    }
    # No checkpoint of the graph has them.
    assert not any("staff" in key for key in saver.get_tuple(THREAD).checkpoint["channel_values"])  # type: ignore[union-attr]


async def test_make_says_once_who_they_are(verbs: Verbs) -> None:
    asked: list[Any] = []

    def make(key: str, message: Any) -> Any:
        asked.append((key, message["word"]))
        return {"heard": [f"born as {key}"]}

    graph = told(*words("ann a", "ann b", "bob c"), make=make).compile(checkpointer=InMemorySaver())
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert asked == [("ann", "a"), ("bob", "c")]
    assert graph.actors(THREAD)["staff/ann"].values["heard"] == ["born as ann", "a", "b", "a", "b"]


async def test_agents_as_data_are_compiled_once_a_kind(verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    compile = StateGraph.compile
    monkeypatch.setattr(StateGraph, "compile", lambda self, *a, **k: compiled.append(self) or compile(self, *a, **k))
    model = ScriptedChatModel(lambda messages: AIMessage(f"{messages[0].text}: {messages[-1].text}"), cycle=True)
    sent = [(f"staff/{key}", "hello") for key in ("ann", "bob", "cid")]
    graph = told(
        *sent,
        agent=None,
        state=MessagesState,
        make=lambda key, message: AgentSpec(name=key, system_prompt=f"You are {key}"),
    ).compile(models={"default": model}, checkpointer=InMemorySaver())
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    staff = graph.actors(THREAD)
    assert [staff[path].values["messages"][-1].text for path, _ in sent] == [
        f"You are {key}: hello" for key in ("ann", "bob", "cid")
    ]
    assert staff["staff/ann"].values["messages"][0].name == "begin"
    assert len(compiled) <= 5


@pytest.mark.parametrize("kind", ["function", "graph", "host", "model"])
async def test_any_agent_is_an_actor(kind: str, verbs: Verbs) -> None:
    def replies(state: MessagesState) -> Any:
        return {"messages": [AIMessage(f"re: {state['messages'][-1].text}")]}

    inner = StateGraph(MessagesState).add_node("replies", replies).add_edge(START, "replies").compile()
    agent = {
        "function": replies,
        "graph": inner,
        "host": loopback(inner),
        "model": ScriptedChatModel(lambda messages: AIMessage(f"re: {messages[-1].text}"), cycle=True),
    }[kind]
    graph = told(("staff/ann", "a"), ("staff/ann", HumanMessage("b")), agent=agent, state=MessagesState)
    compiled = graph.compile(checkpointer=InMemorySaver())
    await verbs.call(compiled, "invoke", {"log": []}, THREAD)
    messages = compiled.actors(THREAD)["staff/ann"].values["messages"]
    assert [message.text for message in messages] == ["a", "re: a", "b", "re: b"]


async def test_messages_in_any_form_that_a_reducer_takes(verbs: Verbs) -> None:
    said = [("user", "a"), {"role": "assistant", "content": "b"}, "c", AIMessage("d")]
    agent = ScriptedChatModel("e")
    graph = told(("staff/ann", said), agent=agent, state=MessagesState).compile(checkpointer=InMemorySaver())
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    heard = graph.actors(THREAD)["staff/ann"].values["messages"]
    assert [(one.type, one.text, one.name) for one in heard[:4]] == [
        ("human", "a", None),
        ("ai", "b", None),
        ("human", "c", "begin"),
        ("ai", "d", None),
    ]
    assert heard[4].text == "e"


async def test_a_role_and_a_text_are_no_message(verbs: Verbs) -> None:
    """A saver would give them back as two texts."""
    graph = told(("staff/ann", ("user", "a")), agent=ScriptedChatModel("e"), state=MessagesState)
    with pytest.raises(SendError, match="is of type tuple: send a text, a message, a list of messages, or a dict"):
        await verbs.call(graph.compile(), "invoke", {"log": []})


async def test_streams_and_callbacks_name_the_key(place: Callable[..., Any], verbs: Verbs) -> None:
    names: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            names.append(kwargs.get("name", ""))

    graph = place(told(*words("ann a")).compile())
    parts = await verbs.listed(
        graph, "stream", {"log": []}, {"callbacks": [Handler()]}, stream_mode=["updates", "tasks"]
    )
    assert ("updates", {"staff/ann": {"heard": ["a"]}}) in parts
    assert "staff/ann" in names
    assert {part["name"] for mode, part in parts if mode == "tasks"} == {"begin", "staff/ann"}


async def test_tokens_and_errors_name_the_key(verbs: Verbs) -> None:
    model = ScriptedChatModel(["hello there"], cycle=True)
    graph = told(("staff/ann", "hi"), agent=model, state=MessagesState).compile()
    parts = await verbs.listed(graph, "stream", {"log": []}, stream_mode="messages", subgraphs=True)
    assert {meta["langgraph_node"] for _, (_, meta) in parts} == {"staff/ann"}

    def breaks(state: Memory) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken") as caught:
        await verbs.call(told(*words("ann a"), agent=breaks).compile(), "invoke", {"log": []})
    assert any("staff/ann" in note for note in caught.value.__notes__)


async def test_a_person_is_an_actor(place: Callable[..., Any], verbs: Verbs) -> None:
    """Others go on while it is asked; each question is its own."""

    def asks(state: Memory) -> Any:
        said = interrupt(state["word"]) if get_activation().key == "you" else state["word"]
        return Command(update={"heard": [said]}, goto=Send("office", {"log": [f"{get_activation().key} {said}"]}))

    inner = told(*words("you a", "you b", "ann c"), agent=asks)
    inner.add_node("rest", lambda state: {"log": ["rest"]}).add_trigger("rest", idle())
    outer = CyclicGraph(State).add_node("firm", place(inner.compile())).add_edge(START, "firm")
    graph = outer.compile(checkpointer=InMemorySaver())
    asked = await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert [question.value for question in asked["__interrupt__"]] == ["a"]
    asked = await verbs.call(graph, "invoke", Command(resume="yes"), THREAD)
    assert [question.value for question in asked["__interrupt__"]] == ["b"]
    result = await verbs.call(graph, "invoke", Command(resume="no"), THREAD)
    assert result["log"] == ["ann c", "you yes", "you no", "rest"]


async def test_what_a_paused_thread_says_of_them(verbs: Verbs) -> None:
    graph = told(*words("you a", "you b"), agent=lambda state: {"heard": [interrupt(state["word"])]}).compile(
        checkpointer=InMemorySaver()
    )
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    (you,) = (await verbs.call(graph, "actors", THREAD)).values()
    assert (you.at_work, you.unread, you.count, you.hired_by, you.depth) == (True, ({"word": "b"},), 0, "begin", 1)
    assert graph.get_state(THREAD).next == ("staff/you",)
    assert graph.explain(THREAD)["staff/you"].state == "paused"
    await verbs.call(graph, "invoke", Command(resume="1"), THREAD)
    await verbs.call(graph, "invoke", Command(resume="2"), THREAD)
    assert graph.actors(THREAD)["staff/you"].values["heard"] == ["1", "2"]


async def test_from_outside_by_a_command_and_by_a_router(verbs: Verbs, caplog: pytest.LogCaptureFixture) -> None:
    graph = CyclicGraph(State)
    graph.add_actors("staff", hears, state=Memory)
    compiled = graph.compile(checkpointer=InMemorySaver())
    await verbs.call(compiled, "invoke", Command(goto=Send("staff/ann", {"word": "a"})), THREAD)
    assert not caplog.records
    routed = CyclicGraph(State)
    routed.add_actors("staff", hears, state=Memory)
    routed.add_conditional_edges(START, lambda state: [Send("staff/bob", {"word": "b"})])
    again = routed.compile(checkpointer=compiled.checkpointer)
    await verbs.call(again, "invoke", {"log": []}, THREAD)
    assert {path: actor.values["heard"] for path, actor in again.actors(THREAD).items()} == {
        "staff/ann": ["a"],
        "staff/bob": ["b"],
    }


async def test_they_update_the_graph_and_lead_on_in_it(verbs: Verbs) -> None:
    def leads(state: Memory) -> Any:
        me = get_activation()
        return [
            Command(graph=Command.PARENT, update={"log": [f"{me.key} was here"]}),
            Command(update={"heard": ["x"]}, goto="last"),
        ]

    graph = told(*words("ann a"), agent=leads)
    graph.add_node("last", lambda state: {"log": [f"last saw {state['log']}"]})
    graph.add_edge("staff", "last")
    compiled = graph.compile(checkpointer=InMemorySaver())
    result = await verbs.call(compiled, "invoke", {"log": []}, THREAD)
    assert result["log"] == ["ann was here", "last saw ['ann was here']"]
    assert compiled.actors(THREAD)["staff/ann"].values["heard"] == ["x"]


async def test_without_a_checkpointer_they_last_for_the_run(verbs: Verbs) -> None:
    def counts(state: Memory) -> Any:
        return Command(update={"heard": ["x"]}, goto=Send("office", {"log": [len(state.get("heard", []))]}))

    graph = told(*words("ann a", "ann b", "ann c"), agent=counts).compile()
    for _ in range(2):
        assert (await verbs.call(graph, "invoke", {"log": []}))["log"] == [0, 1, 2]


@pytest.mark.parametrize("durability", ["exit", "async", "sync"])
async def test_every_durability(durability: Any, verbs: Verbs) -> None:
    graph = told(*words("ann a", "ann b")).compile(checkpointer=InMemorySaver())
    for _ in range(2):
        await verbs.call(graph, "invoke", {"log": []}, THREAD, durability=durability)
    assert graph.actors(THREAD)["staff/ann"].values["heard"] == ["a", "b", "a", "b"]


async def test_a_graph_with_actors_on_a_host(verbs: Verbs) -> None:
    """The host keeps nothing: their states are in the caller's checkpointer."""
    saver = InMemorySaver()

    def outer(inner: Any) -> Any:
        return CyclicGraph(State).add_node("firm", inner).add_edge(START, "firm").compile(checkpointer=saver)

    local, remote = told(*words("ann a", "bob b")).compile(), loopback(told(*words("ann a", "bob b")).compile())
    namespaces = []
    for thread, inner in enumerate((local, remote)):
        config = {"configurable": {"thread_id": str(thread)}}
        assert (await verbs.call(outer(inner), "invoke", {"log": []}, config)) == {"log": []}
        found = {ns.split("|")[-1] for ns in saver.storage[str(thread)] if "staff" in ns}
        namespaces.append(found)
    assert namespaces[0] == namespaces[1] == {"staff", "staff/ann", "staff/bob"}
    assert isinstance(remote, RemoteAgent)


async def test_async_actors(place: Callable[..., Any]) -> None:
    started = asyncio.Event()

    async def waits(state: Memory) -> Any:
        if state["word"] == "wait":
            await asyncio.wait_for(started.wait(), 60)
        started.set()
        return Command(goto=Send("office", {"log": [state["word"]]}))

    graph = told(*words("ann wait", "bob go"), agent=waits).compile()
    assert sorted((await graph.ainvoke({"log": []}))["log"]) == ["go", "wait"]


@pytest.mark.parametrize(
    ("where", "stops"), [({"interrupt_before": ["staff"]}, 2), ({"interrupt_after": ["begin"]}, 1)]
)
async def test_breakpoints_at_all_of_them(where: Any, stops: int, verbs: Verbs) -> None:
    graph = told(*words("ann a", "ann b")).compile(checkpointer=InMemorySaver(), **where)
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    for _ in range(stops):
        assert graph.get_state(THREAD).next == ("staff/ann",)
        await verbs.call(graph, "invoke", None, THREAD)
    assert graph.get_state(THREAD).next == ()
    assert graph.actors(THREAD)["staff/ann"].values["heard"] == ["a", "b"]


async def test_the_state_is_edited_while_one_of_them_asks(verbs: Verbs) -> None:
    graph = told(
        *words("you a", "ann b"), agent=lambda s: {"heard": [interrupt("?")]} if s["word"] == "a" else hears(s)
    )
    compiled = graph.compile(checkpointer=InMemorySaver())
    await verbs.call(compiled, "invoke", {"log": []}, THREAD)
    await verbs.call(compiled, "update_state", THREAD, {"log": ["edited"]})
    assert await verbs.call(compiled, "invoke", Command(resume="yes"), THREAD) == {"log": ["edited"]}
    staff = compiled.actors(THREAD)
    assert {path: actor.values["heard"] for path, actor in staff.items()} == {"staff/you": ["yes"], "staff/ann": ["b"]}


async def test_langgraph_reads_the_state_of_one(verbs: Verbs) -> None:
    graph = told(*words("ann a", "ann b", "we|ird x")).compile(checkpointer=InMemorySaver())
    await verbs.call(graph, "invoke", {"log": []}, THREAD)

    def at(namespace: str) -> Any:
        return {"configurable": {"thread_id": "1", "checkpoint_ns": namespace}}

    ann = await verbs.call(graph, "get_state", at("staff/ann"))
    assert (ann.values, ann.next) == ({"word": "b", "heard": ["a", "b"]}, ())
    assert (await verbs.call(graph, "get_state", at("staff/we%7Cird"))).values["heard"] == ["x"]
    history = await verbs.listed(graph, "get_state_history", at("staff/ann"))
    assert [state.values["heard"] for state in history] == [["a", "b"], ["a"]]


async def test_agents_as_data_with_tools(verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """One agent for all of a kind, and each has its own instructions. After a failure no tool sends twice."""
    pytest.importorskip("langchain")
    compiled: list[Any] = []
    compile = StateGraph.compile
    monkeypatch.setattr(StateGraph, "compile", lambda self, *a, **k: compiled.append(self) or compile(self, *a, **k))
    broken = [True]

    @tool
    def talk(to: str, text: str) -> str:
        """Talk to somebody."""
        get_activation().send(f"staff/{to}", text)
        return "sent"

    def answer(messages: Any) -> AIMessage:
        me, last = messages[0].text, messages[-1]
        if last.type == "tool":
            if me == "You are boss" and broken:
                broken.clear()
                raise ValueError("the model is down")
            return AIMessage("done")
        if last.text == "start":
            calls = [{"name": "talk", "args": {"to": name, "text": "hello"}, "id": name} for name in ("ann", "bob")]
            return AIMessage("", tool_calls=calls)
        return AIMessage(f"{me}, told {last.text}")

    graph = told(
        ("staff/boss", "start"),
        agent=None,
        state=MessagesState,
        make=lambda key, message: AgentSpec(name=key, system_prompt=f"You are {key}", tools=("talk",)),
    ).compile(models={"default": ScriptedChatModel(answer, cycle=True)}, tools=[talk], checkpointer=InMemorySaver())
    with pytest.raises(ValueError, match="down"):
        await verbs.call(graph, "invoke", {"log": []}, THREAD)
    await verbs.call(graph, "invoke", None, THREAD)
    said = {a.key: [message.text for message in a.values["messages"]] for a in graph.actors(THREAD).values()}
    assert said == {
        "boss": ["start", "", "sent", "sent", "done"],
        "ann": ["hello", "You are ann, told hello"],
        "bob": ["hello", "You are bob, told hello"],
    }
    assert len(compiled) <= 5
