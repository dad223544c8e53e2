"""Callback managers and handlers: LangGraph's own, which stream messages and tool calls, and LangChain's hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from langchain_core.callbacks import (
    AsyncCallbackManager,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    Callbacks,
)
from langchain_core.globals import get_debug
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import context as tracing
from langchain_core.tracers._streaming import _StreamingCallbackHandler as StreamingCallbackHandler
from langchain_core.tracers._streaming import _V2StreamingCallbackHandler as V2StreamingCallbackHandler
from langchain_core.tracers.base import BaseTracer
from langchain_core.utils.env import env_var_is_set
from langgraph._internal._config import get_async_callback_manager_for_config, get_callback_manager_for_config
from langgraph.pregel._messages import StreamMessagesHandler, StreamMessagesHandlerV2
from langgraph.pregel._tools import StreamToolCallHandler
from langsmith._internal import _context as langsmith_context
from langsmith.utils import get_env_var

from agentmatrix.pregel.config_values import set_current_config
from agentmatrix.pregel.node_handler import node_handlers
from agentmatrix.pregel.token_usage import TokenUsageHandler

__all__ = [
    "StreamingCallbackHandler",
    "TracerBase",
    "V2StreamingCallbackHandler",
    "callback_manager",
    "current_handler",
    "has_callbacks",
    "inherited_callbacks",
    "is_any_hook_set",
    "is_traced",
    "new_callback_manager",
    "new_stream_handler",
    "stream_handler_kind",
    "stream_handler_state",
    "was_streamed",
    "with_message_ids",
]

_STREAM_HANDLERS: Final[dict[str, Any]] = {
    "messages": StreamMessagesHandler,
    "messages_v2": StreamMessagesHandlerV2,
    "tools": StreamToolCallHandler,
}


def callback_manager(config: RunnableConfig, *, is_async: bool) -> BaseCallbackManager:
    """The callback manager that a graph run with this config would use."""
    if is_async:
        manager: BaseCallbackManager = get_async_callback_manager_for_config(config)
    else:
        manager = get_callback_manager_for_config(config)
    return manager


def has_callbacks(config: RunnableConfig) -> bool:
    """Whether a graph run with this config has handlers, or is part of a run that may have some."""
    callbacks = config.get("callbacks")
    return bool(callbacks) or is_any_hook_set()


def new_callback_manager(is_async: bool, **fields: Any) -> CallbackManager | AsyncCallbackManager:
    """A callback manager of the kind that sync or async runs use, with exactly these fields."""
    return AsyncCallbackManager(**fields) if is_async else CallbackManager(**fields)


class TracerBase(BaseTracer):
    """A tracer without runs of its own, for subclasses that do not call its constructor nor that of LangChain's tracer.

    LangChain notes the runs of an outer trace in a tracer, asks it for the current one, and for copies.
    """

    def prepare(self) -> None:
        """Set the attributes that LangChain looks at."""
        self.run_map, self.order_map, self._external_run_ids = {}, {}, {}

    def _persist_run(self, run: Any) -> None:
        """Nothing is kept."""

    def copy_with_metadata_defaults(self, **defaults: Any) -> Self:
        """The tracer itself: defaults for its runs are the concern of whoever keeps them."""
        return self


def stream_handler_kind(handler: BaseCallbackHandler) -> str | None:
    """The kind of a LangGraph stream handler, which must run next to the model: messages, messages_v2, tools, None."""
    if isinstance(handler, StreamMessagesHandlerV2):
        return "messages_v2"
    if isinstance(handler, StreamMessagesHandler):
        return "messages"
    return "tools" if isinstance(handler, StreamToolCallHandler) else None


def stream_handler_state(handler: Any) -> dict[str, Any]:
    """What `new_stream_handler` takes to make a handler like this one, as plain data."""
    return {
        "subgraphs": handler.subgraphs,
        "parent_ns": handler.parent_ns,
        "seen": set(getattr(handler, "seen", ())),
    }


def new_stream_handler(
    kind: str,
    stream: Callable[[Any], None],
    *,
    subgraphs: bool,
    parent_ns: tuple[str, ...] | None,
    seen: set[Any],
) -> Any:
    """A LangGraph stream handler.

    Args:
        kind: as `stream_handler_kind` names it.
        stream: called with each chunk.
        subgraphs: whether nested graphs are streamed too.
        parent_ns: the namespace of the graph that streams.
        seen: ids of the messages that have been streamed.
    """
    handler = _STREAM_HANDLERS[kind](stream, subgraphs, parent_ns=parent_ns)
    if kind != "tools":
        handler.seen = set(seen)
    return handler


def with_message_ids(config: RunnableConfig, id_for: Callable[[str], str]) -> RunnableConfig:
    """The config for work whose messages are streamed under other ids than their models give them. From here on it is
    the context's too.

    Args:
        config: the config of a task. It is returned as it is where no messages are streamed.
        id_for: gives the id of a message in the stream.
    """
    manager = config.get("callbacks")
    if not isinstance(manager, BaseCallbackManager) or not any(map(_streams_messages, manager.handlers)):
        return config
    changed = manager.copy()
    for handler in filter(_streams_messages, manager.handlers):
        inherits = handler in manager.inheritable_handlers
        changed.remove_handler(handler)
        changed.add_handler(_with_message_ids(handler, id_for), inherit=inherits)
    renamed: RunnableConfig = {**config, "callbacks": changed}
    set_current_config(renamed)
    return renamed


@contextlib.contextmanager
def current_handler(handler: BaseCallbackHandler) -> Iterator[None]:
    """Has what runs in this context, inside of this, be followed by a handler too."""
    config: RunnableConfig = var_child_runnable_config.get() or {}
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
        callbacks.add_handler(handler, inherit=True)
    else:
        callbacks = [*(callbacks or ()), handler]
    token = var_child_runnable_config.set({**config, "callbacks": callbacks})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def was_streamed(config: RunnableConfig, id: str) -> bool:
    """Whether messages are streamed, and one with this id has been, whole or in part."""
    manager = config.get("callbacks")
    handlers = manager.handlers if isinstance(manager, BaseCallbackManager) else []
    found = [handler for handler in handlers if stream_handler_kind(handler) == "messages"]
    return any(id in getattr(handler, "seen", ()) for handler in found)


def _streams_messages(handler: BaseCallbackHandler) -> bool:
    return isinstance(handler, StreamMessagesHandler)


def _with_message_ids(handler: Any, id_for: Callable[[str], str]) -> Any:
    """A handler that streams like another one, under other ids. The other one does not stream the messages again."""

    def stream(chunk: Any) -> None:
        namespace, mode, (part, metadata) = chunk
        if isinstance(part, BaseMessage) and part.id:
            if (id := id_for(part.id)) != part.id:
                part = part.model_copy(update={"id": id})
            handler.seen.add(id)
        elif isinstance(part, dict) and part.get("event") == "message-start":
            # langchain-core has called the key by both names.
            for key in {"id", "message_id"} & part.keys():
                part = {**part, key: id_for(part[key])}
                handler.seen.add(part[key])
        handler.stream((namespace, mode, (part, metadata)))

    kind = "messages_v2" if isinstance(handler, StreamMessagesHandlerV2) else "messages"
    return new_stream_handler(kind, stream, subgraphs=handler.subgraphs, parent_ns=handler.parent_ns, seen=set())


def inherited_callbacks() -> Callbacks:
    """The callbacks of the run that this is called in."""
    return (var_child_runnable_config.get() or {}).get("callbacks")


def is_traced() -> bool:
    """What `langsmith.utils.tracing_is_enabled` says; most of its time goes into imports, at each call."""
    enabled = langsmith_context._TRACING_ENABLED.get()
    if enabled is None and langsmith_context.get_current_run_tree() is not None:
        return True
    if enabled is None:
        enabled = langsmith_context._GLOBAL_TRACING_ENABLED
    if enabled is None:
        return get_env_var("TRACING_V2", default=get_env_var("TRACING", default="")) == "true"
    return bool(enabled)


def is_any_hook_set(callbacks: Callbacks = None) -> bool:
    """Whether LangChain would add a handler to these callbacks of a call: for tracing, debugging, or a hook.

    To let it make the callback manager costs three times as much, which is half of a scripted model's call.
    """
    hooks = getattr(tracing, "_configure_hooks", None)
    if hooks is None or get_debug() or tracing.tracing_v2_callback_var.get() is not None or is_traced():
        return True
    for var, _, kind, env in hooks:
        found = var.get()
        if found is not None and type(found) is not TokenUsageHandler and found not in node_handlers(callbacks):
            return True
        if kind and env and env_var_is_set(env):
            return True
    return False
