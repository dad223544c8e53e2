"""Streams: tokens, custom parts, namespaces, order, and what happens when the reader leaves."""

import asyncio
import operator
import threading
from typing import Annotated, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def talker(text="one two three"):
    def say(state):
        return {"messages": [GenericFakeChatModel(messages=iter([AIMessage(text, id="said")])).invoke("go")]}

    inner = StateGraph(MessagesState)
    inner.add_node("say", say)
    inner.add_edge(START, "say")
    return inner.compile()


def chat_parent(way, child, before=()):
    graph = way.parent(MessagesState)
    graph.add_node("child", way.child(child))
    graph.add_node("end", lambda s: {"messages": []})
    graph.add_edge(START, "child")
    graph.add_edge("child", "end")
    return graph.compile()


def bare(namespace):
    return tuple(part.split(":")[0] for part in namespace)


@tool
async def shout(word: str) -> str:
    """Shout a word."""
    writer = get_stream_writer()
    for letter in word:
        writer({"letter": letter})
        await asyncio.sleep(0)
    return word.upper()


@tool
def whisper(word: str) -> str:
    """Whisper a word."""
    writer = get_stream_writer()
    for letter in word:
        writer({"letter": letter})
    return word.lower()


@pytest.mark.parametrize("which", ["shout", "whisper"])
async def test_custom_parts_of_tools(way, which):
    """langgraph#6447 and #4610. A tool, sync or async, in a ToolNode of a nested graph writes to the custom stream. All
    parts arrive, in order, and before the tool's message."""
    inner = StateGraph(MessagesState)
    inner.add_node("tools", ToolNode([shout, whisper]))
    inner.add_edge(START, "tools")
    graph = chat_parent(way, inner.compile())
    call = AIMessage("", tool_calls=[{"name": which, "args": {"word": "abc"}, "id": "1", "type": "tool_call"}])
    parts = [p async for p in graph.astream({"messages": [call]}, stream_mode=["custom", "updates"], subgraphs=True)]
    assert [d["letter"] for _, k, d in parts if k == "custom"] == list("abc")
    kinds = [k for _, k, _ in parts]
    assert kinds[:3] == ["custom"] * 3
    assert {bare(ns) for ns, k, _ in parts if k == "custom"} == {("child",)}


class Counting:
    """A graph that counts in steps, and waits for ever in the second one."""

    def __init__(self):
        self.steps, self.second, self.stopped = 0, threading.Event(), threading.Event()

    def graph(self):
        async def step(state):
            self.steps += 1
            if self.steps > 1:
                self.second.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.stopped.set()
            return {"log": ["step"]}

        inner = StateGraph(Log)
        inner.add_node("step", step)
        inner.add_edge(START, "step")
        inner.add_conditional_edges("step", lambda s: END if len(s["log"]) > 20 else "step", ["step", END])
        return inner.compile()

    async def is_counting(self):
        assert await asyncio.to_thread(self.second.wait, 100)

    async def has_stopped(self):
        assert await asyncio.to_thread(self.stopped.wait, 100)
        return self.steps == 2


@pytest.mark.parametrize("mode", ["break", "cancel", "timeout"])
async def test_reader_leaves(way, mode):
    """langgraph#8029 and #8302. The reader leaves the stream, or its task is cancelled, while a nested graph counts in
    steps. The nested graph stops counting."""
    counting = Counting()
    graph = way.parent(Log)
    graph.add_node("child", way.child(counting.graph()))
    graph.add_edge(START, "child")
    stream = graph.compile().astream({"log": []}, stream_mode="updates", subgraphs=True)

    async def read():
        async for _ in stream:
            pass

    if mode == "break":
        async for _ in stream:
            break
        await counting.is_counting()
        await stream.aclose()
    elif mode == "cancel":
        running = asyncio.create_task(read())
        await counting.is_counting()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                waiting = asyncio.create_task(counting.is_counting())
                waiting.add_done_callback(lambda _: limit.reschedule(asyncio.get_running_loop().time()))
                await read()
    assert await counting.has_stopped()


async def test_abort_of_an_event_stream(way):
    """langgraph#8029. The third version of the event stream is aborted from outside: the nested graph stops."""
    counting = Counting()
    child = way.child(counting.graph())

    async def call(state):
        await child.ainvoke({"log": []})

    graph = way.parent(Log)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    stream = await graph.compile().astream_events({"log": []}, version="v3")

    async def read():
        async for _ in stream:
            pass

    reading = asyncio.create_task(read())
    await counting.is_counting()
    await stream.abort()
    assert await counting.has_stopped()
    reading.cancel()
    await asyncio.wait([reading])


class Recorder(BaseCallbackHandler):
    def __init__(self):
        self.runs = {}
        self.ended = []

    def _start(self, serialized, run_id, parent_run_id, name):
        self.runs[run_id] = (name, parent_run_id)

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, name=None, **kwargs):
        self._start(serialized, run_id, parent_run_id, name)

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, name=None, **kwargs):
        self._start(serialized, run_id, parent_run_id, "model")

    def on_tool_start(self, serialized, input_str, *, run_id, parent_run_id=None, name=None, **kwargs):
        self._start(serialized, run_id, parent_run_id, "tool")

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self.ended.append(run_id)

    def on_chain_error(self, error, *, run_id, **kwargs):
        self.ended.append(run_id)

    def path(self, run_id):
        path = []
        while run_id in self.runs:
            name, run_id = self.runs[run_id]
            path.append(name)
        return tuple(reversed(path))

    def paths(self):
        return sorted(self.path(run_id) for run_id in self.runs)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_runs_have_their_parents(way, mode):
    """langsmith-sdk#1040, langgraph#7948. A handler given to the outermost graph sees the model inside the nested graph
    as a descendant of the nested graph's node, each run once, each parent known."""

    async def paths(graph):
        recorder = Recorder()
        if mode == "sync":
            graph.invoke({"messages": [HumanMessage("hi")]}, {"callbacks": [recorder]})
        else:
            await graph.ainvoke({"messages": [HumanMessage("hi")]}, {"callbacks": [recorder]})
        return recorder.paths()

    reference = StateGraph(MessagesState)
    reference.add_node("child", talker())
    reference.add_node("end", lambda s: {"messages": []})
    reference.add_edge(START, "child")
    reference.add_edge("child", "end")
    expected = await paths(reference.compile())
    assert ("LangGraph", "child", "LangGraph", "say", "model") in expected
    assert await paths(chat_parent(way, talker())) == expected


@pytest.mark.ways("state-remote", "dag-remote", "dag-local")
async def test_events_of_a_subgraph(way):
    """langgraph#6105. astream_events (v2) of the outermost graph shows the tokens of the model in the nested graph."""

    async def seen(graph):
        return sorted(
            (e["event"], e["name"], e["metadata"].get("langgraph_node", ""))
            for e in [e async for e in graph.astream_events({"messages": [HumanMessage("hi")]}, version="v2")]
        )

    reference = StateGraph(MessagesState)
    reference.add_node("child", talker())
    reference.add_node("end", lambda s: {"messages": []})
    reference.add_edge(START, "child")
    reference.add_edge("child", "end")
    assert await seen(chat_parent(way, talker())) == await seen(reference.compile())


def test_two_readers_of_parallel_subgraphs(way):
    """langgraph#5932. Two nested graphs are at work at once, several modes with subgraphs=True: each part is under its
    own node, each updates part once, and the last values part is the result."""

    def inner(name):
        graph = StateGraph(Log)
        graph.add_sequence([(n, lambda s, n=n: {"log": [f"{name}.{n}"]}) for n in ("x", "y")])
        graph.add_edge(START, "x")
        return graph.compile()

    class Out(TypedDict, total=False):
        log: Annotated[list[str], operator.add]

    graph = way.parent(Out)
    for name in ("ann", "bob"):
        graph.add_node(name, way.child(inner(name)))
        graph.add_edge(START, name)
    graph = graph.compile()
    parts = list(graph.stream({"log": []}, stream_mode=["updates", "values"], subgraphs=True))
    inside = [(bare(ns)[0], *data) for ns, kind, data in parts if kind == "updates" and ns]
    assert sorted(inside) == [("ann", "x"), ("ann", "y"), ("bob", "x"), ("bob", "y")]
    ns, kind, last = [p for p in parts if p[1] == "values" and not p[0]][-1]
    assert last["log"] == ["ann.x", "ann.y", "bob.x", "bob.y"]


def test_stream_shows_the_question_once(way, thread):
    """langgraph#2929 and #2740. A nested graph asks while the parent is streamed with updates: the question is one
    part, and the updates after the answer are shown once."""
    inner = StateGraph(Log)
    inner.add_node("a", lambda s: {"log": ["a"]})
    inner.add_node("b", lambda s: {"log": [interrupt("?")]})
    inner.add_edge(START, "a")
    inner.add_edge("a", "b")

    def run(parent, child):
        parent.add_node("child", child)
        parent.add_edge(START, "child")
        graph = parent.compile(checkpointer=InMemorySaver())
        shown = []
        for start in ({"log": []}, Command(resume="yes")):
            for ns, data in graph.stream(start, thread, stream_mode="updates", subgraphs=True):
                [(key, value)] = data.items()
                shown.append((bare(ns), key, [i.value for i in value] if key == "__interrupt__" else value))
        return shown

    inner = inner.compile()
    assert run(way.parent(Log), way.child(inner)) == run(StateGraph(Log), inner)
