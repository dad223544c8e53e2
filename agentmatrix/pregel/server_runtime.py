"""What LangGraph's server gives to the functions that make graphs (`langgraph_sdk.runtime`)."""

from __future__ import annotations

import sys
import typing
from typing import Any

__all__ = ["is_server_runtime", "server_runtime"]


def is_server_runtime(annotation: Any) -> bool:
    """Whether a parameter of this annotation takes a `ServerRuntime`."""
    runtime = sys.modules.get("langgraph_sdk.runtime")  # who annotates by it has imported it
    return runtime is not None and runtime.ServerRuntime in (annotation, typing.get_origin(annotation))


def server_runtime(*, is_run: bool, user: Any = None, store: Any = None, context: Any = None) -> Any:
    """A `ServerRuntime`.

    Args:
        is_run: whether the graph is to run, rather than to be described or to have its state read.
        user: who calls.
        store: of the graphs of this host.
        context: of the run.
    """
    from langgraph_sdk import runtime

    if is_run:
        return runtime._ExecutionRuntime(access_context="threads.create_run", user=user, store=store, context=context)
    return runtime._ReadRuntime(access_context="assistants.read", user=user, store=store)
