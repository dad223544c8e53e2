"""What handlers, tracers and event streams of the parent see of a nested graph: the same wherever it runs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.tracers.base import BaseTracer
from langgraph.callbacks import GraphCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix.testing import ScriptedChatModel


def talker() -> Any:
    model = ScriptedChatModel(["one two three"])

    async def atalk(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def talk(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    from langchain_core.runnables import RunnableLambda

    node: Any = RunnableLambda(talk, afunc=atalk, name="talk")
    return StateGraph(MessagesState).add_node("talk", node).add_edge(START, "talk").compile(name="talker")


def outer(nested: Any, **options: Any) -> Any:
    builder = StateGraph(MessagesState).add_node("nested", nested).add_edge(START, "nested")
    return builder.compile(name="outer", **options)


class Recorder(BaseCallbackHandler):
    """Keeps what happened, in order, with the names of the runs above."""

    run_inline = True

    def __init__(self) -> None:
        self.names: dict[Any, str] = {}
        self.events: list[tuple[str, str, str]] = []

    def _start(self, kind: str, run_id: Any, parent_run_id: Any, kwargs: dict[str, Any]) -> None:
        self.names[run_id] = kind if kind == "model" else str(kwargs.get("name"))
        self.events.append((kind, self.names[run_id], self.names.get(parent_run_id, "-")))

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None, **kw: Any
    ) -> None:
        self._start("chain", run_id, parent_run_id, kw)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: Any, parent_run_id: Any = None, **kw: Any
    ) -> None:
        assert isinstance(messages[0][0], HumanMessage)
        self._start("model", run_id, parent_run_id, kw)

    def on_chain_end(self, outputs: Any, *, run_id: Any, **kw: Any) -> None:
        self.events.append(("end", self.names[run_id], ""))

    def on_llm_end(self, response: Any, *, run_id: Any, **kw: Any) -> None:
        self.events.append(("model end", self.names[run_id], response.generations[0][0].text))


async def test_handlers_see_the_nested_runs_as_children_in_order(place: Any, verbs: Any) -> None:
    seen = []
    for nested in (place(talker()), talker()):
        recorder = Recorder()
        await verbs.invoke(outer(nested), {"messages": "hi"}, {"callbacks": [recorder]})
        seen.append(recorder.events)
    assert seen[0] == seen[1]
    assert ("model", "model", "talk") in seen[0]


class AsyncRecorder(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[Any] = []

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)


async def test_async_handlers_get_tokens(place: Any) -> None:
    recorder = AsyncRecorder()
    graph = outer(place(talker()))
    async for _ in graph.astream({"messages": "hi"}, {"callbacks": [recorder]}, stream_mode="messages"):
        pass
    assert "".join(recorder.tokens) == "one two three"


class Tracer(BaseTracer):
    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.roots.append(run)


def _tree(run: Any) -> Any:
    return (run.name, run.run_type, [_tree(child) for child in run.child_runs])


async def test_a_tracer_gets_one_tree(place: Any, verbs: Any) -> None:
    trees = []
    for nested in (place(talker()), talker()):
        tracer = Tracer()
        await verbs.invoke(outer(nested), {"messages": "hi"}, {"callbacks": [tracer]})
        trees.append([_tree(root) for root in tracer.roots])
    assert trees[0] == trees[1]
    assert len(trees[0]) == 1


async def test_event_streams_are_equal(place: Any) -> None:
    async def events(nested: Any) -> list[Any]:
        stream = outer(nested).astream_events({"messages": "hi"}, version="v2")
        return [
            (e["event"], e["name"], e["metadata"].get("langgraph_node"), len(e["parent_ids"])) async for e in stream
        ]

    assert await events(place(talker())) == await events(talker())


class Strict(BaseCallbackHandler):
    raise_error = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        raise PermissionError("no models today")


async def test_a_handler_that_raises_stops_the_node(place: Any, verbs: Any) -> None:
    with pytest.raises(PermissionError, match="no models today"):
        await verbs.invoke(outer(place(talker())), {"messages": "hi"}, {"callbacks": [Strict()]})


class Careless(BaseCallbackHandler):
    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("careless")


async def test_a_handler_that_fails_is_logged_and_the_run_goes_on(
    place: Any, verbs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        done = await verbs.invoke(outer(place(talker())), {"messages": "hi"}, {"callbacks": [Careless()]})
    assert done["messages"][-1].text == "one two three"
    assert "careless" in caplog.text


class Lifecycle(GraphCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_interrupt(self, event: Any) -> None:
        self.seen.append(("interrupt", len(event.checkpoint_ns), event.interrupts[0].value))

    def on_resume(self, event: Any) -> None:
        self.seen.append(("resume", len(event.checkpoint_ns)))


async def test_interrupts_and_resumes_reach_graph_handlers(place: Any, verbs: Any) -> None:
    def ask(state: MessagesState) -> Any:
        return {"messages": interrupt("name?")}

    def asking() -> Any:
        return StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()

    seen = []
    for nested in (place(asking()), asking()):
        handler = Lifecycle()
        config = {"configurable": {"thread_id": "1"}, "callbacks": [handler]}
        graph = outer(nested, checkpointer=InMemorySaver())
        await verbs.invoke(graph, {"messages": "hi"}, config)
        await verbs.invoke(graph, Command(resume="Ada"), config)
        seen.append(handler.seen)
    assert seen[0] == seen[1]


async def test_tags_metadata_and_configurable_values(place: Any, verbs: Any) -> None:
    from langchain_core.runnables import RunnableConfig

    def read(state: MessagesState, config: RunnableConfig) -> Any:
        metadata = config["metadata"]
        shown = [config["configurable"]["colour"], metadata["team"], "red" in (config.get("tags") or [])]
        return {"messages": str(shown)}

    def reader() -> Any:
        return StateGraph(MessagesState).add_node("read", read).add_edge(START, "read").compile()

    config = {"configurable": {"colour": "blue"}, "metadata": {"team": "a"}, "tags": ["red"]}
    remote = await verbs.invoke(outer(place(reader())), {"messages": "hi"}, config)
    local = await verbs.invoke(outer(reader()), {"messages": "hi"}, config)
    assert remote["messages"][-1].text == local["messages"][-1].text


async def test_a_configurable_value_that_cannot_cross_raises_where_it_is_used(place: Any, verbs: Any) -> None:
    import threading

    from langchain_core.runnables import RunnableConfig

    if place.kind == "local":
        pytest.skip("locally everything is at hand")

    def use(state: MessagesState, config: RunnableConfig) -> Any:
        with config["configurable"]["lock"]:
            return {}

    config = {"configurable": {"lock": threading.Lock()}}
    unused = await verbs.invoke(outer(place(talker())), {"messages": "hi"}, config)
    assert unused["messages"][-1].text == "one two three"
    nested = StateGraph(MessagesState).add_node("use", use).add_edge(START, "use").compile()
    with pytest.raises(TypeError, match=r'\["lock"\].*forward'):
        await verbs.invoke(outer(place(nested)), {"messages": "hi"}, config)
