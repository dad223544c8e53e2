"""Tracing that is turned on at both ends counts each remote run once, with the caller's."""

from __future__ import annotations

import contextvars
from collections import Counter
from collections.abc import Iterator
from typing import Any

import langsmith.client
import langsmith.utils
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.base import BaseCallbackManager
from langchain_core.tracers import context
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.context import register_configure_hook
from langchain_core.tracers.langchain import LangChainTracer
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.testing import ScriptedChatModel

NAMES = ("parent", "child", "inner", "ScriptedChatModel")
counted: Counter[str] = Counter()
"""What the tracers of this process, which is both ends, have been told, by name of run."""


class Counting:
    """The callbacks of a handler that counts."""

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> Any:
        counted[kwargs.get("name", "")] += 1

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> Any:
        counted[serialized["name"]] += 1


class CountingTracer(Counting, BaseTracer):  # type: ignore[misc]
    def _persist_run(self, run: Any) -> None:
        """Counted is enough."""


class Instrumentation(Counting, BaseCallbackHandler):  # type: ignore[misc]
    """What OpenTelemetry's instrumentations of LangChain give to every manager."""

    def __init__(self) -> None:
        self.secret = "an attribute that only its constructor sets"

    @property
    def ignore_chain(self) -> bool:
        return not self.secret


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    counted.clear()


def hosted() -> Any:
    model = ScriptedChatModel("hello", cycle=True)
    inner = StateGraph(MessagesState).add_node("inner", lambda state: {"messages": model.invoke("hi")})
    return inner.add_edge(START, "inner").compile(name="child")


async def run_it(**config: Any) -> None:
    with Host({"child": hosted()}) as host:
        for asynchronous in (False, True):
            counted.clear()
            remote = RemoteAgent(f"{host.address}/child")
            parent: Any = StateGraph(MessagesState).add_node("node", remote).add_edge(START, "node")
            graph = parent.compile(name="parent")
            given: Any = ({"messages": "hi"}, config)
            _ = await graph.ainvoke(*given) if asynchronous else graph.invoke(*given)
            assert {name: counted[name] for name in NAMES} == dict.fromkeys(NAMES, 1)


@pytest.fixture
def hook() -> Iterator[contextvars.ContextVar[Any]]:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("counting", default=None)
    register_configure_hook(variable, True, CountingTracer, "COUNTING_TRACER")
    yield variable
    context._configure_hooks.pop()


async def test_a_tracer_that_the_environment_turns_on_at_both_ends(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTING_TRACER", "true")
    await run_it()


async def test_a_tracer_among_the_callbacks_and_one_of_its_class_on_the_host(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTING_TRACER", "true")
    await run_it(callbacks=[CountingTracer()])


async def test_a_handler_that_every_manager_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, made = Instrumentation(), BaseCallbackManager.__init__

    def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        if not any(isinstance(known, Instrumentation) for known in self.inheritable_handlers):
            self.add_handler(handler, True)

    monkeypatch.setattr(BaseCallbackManager, "__init__", patched)
    await run_it()


@pytest.fixture
def langsmith_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("LANGSMITH_TRACING", "true")
        langsmith.utils.get_env_var.cache_clear()
        yield
    langsmith.utils.get_env_var.cache_clear()


async def test_langsmith_at_both_ends(langsmith_on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langsmith.client.Client, "create_run", lambda self, **run: counted.update([run["name"]]))
    monkeypatch.setattr(langsmith.client.Client, "update_run", lambda self, *args, **run: None)
    client = langsmith.Client(api_url="http://127.0.0.1:1", api_key="none", auto_batch_tracing=False)
    monkeypatch.setattr("langchain_core.tracers.langchain.get_client", lambda: client)
    await run_it()
    await run_it(callbacks=[LangChainTracer(client=client)])
