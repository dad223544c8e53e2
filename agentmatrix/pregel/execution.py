"""The private names of LangGraph that the engine stands on: its loop, its runner, and the functions that make tasks."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._config import ensure_config
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_REPLAY_STATE,
    CONFIG_KEY_RESUMING,
    CONFIG_KEY_STREAM,
    ERROR_SOURCE_NODE,
    INPUT,
    INTERRUPT,
    NULL_TASK_ID,
    PULL,
    PUSH,
    RESUME,
    TASKS,
)
from langgraph._internal._runnable import RunnableCallable
from langgraph.channels import LastValue
from langgraph.constants import TAG_HIDDEN
from langgraph.pregel._algo import (
    apply_writes,
    prepare_next_tasks,
    prepare_node_error_handler_task,
    prepare_single_task,
)
from langgraph.pregel._checkpoint import channels_from_checkpoint
from langgraph.pregel._executor import AsyncBackgroundExecutor, BackgroundExecutor
from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop
from langgraph.pregel._runner import PregelRunner
from langgraph.pregel._task_status import CONTROL_WRITES, read_task_statuses
from langgraph.pregel.debug import map_debug_checkpoint, map_debug_tasks
from langgraph.types import CachePolicy, PregelExecutableTask, PregelTask

__all__ = [
    "CONF",
    "INPUT",
    "CONFIG_KEY_CHECKPOINT_ID",
    "CONFIG_KEY_CHECKPOINT_MAP",
    "CONFIG_KEY_CHECKPOINT_NS",
    "CONFIG_KEY_REPLAY_STATE",
    "CONFIG_KEY_RESUMING",
    "CONFIG_KEY_STREAM",
    "CONTROL_WRITES",
    "ERROR_SOURCE_NODE",
    "INPUT",
    "INTERRUPT",
    "MISSING",
    "NULL_TASK_ID",
    "PULL",
    "PUSH",
    "RESUME",
    "TASKS",
    "AsyncBackgroundExecutor",
    "AsyncPregelLoop",
    "BackgroundExecutor",
    "PregelLoop",
    "PregelRunner",
    "SyncPregelLoop",
    "Task",
    "TaskWrites",
    "apply_input_writes",
    "apply_writes",
    "channels_from_checkpoint",
    "hidden_task",
    "is_default_key",
    "map_debug_checkpoint",
    "map_debug_tasks",
    "newer_versions",
    "null_version",
    "output_values",
    "prepare_next_tasks",
    "prepare_node_error_handler_task",
    "prepare_single_task",
    "raising",
    "read_task_statuses",
    "saver_and_config",
    "set_cache_identity",
    "thread_of",
    "triggered_nodes",
    "unless",
    "with_cache_key",
    "id_among",
    "with_configurable",
    "with_globals",
]

MISSING: Any = LastValue(object).value
"""What a channel holds that is empty."""

Task = PregelExecutableTask
Function = TypeVar("Function", bound=Callable[..., Any])

_DEFAULT_KEY: Callable[..., str | bytes] = CachePolicy().key_func


class TaskWrites(NamedTuple):
    """What LangGraph's `apply_writes` reads of a task."""

    path: tuple[Any, ...]
    name: str
    writes: Sequence[tuple[str, Any]]
    triggers: Sequence[str]


def with_configurable(config: RunnableConfig, values: Mapping[str, Any]) -> RunnableConfig:
    """The config with these values among those of `configurable`."""
    return {**config, CONF: {**config.get(CONF, {}), **values}}


def id_among(given: Sequence[Any]) -> str:
    """The id of the checkpoint that LangGraph's loop puts, among the arguments of its function for that."""
    return str(next(each["id"] for each in given if isinstance(each, dict) and "channel_versions" in each))


def null_version(checkpoint: Mapping[str, Any]) -> Any:
    """The version that comes before those of a checkpoint's channels; None where it has none."""
    return next((type(version)() for version in checkpoint["channel_versions"].values()), None)


def newer_versions(before: Mapping[str, Any], versions: Mapping[str, Any]) -> dict[str, Any]:
    """The versions of channels that have changed."""
    return {name: version for name, version in versions.items() if version != before.get(name)}


def output_values(keys: str | Sequence[str], channels: Mapping[str, Any]) -> Iterator[Any]:
    """The part of the stream mode "values" that shows these keys, or the value of this one key."""
    if isinstance(keys, str):
        yield channels[keys].get() if channels[keys].is_available() else None
    else:
        yield {key: channels[key].get() for key in keys if channels[key].is_available()}


def triggered_nodes(
    channels: Mapping[str, Any], checkpoint: Any, names: Iterable[str], nodes: Mapping[str, Any]
) -> list[str]:
    """The nodes that LangGraph would run in the step that follows a checkpoint.

    Args:
        channels: the channels of the checkpoint.
        checkpoint: the checkpoint.
        names: the nodes that are asked for, in order.
        nodes: all nodes, by name.
    """
    if (null := null_version(checkpoint)) is None:
        return []
    versions, seen = checkpoint["channel_versions"], checkpoint["versions_seen"]
    # Of a graph with many nodes few have been written to.
    written = {name for name in versions if name in channels and channels[name].is_available()}

    def is_new(trigger: str, name: str) -> bool:
        return name not in seen or versions[trigger] > seen[name].get(trigger, null)

    called = [name for name in names if not written.isdisjoint(nodes[name].triggers)]
    return [name for name in called if any(is_new(t, name) for t in written.intersection(nodes[name].triggers))]


def is_default_key(policy: CachePolicy[Any]) -> bool:
    """Whether a cache policy has no key function of its own."""
    return getattr(policy.key_func, "key_func", policy.key_func) is _DEFAULT_KEY


class IdentifiedKey:
    """A key function of a cache policy, whose keys know the agent that they are for.

    Args:
        identity: the agent's.
        key_func: the policy's own.
    """

    def __init__(self, identity: bytes, key_func: Callable[..., str | bytes]) -> None:
        self.identity, self.key_func = identity, key_func

    def __call__(self, *args: Any, **kwargs: Any) -> bytes:
        key = self.key_func(*args, **kwargs)
        return self.identity + (key.encode() if isinstance(key, str) else key)


def set_cache_identity(graph: Any, node: str, identity: bytes) -> None:
    """Let the keys of the results of `node` in a cache know its agent, where its results are kept."""
    spec = graph.nodes[node]
    if (policy := spec.cache_policy or graph.cache_policy) is not None:
        keyed = dataclasses.replace(policy, key_func=IdentifiedKey(identity, policy.key_func))
        graph.nodes[node] = spec.copy({"cache_policy": keyed})


def with_cache_key(task: Task, more: Any) -> Task:
    """The task with a cache key that depends on something more than its input."""
    assert task.cache_key is not None
    said = _DEFAULT_KEY(task.cache_key.key, more)
    digest = hashlib.sha256(said if isinstance(said, bytes) else said.encode()).hexdigest()
    return replace(task, cache_key=task.cache_key._replace(key=digest))


def unless(given_up: Callable[[], bool], task: Task) -> Task:
    """The task, as one that does not begin a try any more once it is given up. In a thread."""

    def run(input: Any, config: RunnableConfig) -> Any:
        if given_up():
            raise CancelledError
        return task.proc.invoke(input, config)

    return replace(task, proc=RunnableCallable(run, name=task.name, trace=False, recurse=False))


def raising(task: Task, error: Exception) -> Task:
    """The task, as one that raises in place of running."""

    def fail(_: Any) -> Any:
        raise error

    return replace(task, proc=RunnableCallable(fail, name=task.name, trace=False), retry_policy=(), cache_key=None)


def hidden_task(known: PregelTask, triggers: Sequence[str]) -> Task:
    """A task of LangGraph's that no stream shows, and that nobody is to run: what it has written is put at once.

    Args:
        known: its name, id and path.
        triggers: the channels that have started it.
    """
    config: RunnableConfig = {"tags": [TAG_HIDDEN]}
    return Task(known.name, None, None, deque(), config, triggers, (), None, known.id, known.path)  # type: ignore[arg-type]


def apply_input_writes(checkpoint: Any, channels: Any, pending: Any, next_version: Any) -> None:
    """Apply what a command from outside has written beside a checkpoint."""
    writes = [write[1:] for write in pending if write[0] == NULL_TASK_ID and write[1] not in CONTROL_WRITES]
    if writes:
        apply_writes(checkpoint, channels, [TaskWrites((), INPUT, writes, ())], next_version, {})


def saver_and_config(graph: Any, config: RunnableConfig) -> tuple[Any, RunnableConfig]:
    """The saver of a graph, and the config of its thread as savers take it."""
    own: RunnableConfig = graph._own_checkpoint_config(ensure_config(graph.config, config))
    return graph._state_checkpointer(config), own


def thread_of(graph: Any, config: RunnableConfig) -> tuple[Any, RunnableConfig | None]:
    """The saver of a graph, and the config of the thread's latest checkpoint.

    The config is None where `config` is about a graph inside this one, or addresses a checkpoint.
    """
    saver, own = saver_and_config(graph, config)
    if own[CONF].get(CONFIG_KEY_CHECKPOINT_ID) or graph._subgraph_for_namespace(config, saver):
        return saver, None
    return saver, own


def with_globals(function: Function, **names: Any) -> Function:
    """A copy of a function of LangGraph's that finds other objects under some of its global names.

    `Pregel.stream` makes its loop and its runner by these names; there is no other way to give it others.
    """
    code, defaults = function.__code__, function.__defaults__
    other = types.FunctionType(code, {**function.__globals__, **names}, function.__name__, defaults)
    other.__kwdefaults__ = function.__kwdefaults__
    return cast(Function, functools.update_wrapper(other, function))
