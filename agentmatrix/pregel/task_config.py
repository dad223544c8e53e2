"""What the config of a task says: where the task stands, what it reads, and how it writes.

LangGraph puts functions and counters for each task under reserved keys of its config. These functions work on the
config that a node, a router or a writer is called with, on the thread that runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CALL,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_NODE_ERROR,
    CONFIG_KEY_READ,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_SEND,
    CONFIG_KEY_TASK_ID,
    INTERRUPT,
    NS_END,
    NS_SEP,
    PUSH,
)
from langgraph.errors import ParentCommand
from langgraph.graph import END
from langgraph.types import Command

from agentmatrix.pregel.compiled_graph import branch_target
from agentmatrix.pregel.config_values import set_current_config

__all__ = [
    "attempt_of",
    "command_for_node",
    "declared_targets",
    "failed_node",
    "intercept_writes",
    "is_for_subgraph",
    "is_update",
    "loop_of",
    "namespace_of",
    "node_config",
    "node_of",
    "parent_namespace_of",
    "parent_node_of",
    "plain_namespace_of",
    "read_channel",
    "send_index",
    "send_writes",
    "task_id_of",
    "task_namespace",
    "updates_of",
    "was_sent",
    "writes_of",
]


def namespace_of(config: RunnableConfig) -> str:
    """The checkpoint namespace of the task that `config` belongs to: `"panel:<id>|optimist:<id>"`."""
    return str(config.get(CONF, {}).get(CONFIG_KEY_CHECKPOINT_NS, ""))


def attempt_of(config: RunnableConfig) -> int:
    """Which attempt of its task it is that `config` belongs to, from 1."""
    info = getattr(config.get(CONF, {}).get(CONFIG_KEY_RUNTIME), "execution_info", None)
    return int(info.node_attempt) if info is not None else 1


def parent_namespace_of(config: RunnableConfig) -> str | None:
    """The namespace of the task, in the parent graph, that the graph of this task runs in; None at the top."""
    above, _, own = plain_namespace_of(config).rpartition(NS_SEP)
    return above or None


def plain_namespace_of(config: RunnableConfig) -> str:
    """The namespace of the task, without the numbers that tell several graphs of one task apart."""
    return NS_SEP.join(part for part in namespace_of(config).split(NS_SEP) if not part.isdigit())


def _node_at(config: RunnableConfig, depth: int) -> str | None:
    parts = namespace_of(config).split(NS_SEP)
    return parts[-depth].split(NS_END)[0] or None if len(parts) >= depth else None


def node_of(config: RunnableConfig) -> str | None:
    """The name of the node whose task `config` belongs to."""
    return _node_at(config, 1)


def parent_node_of(config: RunnableConfig) -> str | None:
    """The name of the node, in the parent graph, that the graph of this task stands in; None at the top."""
    return _node_at(config, 2)


def task_namespace(config: RunnableConfig, node: str, id: str) -> str:
    """The checkpoint namespace of a task of the graph whose state `config` names."""
    own = f"{node}{NS_END}{id}"
    return f"{namespace}{NS_SEP}{own}" if (namespace := str(config[CONF].get("checkpoint_ns", ""))) else own


def is_for_subgraph(config: RunnableConfig) -> bool:
    """Whether a graph that is asked for its state under `config` asks one of the graphs inside it."""
    configurable = config.get(CONF, {})
    return bool(configurable.get(CONFIG_KEY_CHECKPOINT_NS)) and CONFIG_KEY_CHECKPOINTER not in configurable


def loop_of(config: RunnableConfig) -> Any:
    """LangGraph's loop that the task of `config` runs in.

    Nothing else in a task's config knows the loop but the function by which tasks start others, a method of it.
    """
    return config[CONF][CONFIG_KEY_CALL].keywords["schedule_task"].__self__


def node_config(config: RunnableConfig) -> RunnableConfig:
    """The config of the node that the task of `config` works for: its own, or that of the node that has called it.

    Raises:
        KeyError: that node was cancelled.
    """
    if not _is_call(config):
        return config
    tasks = loop_of(config).tasks
    while _is_call(config):
        config = tasks[namespace_of(config).split(NS_SEP)[-2].partition(NS_END)[2]].config
    return config


def read_channel(config: RunnableConfig, channel: str | list[str]) -> Any:
    """The value of one channel, or of several by name, as it was when the task of `config` started."""
    return config[CONF][CONFIG_KEY_READ](channel)


def command_for_node(error: ParentCommand, config: RunnableConfig) -> Command[Any] | None:
    """The command that a graph inside the node of `config` has sent to the graph around it, or None if it is meant
    for a graph further out."""
    namespace = namespace_of(config)
    command: Command[Any] = error.args[0]
    here = (namespace, _without_tasks(namespace), node_of(config))
    return command if command.graph in here else None


def declared_targets(configurable: Mapping[str, Any]) -> frozenset[str] | None:
    """Where a command of the node of a task may lead, as `destinations=` or its annotation declares, and to the end.

    Args:
        configurable: of the task's config.

    Returns:
        Names of nodes; None where nothing is declared, and outside of a task.
    """
    if CONFIG_KEY_CALL not in configurable:
        return None
    config: RunnableConfig = {CONF: dict(configurable)}
    node = loop_of(config).nodes.get(node_of(node_config(config)) or "")
    found: set[str] = set()
    for writer in getattr(node, "writers", ()):
        for entry in getattr(writer, "writes", ()):
            if getattr(getattr(entry, "mapper", None), "__name__", "") == "_control_branch":
                found.update(branch_target(channel) or channel for channel, *_ in entry.static or ())
    return frozenset({*found, END}) if found else None


def task_id_of(config: RunnableConfig) -> str:
    """The id of the task that `config` belongs to."""
    return str(config[CONF][CONFIG_KEY_TASK_ID])


def writes_of(config: RunnableConfig) -> list[tuple[str, Any]]:
    """What has been written so far in the name of the task of `config`."""
    return list(config[CONF][CONFIG_KEY_SEND].__self__)


def send_writes(config: RunnableConfig, writes: Sequence[tuple[str, Any]]) -> None:
    """Write to channels in the name of the task of `config`."""
    config[CONF][CONFIG_KEY_SEND](list(writes))


def intercept_writes(config: RunnableConfig, channel: str) -> tuple[RunnableConfig, list[Any]]:
    """The config to run a function under, which from here on is the context's too, and what it writes to a channel
    besides what it answers. That is not written; what it writes to others is."""
    send, written = config[CONF][CONFIG_KEY_SEND], list[Any]()

    def intercept(writes: Sequence[tuple[str, Any]]) -> None:
        written.extend(value for key, value in writes if key == channel)
        if others := [(key, value) for key, value in writes if key != channel]:
            send(others)

    changed: RunnableConfig = {**config, "configurable": {**config[CONF], CONFIG_KEY_SEND: intercept}}
    set_current_config(changed)
    return changed, written


def send_index(config: RunnableConfig) -> int | None:
    """The number of the `Send`, among those pending, that started the task of `config`; None for a triggered one."""
    path = _path(config)
    return int(path[1]) if path and path[0] == PUSH else None


def _is_call(config: RunnableConfig) -> bool:
    """Whether the task of `config` is a `@task` that another task has called, and not a node's."""
    path = _path(config)
    return len(path) > 1 and path[0] == PUSH and isinstance(path[1], tuple)


def was_sent(config: RunnableConfig) -> bool:
    """Whether the task of `config` has the value of a `Send` for its input, and not the state."""
    return _path(config)[:1] == (PUSH,)


def is_update(config: RunnableConfig) -> bool:
    """Whether a writer runs for `update_state` and not for a task."""
    path = _path(config)
    return bool(path) and path[0] == INTERRUPT


def _path(config: RunnableConfig) -> tuple[Any, ...]:
    # Task metadata would say it too, but `update_state` inside a node inherits those of the node.
    return tuple(config[CONF][CONFIG_KEY_READ].args[-1].path)


def failed_node(config: RunnableConfig) -> str | None:
    """The failed node whose error handler runs as the task of `config`; None for any other task."""
    error = config[CONF].get(CONFIG_KEY_NODE_ERROR)
    return error.node if error else None


def updates_of(command: Command[Any]) -> Sequence[tuple[str, Any]]:
    """The update of a command as pairs of key and value."""
    return command._update_as_tuples()


def _without_tasks(namespace: str) -> str:
    """A checkpoint namespace without the ids of tasks."""
    return NS_SEP.join(part.split(NS_END)[0] for part in namespace.split(NS_SEP) if not part.isdigit())
