"""A pytest plugin that puts the graphs of LangGraph's own tests behind a real host, and counts where it did.

The mode comes from the environment variable TRANSPARENCY:

- `nodes`: each compiled graph given to `add_node` is replaced by its loopback remote;
- `calls`: each compiled graph called from inside a node as well;
- `top`: each graph that a test compiles.
- `off`: nothing is replaced, for comparison.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.func import entrypoint
from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from agentmatrix.remote import RemoteAgent
from agentmatrix.testing import loopback

MODE = os.environ.get("TRANSPARENCY", "off")
VERBS = ("invoke", "ainvoke", "stream", "astream")
_replaced = 0
_outcomes: dict[str, dict[str, Any]] = {}
_remotes: dict[int, tuple[Pregel[Any, Any, Any, Any], RemoteAgent]] = {}


def _is_test_file(frame: FrameType | None) -> bool:
    return frame is not None and "/tests/" in frame.f_code.co_filename.replace(os.sep, "/")


def _test_classes() -> list[type]:
    """The classes that the calling test and its module define."""
    found: list[type] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if _is_test_file(frame):
            for space in (frame.f_globals, frame.f_locals):
                found += [value for value in space.values() if inspect.isclass(value)]
        frame = frame.f_back
    return [cls for cls in found if cls.__module__.split(".")[0] in ("tests", "__main__")]


def _remote(graph: Pregel[Any, Any, Any, Any]) -> Any:
    global _replaced
    _replaced += 1
    if id(graph) not in _remotes:
        _remotes[id(graph)] = (graph, loopback(graph, allow=_test_classes(), unlisted="error"))
    return _remotes[id(graph)][1]


def _local(graph: Any) -> bool:
    return isinstance(graph, Pregel) and not isinstance(graph, RemoteAgent)


def _patch_add_node() -> None:
    original = StateGraph.add_node

    def add_node(self: Any, node: Any, action: Any = None, **kwargs: Any) -> Any:
        if _local(node):
            name = node.get_name()
            return original(self, name, _remote(node), **kwargs)
        if _local(action):
            action = _remote(action)
        return original(self, node, action, **kwargs)

    StateGraph.add_node = add_node  # type: ignore[assignment, method-assign]


def _patch_calls() -> None:
    for verb in VERBS:
        setattr(Pregel, verb, _redirected(getattr(Pregel, verb), verb))


def _redirected(original: Callable[..., Any], verb: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        current = var_child_runnable_config.get() or {}
        inside = "__pregel_task_id" in current.get("configurable", {})
        if _local(self) and inside and _is_test_file(sys._getframe(1)):
            return getattr(_remote(self), verb)(*args, **kwargs)
        return original(self, *args, **kwargs)

    return call


def _patch_top() -> None:
    compiled, entered = StateGraph.compile, entrypoint.__call__

    def compile(self: Any, *args: Any, **kwargs: Any) -> Any:
        graph = compiled(self, *args, **kwargs)
        return _remote(graph) if _is_test_file(sys._getframe(1)) else graph

    def enter(self: Any, func: Any) -> Any:
        graph = entered(self, func)
        return _remote(graph) if _is_test_file(sys._getframe(1)) else graph

    StateGraph.compile = compile  # type: ignore[method-assign]
    entrypoint.__call__ = enter  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    if MODE in ("nodes", "calls"):
        _patch_add_node()
    if MODE == "calls":
        _patch_calls()
    if MODE == "top":
        _patch_top()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    global _replaced
    _replaced = 0
    _remotes.clear()
    result = yield
    _outcomes.setdefault(item.nodeid, {})["replaced"] = _replaced
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    entry = _outcomes.setdefault(report.nodeid, {"outcome": "passed"})
    entry.setdefault("outcome", "passed")
    if report.outcome == "failed" or (report.outcome == "skipped" and entry["outcome"] == "passed"):
        entry["outcome"] = report.outcome
        entry["why"] = str(report.longreprtext)[-600:] if report.outcome == "failed" else ""


def pytest_sessionfinish(session: pytest.Session) -> None:
    if target := os.environ.get("TRANSPARENCY_REPORT"):
        Path(target).write_text(json.dumps(_outcomes))
