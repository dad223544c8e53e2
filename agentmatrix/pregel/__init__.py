"""The only door to langgraph's private names.

Everything that makes a graph run *as a subgraph* lives in `config["configurable"]` under reserved keys. This module
names those keys, sorts them by how they cross to another process, and wraps the few private classes behind them.
`tests/test_pregel_door.py` fails when a langgraph upgrade adds, drops or changes one of them.

The rooms behind it: `channels`, what compiled graphs need; `crowd`, many calls in one task; and supersteps that stay
open: `agenda`, what may run; `turns`, its tasks; `listening`, signals and timers; `pauses`; `loop` and `open_steps`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, BaseCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler as StreamingCallbackHandler
from langchain_core.tracers._streaming import _V2StreamingCallbackHandler as V2StreamingCallbackHandler
from langgraph._internal import _constants as keys
from langgraph._internal._config import (
    _DefaultRecursionLimit,
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    merge_configs,
)
from langgraph._internal._replay import ReplayState
from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.config import get_config
from langgraph.pregel._messages import StreamMessagesHandler, StreamMessagesHandlerV2
from langgraph.pregel._tools import StreamToolCallHandler
from langgraph.pregel.protocol import StreamProtocol
from langgraph.runtime import RunControl, Runtime, _no_op_heartbeat, _no_op_stream_writer

__all__ = [
    "BY_VALUE",
    "CACHE",
    "CHECKPOINTER",
    "CHECKPOINT_NS",
    "CONF",
    "DROPPED",
    "DURABILITY",
    "ERROR_SOURCE_NODE",
    "LENT",
    "NODE_FINISHED",
    "NS_SEP",
    "REPLAY_STATE",
    "RUNTIME",
    "SCRATCHPAD",
    "STREAM",
    "TASK_ID",
    "BorrowedReplayState",
    "BorrowedRunControl",
    "ReplayState",
    "RunControl",
    "Runtime",
    "StreamMessagesHandler",
    "StreamMessagesHandlerV2",
    "StreamProtocol",
    "StreamToolCallHandler",
    "StreamingCallbackHandler",
    "V2StreamingCallbackHandler",
    "borrowed_scratchpad",
    "callback_manager",
    "current_namespace",
    "ensure_config",
    "has_heartbeat",
    "has_stream_writer",
    "in_namespace",
    "is_default_recursion_limit",
    "merge_configs",
    "new_callback_manager",
    "reserved_keys",
    "set_drained",
    "streams_messages_of_subgraph",
    "visited",
    "watch_drain",
]

CONF: Final = "configurable"
NS_SEP: Final[str] = keys.NS_SEP
CHECKPOINTER: Final[str] = keys.CONFIG_KEY_CHECKPOINTER
STREAM: Final[str] = keys.CONFIG_KEY_STREAM
CACHE: Final[str] = keys.CONFIG_KEY_CACHE
RUNTIME: Final[str] = keys.CONFIG_KEY_RUNTIME
SCRATCHPAD: Final[str] = keys.CONFIG_KEY_SCRATCHPAD
REPLAY_STATE: Final[str] = keys.CONFIG_KEY_REPLAY_STATE
NODE_FINISHED: Final[str] = keys.CONFIG_KEY_NODE_FINISHED
TASK_ID: Final[str] = keys.CONFIG_KEY_TASK_ID
CHECKPOINT_NS: Final[str] = keys.CONFIG_KEY_CHECKPOINT_NS
DURABILITY: Final[str] = keys.CONFIG_KEY_DURABILITY
ERROR_SOURCE_NODE: Final[str] = keys.ERROR_SOURCE_NODE

BY_VALUE: Final = frozenset(
    {
        keys.CONFIG_KEY_TASK_ID,
        keys.CONFIG_KEY_RESUMING,
        keys.CONFIG_KEY_RESUME_MAP,
        keys.CONFIG_KEY_STRICT_RESUME,
        keys.CONFIG_KEY_DURABILITY,
        keys.CONFIG_KEY_STREAM_MESSAGES_V2,
    }
)
"""Reserved keys whose values are plain data and cross as they are."""

LENT: Final = frozenset({CHECKPOINTER, STREAM, CACHE, RUNTIME, SCRATCHPAD, REPLAY_STATE, NODE_FINISHED})
"""Reserved keys whose objects stay with the caller; the host gets stand-ins."""

DROPPED: Final = frozenset(
    {
        keys.CONFIG_KEY_SEND,
        keys.CONFIG_KEY_READ,
        keys.CONFIG_KEY_CALL,
        keys.CONFIG_KEY_RUNNER_SUBMIT,
        keys.CONFIG_KEY_TIMED_ATTEMPT_OBSERVER,
        keys.CONFIG_KEY_NODE_ERROR,
        "__pregel_read_state",  # Since langgraph 1.2.24.
    }
)
"""Reserved keys that mean something only inside the parent's own task."""


def is_default_recursion_limit(limit: object) -> bool:
    """Whether a recursion limit is the one that langgraph fills in, which yields to the graph's own config."""
    return isinstance(limit, _DefaultRecursionLimit)


def callback_manager(config: RunnableConfig, *, is_async: bool) -> BaseCallbackManager:
    """The callback manager that a graph run with this config would use."""
    if is_async:
        manager: BaseCallbackManager = get_async_callback_manager_for_config(config)
    else:
        manager = get_callback_manager_for_config(config)
    return manager


def new_callback_manager(is_async: bool, **fields: Any) -> CallbackManager | AsyncCallbackManager:
    """A callback manager of the kind that sync or async runs use, with exactly these fields."""
    return AsyncCallbackManager(**fields) if is_async else CallbackManager(**fields)


def has_stream_writer(runtime: Runtime[Any]) -> bool:
    """Whether somebody listens to what nodes write to the custom stream."""
    return runtime.stream_writer is not _no_op_stream_writer


def has_heartbeat(runtime: Runtime[Any]) -> bool:
    """Whether an idle timeout listens for heartbeats."""
    return runtime.heartbeat is not _no_op_heartbeat


def borrowed_scratchpad(
    *, step: int, stop: int, resume: Sequence[Any], subgraph: int, null_resume: Callable[[bool], Any]
) -> PregelScratchpad:
    """The scratchpad of a task whose graph runs on another machine.

    Args:
        step: the parent's superstep.
        stop: the parent's last superstep.
        resume: values that answer interrupts of this task.
        subgraph: which nested graph of the task this one is, counted by the caller.
        null_resume: returns the pending resume value, and consumes it when called with True.
    """
    return PregelScratchpad(
        step=step,
        stop=stop,
        call_counter=lambda: 0,
        interrupt_counter=lambda: 0,
        get_null_resume=null_resume,
        resume=list(resume),
        subgraph_counter=lambda: subgraph,
    )


def visited(replay: ReplayState) -> set[str]:
    """The namespaces that a replay has already entered; the set itself, not a copy."""
    return replay._visited_ns


class BorrowedReplayState(ReplayState):
    """A replay whose visits are told to the caller, since later subgraphs of the parent must know of them."""

    __slots__ = ("_on_visit",)

    def __init__(self, checkpoint_id: str, namespaces: set[str], on_visit: Callable[[str], None]) -> None:
        super().__init__(checkpoint_id)
        self._visited_ns = namespaces
        self._on_visit = on_visit

    def _is_first_visit(self, checkpoint_ns: str) -> bool:
        before = set(self._visited_ns)
        first = super()._is_first_visit(checkpoint_ns)
        for namespace in self._visited_ns - before:
            self._on_visit(namespace)
        return first


class WatchedRunControl(RunControl):
    """A `RunControl` that tells its listeners of a drain request. `watch_drain` turns a plain one into this."""

    __slots__ = ()

    def request_drain(self, reason: str = "shutdown") -> None:
        super().request_drain(reason)
        _tell_listeners(self, reason)


class BorrowedRunControl(RunControl):
    """A run control on the host: a drain that is requested there is told to the caller."""

    __slots__ = ("_on_drain",)

    def __init__(self, on_drain: Callable[[str], None]) -> None:
        super().__init__()
        self._on_drain = on_drain

    def request_drain(self, reason: str = "shutdown") -> None:
        super().request_drain(reason)
        _tell_listeners(self, reason)
        self._on_drain(reason)


_drain_listeners: dict[int, list[Callable[[str], None]]] = {}


def _tell_listeners(control: RunControl, reason: str) -> None:
    for listener in list(_drain_listeners.get(id(control), ())):
        listener(reason)


def watch_drain(control: RunControl, listener: Callable[[str], None]) -> Callable[[], None]:
    """Calls `listener(reason)` when a drain of this control is requested; returns what ends the watching.

    A `RunControl` has slots and no hook, so its class is exchanged for a subclass of the same layout.
    """
    if type(control) is RunControl:
        control.__class__ = WatchedRunControl
    listeners = _drain_listeners.setdefault(id(control), [])
    listeners.append(listener)

    def unwatch() -> None:
        listeners.remove(listener)
        if not listeners:
            _drain_listeners.pop(id(control), None)

    return unwatch


def set_drained(control: RunControl, reason: str) -> None:
    """Requests a drain of a borrowed control without telling its caller: the request came from there."""
    RunControl.request_drain(control, reason)
    _tell_listeners(control, reason)


def in_namespace(config: RunnableConfig, namespace: str | None, function: Callable[[Any], object], value: Any) -> None:
    """Calls `function(value)` where `config`, at another checkpoint namespace, is the current one.

    langgraph's stream writers read their namespace from the context's config.
    """
    there: RunnableConfig = {**config, "configurable": {**config.get("configurable", {}), CHECKPOINT_NS: namespace}}
    context = contextvars.copy_context()
    context.run(var_child_runnable_config.set, there)
    context.run(function, value)


def current_namespace() -> str | None:
    """The checkpoint namespace of the task that is running here."""
    namespace: str | None = get_config()["configurable"].get(CHECKPOINT_NS)
    return namespace


def streams_messages_of_subgraph(handler: BaseCallbackHandler) -> str | None:
    """The kind of a langgraph stream handler, which must run next to the model: messages, messages_v2, tools, None."""
    if isinstance(handler, StreamMessagesHandlerV2):
        return "messages_v2"
    if isinstance(handler, StreamMessagesHandler):
        return "messages"
    return "tools" if isinstance(handler, StreamToolCallHandler) else None


def reserved_keys() -> Mapping[str, str]:
    """Every reserved config key of the installed langgraph: constant's name -> key."""
    return {name: value for name, value in vars(keys).items() if name.startswith("CONFIG_KEY_")}
