"""Handlers of callbacks that are told of nodes by the engine itself.

For any other handler each node has a run of its own among LangChain's callbacks, with a manager that is configured for
it. That costs a quarter of a node, and a chat group its broadcast in one task.
"""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.constants import TAG_HIDDEN
from langgraph.pregel import Pregel

from agentmatrix.pregel.task_config import namespace_of
from agentmatrix.pregel.token_usage import TokenUsageHandler

__all__ = [
    "NodeHandler",
    "calling_graph",
    "is_hook_muted",
    "node_handlers",
    "other_handlers",
    "told_of_model_call",
    "told_of_node",
    "wants_node_runs",
]

is_hook_muted: Final[ContextVar[bool]] = ContextVar("is_hook_muted", default=False)
"""Whether LangChain's hooks add no node handler in this context: on a host, whose caller has sent its own."""


class NodeHandler(BaseCallbackHandler):
    """A handler that the engine tells of each node. It never raises into a run, and runs where the node runs."""

    run_inline = True
    streams_tokens = False
    """Whether it has models stream, also where nobody reads a stream."""

    @abstractmethod
    def on_node_start(self, namespace: str, parent: UUID | None, given: Any, *, is_hidden: bool = False) -> None:
        """A node begins.

        Args:
            namespace: the checkpoint namespace of its task.
            parent: the run of the graph that it is a node of, in the sense of callbacks.
            given: its input.
            is_hidden: whether streams do not show it.
        """

    @abstractmethod
    def on_node_end(self, namespace: str, output: Any) -> None:
        """A node has returned; or a member of a chat group that spoke in the task of others, its update."""

    @abstractmethod
    def on_node_cached(self, namespace: str, parent: UUID | None, writes: Mapping[str, Any]) -> None:
        """A node does not run: the cache has what it writes."""

    @abstractmethod
    def on_node_error(self, namespace: str, error: BaseException) -> None:
        """A node has raised."""

    @abstractmethod
    def on_model_call(
        self, namespace: str, parent: UUID | None, outcome: BaseMessage | BaseException, seconds: float
    ) -> None:
        """A chat model that runs without LangChain's machinery has answered, or raised."""

    @abstractmethod
    def on_node_cancel(self, namespace: str) -> None:
        """A node is given up: what it does from here on counts for nothing."""


_WITHOUT_RUNS: Final = (NodeHandler, TokenUsageHandler)


def node_handlers(manager: Any) -> list[NodeHandler]:
    """The node handlers of a callback manager."""
    handlers = getattr(manager, "handlers", None)
    return [handler for handler in handlers if isinstance(handler, NodeHandler)] if handlers else []


def other_handlers(manager: Any) -> bool:
    """Whether a callback manager has a handler that needs a run for each node."""
    return any(not isinstance(h, _WITHOUT_RUNS) for h in (*manager.handlers, *manager.inheritable_handlers))


def wants_node_runs(manager: Any) -> bool:
    """Whether a callback manager has a handler that needs a run for each node.

    One that ignores chains, as a counter of tokens, hears of models only.
    """
    handlers = (*manager.handlers, *manager.inheritable_handlers)
    return any(not (isinstance(handler, NodeHandler) or handler.ignore_chain) for handler in handlers)


@contextmanager
def told_of_node(handlers: list[NodeHandler], config: RunnableConfig, given: Any) -> Iterator[Callable[[Any], None]]:
    """Tells handlers that a node begins, and of its end: the body calls what it is given with the node's output."""
    namespace, manager = namespace_of(config), cast(Any, config["callbacks"])
    is_hidden = TAG_HIDDEN in (config.get("tags") or ())
    for handler in handlers:
        handler.on_node_start(namespace, manager.parent_run_id, given, is_hidden=is_hidden)

    def tell_end(output: Any) -> None:
        for handler in handlers:
            handler.on_node_end(namespace, output)

    try:
        yield tell_end
    except BaseException as error:
        for handler in handlers:
            handler.on_node_error(namespace, error)
        raise


@contextmanager
def told_of_model_call(callbacks: Any, config: RunnableConfig | None) -> Iterator[Callable[[BaseMessage], None]]:
    """Tells the node handlers of callbacks of a model's call: the body calls what it is given with the answer."""
    handlers = node_handlers(callbacks)
    if not handlers:
        yield lambda answer: None
        return
    said = (config or {}).get("metadata") or (var_child_runnable_config.get() or {}).get("metadata") or {}
    namespace = str(said.get("langgraph_checkpoint_ns") or "")
    began = time.perf_counter()

    def tell(outcome: BaseMessage | BaseException) -> None:
        for handler in handlers:
            handler.on_model_call(namespace, callbacks.parent_run_id, outcome, time.perf_counter() - began)

    try:
        yield tell
    except BaseException as error:
        tell(error)
        raise


def calling_graph() -> tuple[Any, RunnableConfig]:
    """The graph one of whose verbs is running in this stack of calls, and the config of that run.

    LangChain tells a handler the name of a graph that begins, not which graph it is.

    Returns:
        None and an empty config where there is none.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_varnames[:1] == ("self",) and code.co_name in ("stream", "astream", "invoke", "ainvoke"):
            found = frame.f_locals
            if isinstance(found.get("self"), Pregel):
                return found["self"], _own_config(found.get("config"))
        frame = cast(Any, frame.f_back)
    return None, {}


def _own_config(config: Any) -> RunnableConfig:
    """What a caller has said in a config: for another run of the same thread."""
    configurable: Mapping[str, Any] = (config or {}).get("configurable") or {}
    return {"configurable": {key: value for key, value in configurable.items() if not key.startswith("__pregel_")}}
