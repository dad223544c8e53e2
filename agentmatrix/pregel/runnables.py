"""Runnables as LangGraph makes them of nodes and writers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.runnables import Runnable
from langgraph._internal._runnable import RunnableCallable, coerce_to_runnable
from langgraph.pregel._utils import _runnable_has_native_async
from langgraph.pregel._write import ChannelWrite

__all__ = ["function_of", "is_native_async", "node_runnable", "register_writer", "runnable", "wrap_runnable"]


def runnable(
    call: Callable[..., Any] | None,
    acall: Callable[..., Awaitable[Any]] | None = None,
    *,
    name: str,
    trace: bool = False,
) -> Runnable[Any, Any]:
    """A Runnable over two functions, or one of them; without `trace` it leaves no run of its own in traces."""
    return RunnableCallable(call, acall, name=name, trace=trace, recurse=False)


def wrap_runnable(
    agent: Runnable[Any, Any],
    call: Callable[..., Any],
    acall: Callable[..., Awaitable[Any]],
    *,
    name: str | None = None,
) -> Runnable[Any, Any]:
    """A Runnable that runs `agent` by way of `call` and `acall`, and is as good as `agent` to LangGraph: it leaves no
    run of its own in traces, has the agent's identity in caches and takes timeouts only if the agent does."""
    original = agent.func if isinstance(agent, RunnableCallable) else agent
    for part in (call, acall):
        part.__module__ = getattr(original, "__module__", part.__module__)
        part.__qualname__ = getattr(original, "__qualname__", type(original).__qualname__)
    if not is_native_async(agent):
        return node_runnable(call, name or agent.get_name())
    return runnable(call, acall, name=name or agent.get_name())


def function_of(agent: Any) -> Any:
    """The function, or other callable, that LangGraph has made a node's Runnable of; any other Runnable itself."""
    return agent.func or agent.afunc if isinstance(agent, RunnableCallable) else agent


def node_runnable(agent: Any, name: str) -> Runnable[Any, Any]:
    """The Runnable that `add_node` would make of a function or Runnable."""
    return coerce_to_runnable(agent, name=name, trace=False)


def is_native_async(agent: Runnable[Any, Any]) -> bool:
    """Whether `ainvoke` of a Runnable is its own and not `invoke` in a thread."""
    return bool(_runnable_has_native_async(agent))


def register_writer(writer: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Mark a Runnable as one that writes to channels, so that LangGraph runs it after the node's own work."""
    return ChannelWrite.register_writer(writer)
