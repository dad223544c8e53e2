"""One task of a graph that stands for several nodes: chat groups run many turns in it.

`LoopHandle` looks at LangGraph's loop from inside a task. Its methods may be called from the threads of those turns:
each reads the loop, or hands something to a queue of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_RESUMING,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_SEND,
    CONFIG_KEY_TASK_ID,
    INTERRUPT,
    NS_END,
    NS_SEP,
    PULL,
)
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import GraphInterrupt
from langgraph.runtime import ExecutionInfo, Runtime
from langgraph.types import Interrupt

from agentmatrix.pregel.compiled_graph import branch_channel
from agentmatrix.pregel.config_values import new_scratchpad, set_current_config
from agentmatrix.pregel.node_handler import NodeHandler, node_handlers, other_handlers
from agentmatrix.pregel.pending_writes import SAVED
from agentmatrix.pregel.task_config import loop_of, namespace_of

__all__ = ["LoopHandle", "VirtualTask", "reraise_interrupt", "seconds_since_question"]

_PLAIN = frozenset({"values", "updates"})


class VirtualTask(NamedTuple):
    """One run of a node inside the task of another node."""

    run: LoopHandle
    node: str
    id: str
    beside: deque[tuple[str, Any]]
    """What the node writes besides what it answers: key and value."""

    @property
    def namespace(self) -> str:
        """The checkpoint namespace that it runs in."""
        return f"{self.run.namespace_prefix}{self.node}{NS_END}{self.id}"

    def enter(self) -> RunnableConfig:
        """The config to run under, which from here on is the context's too."""
        config = self.run.config_of(self)
        set_current_config(config)
        return config


class LoopHandle:
    """LangGraph's loop, as seen from a task that runs in it.

    Args:
        config: the config of the task.
    """

    def __init__(self, config: RunnableConfig) -> None:
        self._config = config
        self.loop: Any = loop_of(config)

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return str(self._config[CONF][CONFIG_KEY_TASK_ID])

    @property
    def has_checkpointer(self) -> bool:
        """Whether the run has a checkpointer."""
        return self.loop.checkpointer is not None

    @property
    def breakpoints(self) -> list[str]:
        """The nodes that the run pauses before or after."""
        return [*(self.loop.interrupt_before or ()), *(self.loop.interrupt_after or ())]

    @cached_property
    def is_watched(self) -> bool:
        """Whether callbacks or a stream follow each run of a node."""
        return bool(self.loop.manager and other_handlers(self.loop.manager)) or not self._modes <= _PLAIN

    @cached_property
    def node_handlers(self) -> list[NodeHandler]:
        """The handlers that are told of nodes without a run for each."""
        return [] if self.is_watched else node_handlers(self.loop.manager)

    @property
    def is_followed(self) -> bool:
        """Whether the answer of each node must be shown at once. Where the values are asked for too, as `invoke` does,
        the end of the step is early enough."""
        return self.is_watched or self._modes == {"updates"}

    @cached_property
    def _modes(self) -> frozenset[str]:
        return frozenset(self.loop.stream.modes if self.loop.stream else ())

    @property
    def pending_writes(self) -> list[tuple[str, str, Any]]:
        """What finished tasks of the step have written: node, channel and value."""
        nodes = {id: task.name for id, task in self.loop.tasks.items()}
        return [(nodes[id], channel, value) for id, channel, value in self._pending() if id in nodes]

    @property
    def other_tasks(self) -> set[str]:
        """The nodes at work in the same step."""
        return {task.name for task in self.loop.tasks.values() if task.id != self.task_id}

    @property
    def saved(self) -> list[Any]:
        """What this task saved before the run was killed, or failed; nothing where a checkpoint of the past is run
        from again, beside which all lies that was saved then."""
        if self.loop.is_replaying:
            return []
        return [value for _, channel, value in self._pending() if channel == SAVED]

    def _pending(self) -> list[tuple[str, str, Any]]:
        # Our own loop takes the list away, under its lock, while it adds to it.
        with getattr(self.loop, "lock", None) or nullcontext():
            return list(self.loop.checkpoint_pending_writes)

    def save(self, id: str, values: Sequence[Any]) -> Any:
        """Save values beside the checkpoint, as results of finished tasks are saved, until the task is over.

        Args:
            id: of a virtual task that has saved nothing yet.
            values: values that the checkpointer takes.

        Returns:
            Under durability "sync" the future of the checkpointer, which nothing that follows is to overtake.
        """
        self.loop.put_writes(id, [(SAVED, value) for value in values])
        return getattr(self.loop, "saved", {}).get(id)

    def when_saved(self, then: Callable[[], None]) -> None:
        """Call `then` once the checkpoint that the task started from is saved; at once where nothing is saved before
        the run ends."""
        saving = getattr(self.loop, "_put_checkpoint_fut", None)
        if saving is None or self.loop.durability == "exit":
            then()
        else:
            saving.add_done_callback(lambda done: None if done.cancelled() or done.exception() else then())

    def at_exit(self, stop: Callable[[], Any]) -> None:
        """Call `stop` when the run ends, in whatever way; in an async run it is awaited."""
        stack = self.loop.stack
        (getattr(stack, "push_async_callback", None) or stack.callback)(stop)

    @cached_property
    def namespace_prefix(self) -> str:
        """What the namespaces of all nodes of the graph begin with."""
        return "".join(f"{part}{NS_SEP}" for part in namespace_of(self._config).split(NS_SEP)[:-1])

    @cached_property
    def _common(self) -> tuple[RunnableConfig, dict[str, Any], dict[str, Any], dict[str, Any]]:
        """What all virtual tasks have in common: config, metadata, runtime, execution info."""
        config, runtime = self._config, self._config[CONF][CONFIG_KEY_RUNTIME]
        tags = [tag for tag in config.get("tags") or () if tag != TAG_HIDDEN]
        callbacks = self.loop.manager.get_child() if self.node_handlers else []
        shared: RunnableConfig = {**config, "tags": tags, "callbacks": callbacks}
        shared.pop("run_id", None)
        return shared, config.get("metadata", {}), _fields_of(runtime), _fields_of(runtime.execution_info)

    def config_of(self, task: VirtualTask) -> RunnableConfig:
        """A config with a namespace, metadata and counters of the task's own."""
        loop, (shared, metadata, runtime, info) = self.loop, self._common
        node, namespace = task.node, task.namespace
        info = {**info, "task_id": task.id, "checkpoint_ns": namespace}
        own = {
            CONFIG_KEY_TASK_ID: task.id,
            CONFIG_KEY_CHECKPOINT_NS: namespace,
            CONFIG_KEY_SEND: task.beside.extend,
            CONFIG_KEY_SCRATCHPAD: new_scratchpad(loop.step, loop.stop),
            CONFIG_KEY_RUNTIME: Runtime(**{**runtime, "execution_info": ExecutionInfo(**info)}),
        }
        told = {
            "langgraph_node": node,
            "langgraph_triggers": (branch_channel(node),),
            "langgraph_path": (PULL, node),
            "langgraph_checkpoint_ns": namespace,
        }
        both: dict[str, Any] = {"metadata": {**metadata, **told}, "configurable": {**shared[CONF], **own}}
        made: RunnableConfig = {**shared, "run_name": node, **both}  # type: ignore[typeddict-item]
        if self.is_watched:
            made["callbacks"] = loop.manager.get_child(f"graph:step:{loop.step}")
        return made

    def tell_start(self, task: VirtualTask, given: Any) -> None:
        """Tell the handlers of nodes that a node begins with the input `given`."""
        for handler in self.node_handlers:
            handler.on_node_start(task.namespace, self.loop.manager.run_id, given)

    def tell_end(self, task: VirtualTask, outcome: Any) -> None:
        """Tell the handlers of nodes what a node has answered, or raised."""
        if isinstance(outcome, GraphInterrupt):
            outcome = GraphInterrupt(())  # It is asked again, in a task of the node's own.
        for handler in self.node_handlers:
            if isinstance(outcome, BaseException):
                handler.on_node_error(task.namespace, outcome)
            else:
                handler.on_node_end(task.namespace, outcome)

    def emit_start(self, task: VirtualTask, given: Any) -> None:
        """Stream that a node has started with the input `given`."""
        started = {"id": task.id, "name": task.node, "input": given, "triggers": (branch_channel(task.node),)}
        self._emit_task(started)

    def emit_end(self, task: VirtualTask, update: Mapping[str, Any]) -> None:
        """Stream what a node has answered."""
        if "updates" in self._modes:
            self._emit_update(task.node, update)
        if self._modes <= _PLAIN:
            return
        result = {key: value for key, value in update.items() if key in self.loop.output_keys}
        self._emit_task({"id": task.id, "name": task.node, "error": None, "result": result, "interrupts": []})

    def _emit_task(self, payload: dict[str, Any]) -> None:
        self.loop._emit("tasks", iter, [payload])

    def _emit_update(self, node: str, update: Mapping[str, Any]) -> None:
        keys = self.loop.output_keys
        if isinstance(keys, str):
            shown = update.get(keys)
        else:
            shown = {key: value for key, value in update.items() if key in keys} or None
        self.loop.stream((self.loop.checkpoint_ns, "updates", {node: shown}))


def _fields_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass: `dataclasses.replace` looks for them each time, which costs more than the copy."""
    return {name: getattr(record, name) for name in _names_of_fields(record.__class__)}


@cache
def _names_of_fields(kind: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))  # type: ignore[arg-type]


def seconds_since_question(config: RunnableConfig) -> float | None:
    """How long ago, about, the node of `config` has asked a question that has no answer yet: the time since its
    checkpoint. None if it asks none, or an answer has come."""
    if _has_answer(config):
        return None
    loop = loop_of(config)
    own = config[CONF][CONFIG_KEY_TASK_ID]
    if not any(id == own and channel == INTERRUPT for id, channel, _ in loop.checkpoint_pending_writes):
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(loop.checkpoint["ts"])).total_seconds()


def _has_answer(config: RunnableConfig) -> bool:
    scratchpad = config[CONF][CONFIG_KEY_SCRATCHPAD]
    return bool(scratchpad.resume) or scratchpad.get_null_resume(False) is not None


def reraise_interrupt(config: RunnableConfig, namespace: str, values: Sequence[Any], *, inside: bool) -> RunnableConfig:
    """The config to go on under, for a node that was interrupted in another task before.

    Args:
        config: the config of the task that takes over.
        namespace: the checkpoint namespace that the node ran in.
        values: the values of its interrupts.
        inside: whether a graph inside the node was interrupted, which goes on from its own checkpoints.

    Raises:
        GraphInterrupt: the same interrupts, as long as there is no resume value.
    """
    if inside:
        changed = {CONFIG_KEY_CHECKPOINT_NS: namespace, CONFIG_KEY_RESUMING: True}
        return {**config, "configurable": {**config[CONF], **changed}}
    if not _has_answer(config):
        raise GraphInterrupt([Interrupt.from_ns(value, ns=namespace_of(config)) for value in values])
    return config
