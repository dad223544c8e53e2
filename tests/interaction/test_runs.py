"""Runs, streams, interrupts and errors of a nested graph: the same wherever it runs."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Interrupt, Send, interrupt

from agentmatrix.testing import ScriptedChatModel


class State(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]
    answer: str


class Seen(TypedDict):
    seen: Annotated[list[str], operator.add]


def inner(**options: Any) -> Any:
    """Two steps; the second asks a person."""

    def look(state: State) -> State:
        get_stream_writer()("looking")
        return {"seen": ["looked"]}

    def ask(state: State) -> State:
        return {"answer": interrupt("which way?"), "seen": ["asked"]}

    builder = StateGraph(State)
    builder.add_node("look", look).add_node("ask", ask)
    builder.add_edge(START, "look").add_edge("look", "ask")
    return builder.compile(name="inner", **options)


def parent(nested: Any, **options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("before", lambda state: {"seen": ["before"]})
    builder.add_node("nested", nested)
    builder.add_node("after", lambda state: {"seen": ["after"]})
    builder.add_edge(START, "before").add_edge("before", "nested").add_edge("nested", "after")
    return builder.compile(name="parent", **options)


async def test_interrupt_and_resume_inside_a_nested_graph(place: Any, verbs: Any) -> None:
    graph = parent(place(inner()), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    paused = await verbs.invoke(graph, {"seen": []}, config)
    assert [i.value for i in paused["__interrupt__"]] == ["which way?"]
    state = await verbs.call(graph, "get_state", config, subgraphs=True)
    assert state.next == ("nested",)
    assert state.tasks[0].state.values["seen"] == ["before", "looked"]
    done = await verbs.invoke(graph, Command(resume="left"), config)
    assert done == {"seen": ["before", "before", "looked", "asked", "after"], "answer": "left"}
    history = await verbs.listed(graph, "get_state_history", config)
    assert history[0].values == done


async def test_every_stream_mode_is_as_local(place: Any, verbs: Any) -> None:
    """Parts are compared with a local twin, ids and times of checkpoints aside."""
    modes = ["values", "updates", "custom", "tasks", "checkpoints", "debug", "messages"]

    async def parts(nested: Any) -> list[Any]:
        graph = parent(nested, checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        found = await verbs.listed(graph, "stream", {"seen": []}, config, stream_mode=modes, subgraphs=True)
        return [(tuple(ns.split(":")[0] for ns in namespace), mode) for namespace, mode, _ in found]

    assert await parts(place(inner())) == await parts(inner())


async def test_tokens_of_a_nested_model(place: Any, verbs: Any) -> None:
    model = ScriptedChatModel(["one two three"])
    builder = StateGraph(MessagesState)
    builder.add_node("talk", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "talk")
    outer = StateGraph(MessagesState).add_node("nested", place(builder.compile())).add_edge(START, "nested").compile()
    ask = {"messages": [HumanMessage("go")]}
    parts = await verbs.listed(outer, "stream", ask, stream_mode="messages", subgraphs=True)
    words = [message.content for _, (message, metadata) in parts if metadata["langgraph_node"] == "talk"]
    assert "".join(words) == "one two three" and len(words) > 2


class Surprise(ValueError):
    """Raised by a node; its constructor wants more than its args."""

    def __init__(self, what: str, *, code: int) -> None:
        super().__init__(what)
        self.code = code


async def test_errors_are_rebuilt(place: Any, verbs: Any) -> None:
    def fail(state: State) -> State:
        try:
            raise KeyError("root")
        except KeyError as cause:
            error = Surprise("broken", code=7)
            error.add_note("a note")
            raise error from cause

    nested = StateGraph(State).add_node("fail", fail).add_edge(START, "fail").compile()
    with pytest.raises(Surprise, match="broken") as caught:
        await verbs.invoke(parent(place(nested)), {"seen": []})
    assert caught.value.code == 7
    assert "a note" in caught.value.__notes__
    assert isinstance(caught.value.__cause__, KeyError)


async def test_command_to_the_parent(place: Any, verbs: Any) -> None:
    def leave(state: State) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="other", update={"seen": ["left"]})

    nested = StateGraph(State).add_node("leave", leave).add_edge(START, "leave").compile()
    builder = StateGraph(State)
    builder.add_node("nested", place(nested), destinations=("other",))
    builder.add_node("other", lambda state: {"seen": ["other"]})
    builder.add_edge(START, "nested")
    assert (await verbs.invoke(builder.compile(), {"seen": []}))["seen"] == ["left", "other"]


async def test_send_to_a_nested_graph(place: Any, verbs: Any) -> None:
    builder = StateGraph(State, output_schema=Seen)
    nested = builder.add_node("n", lambda s: {"seen": [s["answer"]]}).add_edge(START, "n").compile()
    builder = StateGraph(State).add_node("nested", place(nested))
    builder.add_conditional_edges(START, lambda s: [Send("nested", {"answer": str(i)}) for i in range(3)], ["nested"])
    assert (await verbs.invoke(builder.compile(), {"seen": []}))["seen"] == ["0", "1", "2"]


@dataclass
class Context:
    user: str


async def test_context_and_store_of_the_parent(place: Any, verbs: Any) -> None:
    def note(state: State, runtime: Runtime[Context]) -> State:
        assert runtime.store is not None
        runtime.store.put(("notes",), "k", {"user": runtime.context.user})
        return {"answer": runtime.store.get(("notes",), "k").value["user"]}  # type: ignore[union-attr]

    nested = StateGraph(State, context_schema=Context).add_node("note", note).add_edge(START, "note").compile()
    store = InMemoryStore()
    builder = StateGraph(State, context_schema=Context).add_node("nested", place(nested)).add_edge(START, "nested")
    graph = builder.compile(store=store)
    assert (await verbs.invoke(graph, {"seen": []}, context=Context("ada")))["answer"] == "ada"
    assert store.get(("notes",), "k").value == {"user": "ada"}  # type: ignore[union-attr]


async def test_alone_it_is_a_graph_with_every_verb(place: Any, verbs: Any) -> None:
    saver = InMemorySaver()
    agent = place(inner(checkpointer=saver))
    config = {"configurable": {"thread_id": "own"}}
    parts = await verbs.listed(agent, "stream", {"seen": []}, config, stream_mode="updates")
    assert [next(iter(part)) for part in parts] == ["look", "__interrupt__"]
    assert isinstance(parts[1]["__interrupt__"][0], Interrupt)
    state = await verbs.call(agent, "get_state", config)
    assert state.next == ("ask",)
    await verbs.call(agent, "update_state", config, {"seen": ["written"]}, as_node="look")
    done = await verbs.invoke(agent, Command(resume="right"), config)
    assert done == {"seen": ["looked", "written", "asked"], "answer": "right"}
    assert len(await verbs.listed(agent, "get_state_history", config)) >= 4


async def test_batch(place: Any, verbs: Any) -> None:
    nested = StateGraph(State).add_node("n", lambda s: {"answer": s["seen"][0]}).add_edge(START, "n").compile()
    results = await verbs.call(place(nested), "batch", [{"seen": [str(i)]} for i in range(5)])
    assert [result["answer"] for result in results] == ["0", "1", "2", "3", "4"]


async def test_a_remote_inside_a_remote_inside_a_remote(place: Any, verbs: Any) -> None:
    graph = place(inner())
    for _ in range(3):
        graph = place(parent(graph))
    graph = parent(graph, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "deep"}}
    paused = await verbs.invoke(graph, {"seen": []}, config)
    assert paused["__interrupt__"][0].value == "which way?"
    done = await verbs.invoke(graph, Command(resume="down"), config)
    assert done["answer"] == "down" and done["seen"].count("after") > 3


async def test_system_exit_ends_the_run_and_not_the_host(place: Any, verbs: Any) -> None:
    if place.kind == "local":
        pytest.skip("locally a SystemExit is the process's own")

    def leave(state: State) -> State:
        raise SystemExit(3)

    async def aleave(state: State) -> State:
        raise SystemExit(3)

    for node in (leave, aleave) if verbs.is_async else (leave,):
        agent = place(StateGraph(State).add_node("leave", node).add_edge(START, "leave").compile())
        with pytest.raises(BaseException):  # noqa: B017
            await verbs.invoke(agent, {"seen": []})
    fine = place(StateGraph(State).add_node("n", lambda s: {"answer": "alive"}).add_edge(START, "n").compile())
    assert (await verbs.invoke(fine, {"seen": []}))["answer"] == "alive"


async def test_messages_keep_their_types(place: Any, verbs: Any) -> None:
    def reply(state: MessagesState) -> Any:
        assert isinstance(state["messages"][0], HumanMessage)
        return {"messages": [AIMessage("hi", name="bot", id="7")]}

    agent = place(StateGraph(MessagesState).add_node("r", reply).add_edge(START, "r").add_edge("r", END).compile())
    result = await verbs.invoke(agent, {"messages": [HumanMessage("hello", id="1")]})
    assert result["messages"] == [HumanMessage("hello", id="1"), AIMessage("hi", name="bot", id="7")]
