"""The door to LangGraph's private names for composition, beside `agentmatrix.pregel`.

Everything here is a name that LangGraph does not promise, or a few lines around one. `compose` takes them from here,
so that a new minor version of LangGraph is met in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph._internal._config import recast_checkpoint_ns
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CALL,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_NODE_ERROR,
    CONFIG_KEY_READ,
    CONFIG_KEY_SEND,
    INTERRUPT,
    NS_END,
    NS_SEP,
    PUSH,
    TASKS,
)
from langgraph._internal._runnable import RunnableCallable, coerce_to_runnable
from langgraph._internal._typing import MISSING
from langgraph.channels.base import BaseChannel
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import ParentCommand
from langgraph.pregel import Pregel
from langgraph.pregel._utils import _runnable_has_native_async
from langgraph.pregel._write import ChannelWrite, ChannelWriteEntry, ChannelWriteTupleEntry
from langgraph.pregel.protocol import PregelProtocol
from langgraph.types import Command

__all__ = [
    "AnyGraph",
    "ERROR_HANDLER",
    "Compiled",
    "Graph",
    "MISSING",
    "Mapper",
    "PregelProtocol",
    "RESERVED_CHARACTERS",
    "TASKS",
    "add_channel",
    "answer_mappers",
    "at_node",
    "command_for_node",
    "failed_node",
    "hide_node",
    "is_native_async",
    "is_update",
    "namespace_of",
    "node_of",
    "node_runnable",
    "packet_of",
    "parent_node_of",
    "read_channel",
    "rebuilt",
    "register_writer",
    "replace_bound",
    "send_writes",
    "set_stream_channels",
    "stand_in",
    "sync_async",
    "trigger_of",
    "updates_of",
    "write_channel",
]

Mapper = Callable[[Any], Sequence[tuple[str, Any]] | None]
Graph = Pregel[Any, Any, Any, Any]
AnyGraph = PregelProtocol[Any, Any, Any, Any]
Compiled = TypeVar("Compiled", bound=Graph)

# What the names of the nodes that LangGraph makes of error handlers have in common.
ERROR_HANDLER = "error_handler__"
RESERVED_CHARACTERS = (NS_SEP, NS_END)


def stand_in(
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
    if not _runnable_has_native_async(agent):
        runnable: Runnable[Any, Any] = coerce_to_runnable(call, name=name or agent.get_name(), trace=False)
        return runnable
    return RunnableCallable(call, acall, name=name or agent.get_name(), trace=False, recurse=False)


def node_runnable(agent: Any, name: str) -> Runnable[Any, Any]:
    """The Runnable that `add_node` would make of a function or Runnable."""
    return coerce_to_runnable(agent, name=name, trace=False)


def namespace_of(config: RunnableConfig) -> str:
    """The checkpoint namespace of the task that `config` belongs to: `"panel:<id>|optimist:<id>"`."""
    return str(config.get(CONF, {}).get(CONFIG_KEY_CHECKPOINT_NS, ""))


def _node_at(config: RunnableConfig, depth: int) -> str | None:
    parts = namespace_of(config).split(NS_SEP)
    return parts[-depth].split(NS_END)[0] or None if len(parts) >= depth else None


def node_of(config: RunnableConfig) -> str | None:
    """The name of the node whose task `config` belongs to."""
    return _node_at(config, 1)


def parent_node_of(config: RunnableConfig) -> str | None:
    """The name of the node, in the parent graph, that the graph of this task stands in; None at the top."""
    return _node_at(config, 2)


def at_node(config: RunnableConfig) -> RunnableConfig:
    """The config of the node that the task of `config` works for: its own, or that of the node that has called it.

    Raises:
        KeyError: that node was called off.
    """
    if not _is_call(config):
        return config
    tasks = config[CONF][CONFIG_KEY_CALL].keywords["schedule_task"].__self__.tasks
    while _is_call(config):
        config = tasks[namespace_of(config).split(NS_SEP)[-2].partition(NS_END)[2]].config
    return config


def rebuilt(graph: Graph, kind: type[Compiled]) -> Compiled:
    """The same compiled graph as an object of another class, with nodes and channels of its own."""
    other = kind.__new__(kind)
    other.__dict__.update(graph.__dict__)
    other.nodes = {name: node.copy({}) for name, node in graph.nodes.items()}
    other.channels = dict(graph.channels)
    return other


def add_channel(graph: Graph, name: str, channel: BaseChannel[Any, Any, Any]) -> None:
    """Give the compiled graph a channel that no schema, stream, snapshot or drawing shows."""
    graph.channels = {name: channel, **graph.channels}


def read_channel(config: RunnableConfig, channel: str | list[str]) -> Any:
    """The value of one channel, or of several by name, as it was when the task of `config` started."""
    return config[CONF][CONFIG_KEY_READ](channel)


def write_channel(graph: Graph, node: str, channel: str, value: Any) -> None:
    """Let `node` write `value` to `channel` each time it runs, besides its own writes."""
    writer = ChannelWrite((ChannelWriteEntry(channel, value),))
    graph.nodes[node] = graph.nodes[node].copy({"writers": [writer, *graph.nodes[node].writers]})


def hide_node(graph: Graph, node: str) -> None:
    """Keep the updates and tasks of `node` out of the graph's streams, as those of START are."""
    graph.nodes[node].tags = [*(graph.nodes[node].tags or ()), TAG_HIDDEN]


def replace_bound(
    graph: Graph,
    node: str,
    bound: Runnable[Any, Any],
    subgraphs: Sequence[AnyGraph],
) -> None:
    """Give `node` another Runnable, and say which graphs run inside it."""
    graph.nodes[node] = graph.nodes[node].copy({"bound": bound, "subgraphs": list(subgraphs)})


def command_for_node(error: ParentCommand, config: RunnableConfig) -> Command[Any] | None:
    """The command that a graph inside the node of `config` has sent to the graph around it, or None if it is meant
    for a graph further out."""
    namespace = namespace_of(config)
    command: Command[Any] = error.args[0]
    here = (namespace, recast_checkpoint_ns(namespace), node_of(config))
    return command if command.graph in here else None


def set_stream_channels(graph: Graph, channels: Sequence[str]) -> None:
    """Show only these channels in streams and snapshots."""
    graph.stream_channels = list(channels)


def updates_of(command: Command[Any]) -> Sequence[tuple[str, Any]]:
    """The update of a command as pairs of key and value."""
    return command._update_as_tuples()


def sync_async(
    call: Callable[..., Any],
    acall: Callable[..., Awaitable[Any]] | None = None,
    *,
    name: str,
    trace: bool = False,
) -> Runnable[Any, Any]:
    """A Runnable over two functions that leaves no run of its own in traces, or does."""
    return RunnableCallable(call, acall, name=name, trace=trace, recurse=False)


def register_writer(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Mark a Runnable as one that writes to channels, so that LangGraph runs it after the node's own work."""
    return ChannelWrite.register_writer(runnable)


def answer_mappers(graph: Graph, node: str) -> tuple[Mapper, Mapper]:
    """How LangGraph reads what `node` returns: as pairs of key and value, and as commands to go somewhere."""
    writer = next(w for w in graph.nodes[node].writers if isinstance(w, ChannelWrite))
    update, control = (entry.mapper for entry in writer.writes if isinstance(entry, ChannelWriteTupleEntry))
    return update, control


def send_writes(config: RunnableConfig, writes: Sequence[tuple[str, Any]]) -> None:
    """Write to channels in the name of the task of `config`."""
    config[CONF][CONFIG_KEY_SEND](list(writes))


def packet_of(config: RunnableConfig) -> int | None:
    """The number of the packet, among those pending, that started the task of `config`; None for a triggered one."""
    path = _path(config)
    return int(path[1]) if path and path[0] == PUSH else None


def _is_call(config: RunnableConfig) -> bool:
    """Whether the task of `config` is one that another task has called, and no node's."""
    path = _path(config)
    return len(path) > 1 and path[0] == PUSH and isinstance(path[1], tuple)


def is_update(config: RunnableConfig) -> bool:
    """Whether a writer runs for `update_state` and not for a task."""
    path = _path(config)
    return bool(path) and path[0] == INTERRUPT


def _path(config: RunnableConfig) -> tuple[Any, ...]:
    # Task metadata would say it too, but `update_state` inside a node inherits those of the node.
    return tuple(config[CONF][CONFIG_KEY_READ].args[-1].path)


def failed_node(config: RunnableConfig) -> str | None:
    """The node that the error handler of `config` answers for."""
    error = config[CONF].get(CONFIG_KEY_NODE_ERROR)
    return error.node if error else None


def trigger_of(node: str) -> str:
    """The channel that LangGraph calls a node by."""
    return f"branch:to:{node}"


def is_native_async(runnable: Runnable[Any, Any]) -> bool:
    """Whether `ainvoke` of a Runnable is its own and not `invoke` in a thread."""
    return bool(_runnable_has_native_async(runnable))
