"""The functions of a graph's nodes: whether they can run without an event loop, and which of them a thread is in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from langchain_core.runnables import RunnableLambda
from langgraph._internal._runnable import RunnableCallable
from langgraph.pregel import Pregel

__all__ = ["is_async_only", "node_on_stack"]


def is_async_only(graph: Any) -> bool:
    """Whether a graph, or one inside it, has a node that only runs on an event loop, so that its sync verbs fail."""
    if not isinstance(graph, Pregel) or getattr(type(graph), "is_remote", False):
        return False
    return any(map(_lacks_sync, _runnables(graph))) or any(is_async_only(inner) for _, inner in graph.get_subgraphs())


def _runnables(graph: Any) -> Iterator[Any]:
    """The functions of the nodes and of the routers."""
    yield from (getattr(node, "bound", node) for node in graph.nodes.values())
    for routers in getattr(getattr(graph, "builder", None), "branches", {}).values():
        yield from (router.path for router in routers.values())


def _lacks_sync(runnable: Any) -> bool:
    steps = getattr(runnable, "steps", None)
    if isinstance(steps, (list, tuple)):  # a sequence, LangChain's or LangGraph's
        return any(map(_lacks_sync, steps))
    if isinstance(runnable, RunnableCallable):
        return runnable.func is None and runnable.afunc is not None
    if isinstance(runnable, RunnableLambda):
        return not hasattr(runnable, "func")
    return is_async_only(runnable)


def node_on_stack(thread: int) -> tuple[str, str, int] | None:
    """Which node a thread is in, with the file and the line that it has come to; None where it is in none.

    Args:
        thread: its identifier, as `threading.get_ident` gives it.
    """
    at = frame = sys._current_frames().get(thread)
    while frame is not None and at is not None:
        config = frame.f_locals.get("config")
        if isinstance(config, dict) and isinstance(config.get("metadata"), dict):
            node = config["metadata"].get("langgraph_node")
            if node is not None:
                return str(node), at.f_code.co_filename, at.f_lineno
        frame = frame.f_back
    return None
