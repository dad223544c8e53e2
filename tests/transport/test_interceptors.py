"""Interceptors that instrumentation puts around every server and channel of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import Unauthenticated


class Iterating(grpc.aio.ServerInterceptor):
    """Wraps each handler as OpenTelemetry's instrumentation does."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        self.seen.append(handler_call_details.method.rpartition("/")[2])

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for response in handler.stream_stream(request, context):
                yield response

        return grpc.stream_stream_rpc_method_handler(stream) if handler.stream_stream else handler


@pytest.fixture
def iterating(monkeypatch: pytest.MonkeyPatch) -> Iterating:
    interceptor, made = Iterating(), grpc.aio.server

    def server(*args: Any, interceptors: Any = (), **kwargs: Any) -> Any:
        return made(*args, interceptors=[interceptor, *interceptors], **kwargs)

    monkeypatch.setattr(grpc.aio, "server", server)
    return interceptor


@pytest.fixture
def opentelemetry() -> Iterator[None]:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.grpc")
    both: list[Callable[[], Any]] = [
        instrumentation.GrpcAioInstrumentorServer(),
        instrumentation.GrpcAioInstrumentorClient(),
    ]
    for one in both:
        one.instrument()  # type: ignore[attr-defined]
    yield
    for one in both:
        one.uninstrument()  # type: ignore[attr-defined]


async def served() -> None:
    builder = StateGraph(MessagesState).add_node("node", lambda state: {"messages": AIMessage("hello")})
    with Host({"a": builder.add_edge(START, "node").compile()}, token="right") as host:
        remote = RemoteAgent(f"{host.address}/a", api_key="right")
        assert remote.invoke({"messages": "hi"})["messages"][-1].text == "hello"
        assert (await remote.ainvoke({"messages": "hi"}))["messages"][-1].text == "hello"
        assert len(list(remote.stream({"messages": "hi"}))) == 1
        assert remote.ping() > 0
        for call in (lambda wrong: wrong.invoke({"messages": "hi"}), lambda wrong: wrong.ping()):
            with pytest.raises(Unauthenticated, match="token"):
                call(RemoteAgent(f"{host.address}/a", api_key="wrong"))


async def test_an_interceptor_that_iterates_over_what_a_handler_returns(iterating: Iterating) -> None:
    await served()
    assert "Converse" in iterating.seen and "Describe" in iterating.seen


async def test_opentelemetrys_instrumentation(opentelemetry: None) -> None:
    await served()
