"""The objects behind the reserved config keys: scratchpad, replay state, runtime and checkpoint namespace."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph._internal._config import ensure_config, merge_configs
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINT_NS
from langgraph._internal._replay import ReplayState
from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.config import get_config
from langgraph.pregel.protocol import StreamProtocol
from langgraph.runtime import Runtime

from agentmatrix.pregel import config_keys

__all__ = [
    "ReplayState",
    "ReplayStateProxy",
    "StreamProtocol",
    "current_namespace",
    "ensure_config",
    "event_loop_of",
    "has_heartbeat",
    "has_stream_writer",
    "in_namespace",
    "is_default_recursion_limit",
    "merge_configs",
    "new_scratchpad",
    "scratchpad_proxy",
    "scratchpad_state",
    "set_current_config",
    "visited_namespaces",
    "with_counted_subgraph",
]


_UNUSED: Runtime[Any] = Runtime()
# LangGraph fills it in as a class of its own, which tells it from the same number that somebody has set.
_DEFAULT_LIMIT = type(contextvars.Context().run(ensure_config)["recursion_limit"])


def is_default_recursion_limit(limit: object) -> bool:
    """Whether a recursion limit is the one that LangGraph fills in, which yields to the graph's own config."""
    return isinstance(limit, _DEFAULT_LIMIT)


def has_stream_writer(runtime: Runtime[Any]) -> bool:
    """Whether something reads the custom stream that nodes write to."""
    return runtime.stream_writer is not _UNUSED.stream_writer


def event_loop_of(resource: object) -> asyncio.AbstractEventLoop | None:
    """The event loop that an async checkpointer or store was made on, and works on alone; None for any other object."""
    loop = getattr(resource, "loop", None) or getattr(resource, "_loop", None)
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None


def has_heartbeat(runtime: Runtime[Any]) -> bool:
    """Whether an idle timeout listens for heartbeats."""
    return runtime.heartbeat is not _UNUSED.heartbeat


def new_scratchpad(step: int, stop: int) -> PregelScratchpad:
    """The scratchpad of a task that has raised no interrupt yet, at superstep `step` of at most `stop`."""
    return PregelScratchpad(
        step=step,
        stop=stop,
        call_counter=count().__next__,
        interrupt_counter=count().__next__,
        get_null_resume=_no_resume,
        resume=[],
        subgraph_counter=count().__next__,
    )


def _no_resume(consume: bool = False) -> None:
    return None


def scratchpad_state(scratchpad: PregelScratchpad) -> Mapping[str, Any]:
    """The arguments of `scratchpad_proxy` as plain data, with the pending resume value as `null_resume`.

    Counts one subgraph of the task.
    """
    return {
        "step": scratchpad.step,
        "stop": scratchpad.stop,
        "resume": list(scratchpad.resume),
        "null_resume": scratchpad.get_null_resume(False),
        "subgraph": scratchpad.subgraph_counter(),
    }


def with_counted_subgraph(config: RunnableConfig) -> RunnableConfig:
    """The config of a nested graph that may be begun several times, and counts as one subgraph of its task."""
    configurable = config.get("configurable") or {}
    scratchpad = configurable.get(config_keys.SCRATCHPAD)
    if scratchpad is None:
        return config
    number = scratchpad.subgraph_counter()
    counted = replace(scratchpad, subgraph_counter=lambda: number)
    return {**config, "configurable": {**configurable, config_keys.SCRATCHPAD: counted}}


def scratchpad_proxy(
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


def visited_namespaces(replay: ReplayState) -> set[str]:
    """The namespaces that a replay has already entered; the set itself, not a copy."""
    return replay._visited_ns


class ReplayStateProxy(ReplayState):
    """A replay whose visits are told to the caller, since later subgraphs of the parent must know of them.

    Args:
        checkpoint_id: the checkpoint that is replayed.
        namespaces: those visited so far.
        on_visit: called with each namespace that is visited first here.
    """

    __slots__ = ("_on_visit",)

    def __init__(self, checkpoint_id: str, namespaces: set[str], on_visit: Callable[[str], None]) -> None:
        super().__init__(checkpoint_id)
        self._visited_ns = namespaces
        self._on_visit = on_visit

    # LangGraph calls this once for each subgraph that starts during a replay.
    def _is_first_visit(self, checkpoint_ns: str) -> bool:
        before = set(self._visited_ns)
        first = super()._is_first_visit(checkpoint_ns)
        for namespace in self._visited_ns - before:
            self._on_visit(namespace)
        return first


def in_namespace(config: RunnableConfig, namespace: str | None, function: Callable[[Any], object], value: Any) -> None:
    """Calls `function(value)` where `config`, at another checkpoint namespace, is the current one.

    LangGraph's stream writers read their namespace from the context's config.
    """
    configurable = {**config.get("configurable", {}), CONFIG_KEY_CHECKPOINT_NS: namespace}
    there: RunnableConfig = {**config, "configurable": configurable}
    context = contextvars.copy_context()
    context.run(set_current_config, there)
    context.run(function, value)


def set_current_config(config: RunnableConfig) -> None:
    """Make `config` the one that runs started in this context inherit."""
    var_child_runnable_config.set(config)


def current_namespace() -> str | None:
    """The checkpoint namespace of the task that is running here."""
    namespace: str | None = get_config()["configurable"].get(CONFIG_KEY_CHECKPOINT_NS)
    return namespace
