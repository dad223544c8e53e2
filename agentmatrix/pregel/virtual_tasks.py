"""One task of a graph that stands for several nodes: chat groups run many turns in it.

`LoopHandle` looks at LangGraph's loop from inside a task. Its methods may be called from the threads of those turns:
each reads the loop, or hands something to a queue of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CALL,
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
from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import GraphInterrupt
from langgraph.runtime import ExecutionInfo
from langgraph.types import Interrupt

from agentmatrix.pregel.compiled_graph import branch_channel
from agentmatrix.pregel.config_values import new_scratchpad, set_current_config
from agentmatrix.pregel.function_tasks import FunctionTasks, TaskCalls
from agentmatrix.pregel.node_handler import NodeHandler, node_handlers, other_handlers
from agentmatrix.pregel.pending_writes import RETURNED, SAVED
from agentmatrix.pregel.task_config import loop_of, namespace_of

__all__ = ["LoopHandle", "VirtualTask", "reraise_interrupt", "seconds_since_question"]

Record = TypeVar("Record")

_PLAIN = frozenset({"values", "updates"})


class VirtualTask(NamedTuple):
    """One run of a node inside the task of another node."""

    run: LoopHandle
    node: str
    id: str
    beside: list[tuple[str, Any]]
    """What the node writes besides what it answers: key and value."""
    calls: TaskCalls | None = None
    """What it calls by `@task`, where it may outlive the task that it began in; None for LangGraph's own way."""

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

    @property
    def is_streamed(self) -> bool:
        """Whether anything but the result of the run is read while it goes on."""
        return bool(getattr(self.loop, "shows_parts", True))

    @cached_property
    def streams_nodes(self) -> bool:
        """Whether the answer of a node is streamed by itself."""
        return not self._modes <= {"values"}

    @cached_property
    def _modes(self) -> frozenset[str]:
        modes = frozenset(self.loop.stream.modes if self.loop.stream else ())
        # `invoke` asks for updates to find interrupts among them, which members of a group do not stream.
        return modes if self.is_streamed else modes - {"updates"}

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
        with self._lock:
            return list(self.loop.checkpoint_pending_writes)

    @property
    def _lock(self) -> Any:
        return getattr(self.loop, "lock", None) or nullcontext()

    def change(self, change: Callable[[], Any]) -> Any:
        """Make a change of the loop, from a task that runs in it. Returns what `change` does."""
        with self._lock:
            return change()

    async def achange(self, change: Callable[[], Any]) -> Any:
        """The same as `change`, async."""
        return self.change(change)

    def calls(self, functions: FunctionTasks, node: str) -> TaskCalls:
        """What one run of a node calls by `@task`, where it may outlive the task, or takes up one that did.

        Args:
            functions: run the calls.
            node: the node.
        """
        kept = self._returned.get(functions.id_of(node), {}) if self._returned else {}
        return TaskCalls(functions, self.loop, node, kept, is_kept=self.has_checkpointer)

    @cached_property
    def _returned(self) -> dict[str, dict[str, Any]]:
        """By id of the task, what its calls of `@task` had returned before the run was killed, or paused."""
        returned: dict[str, dict[str, Any]] = {}
        for _, channel, value in () if self.loop.is_replaying else self._pending():
            if channel == RETURNED:
                id, part, result = value
                returned.setdefault(id, {})[part] = result
        return returned

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
    def _common(
        self,
    ) -> tuple[RunnableConfig, dict[str, Any], _Records[Any], _Records[ExecutionInfo], _Records[PregelScratchpad]]:
        """What all virtual tasks have in common: config, metadata, runtime, execution info, scratchpad."""
        config = self._config
        runtime = config[CONF][CONFIG_KEY_RUNTIME]
        tags = [tag for tag in config.get("tags") or () if tag != TAG_HIDDEN]
        callbacks = self.loop.manager.get_child() if self.node_handlers else []
        shared: RunnableConfig = {**config, "tags": tags, "callbacks": callbacks}
        shared.pop("run_id", None)
        scratchpad = new_scratchpad(self.loop.step, self.loop.stop)
        return (
            shared,
            config.get("metadata", {}),
            _Records(runtime, "execution_info"),
            _Records(runtime.execution_info, "task_id", "checkpoint_ns"),
            _Records(scratchpad, "call_counter", "interrupt_counter", "subgraph_counter", "resume"),
        )

    def config_of(self, task: VirtualTask) -> RunnableConfig:
        """A config with a namespace, metadata and counters of the task's own."""
        shared, metadata, runtimes, infos, scratchpads = self._common
        node, namespace = task.node, task.namespace
        configurable = {
            **shared[CONF],
            CONFIG_KEY_TASK_ID: task.id,
            CONFIG_KEY_CHECKPOINT_NS: namespace,
            CONFIG_KEY_SEND: task.beside.extend,
            CONFIG_KEY_SCRATCHPAD: scratchpads.made(count().__next__, count().__next__, count().__next__, []),
            CONFIG_KEY_RUNTIME: runtimes.made(infos.made(task.id, namespace)),
        }
        if task.calls is not None:
            configurable[CONFIG_KEY_CALL] = task.calls.function(configurable[CONFIG_KEY_CALL])
        about = {
            **metadata,
            "langgraph_node": node,
            "langgraph_triggers": (branch_channel(node),),
            "langgraph_path": (PULL, node),
            "langgraph_checkpoint_ns": namespace,
        }
        made: RunnableConfig = {**shared, "run_name": node, "metadata": about, "configurable": configurable}
        if self.is_watched:
            made["callbacks"] = self.loop.manager.get_child(f"graph:step:{self.loop.step}")
        return made

    def tell_start(self, task: VirtualTask, given: Any) -> None:
        """Tell the handlers of nodes that a node begins with the input `given`."""
        for handler in self.node_handlers:
            handler.on_node_start(task.namespace, self.loop.manager.run_id, given)

    def tell_end(self, task: VirtualTask, outcome: Any) -> None:
        """Tell the handlers of nodes what a node has answered, or raised."""
        for handler in self.node_handlers:
            if isinstance(outcome, GraphInterrupt):
                outcome = GraphInterrupt(())  # It is asked again, in a task of the node's own.
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


class _Records(Generic[Record]):
    """Makes records like one, a frozen dataclass with slots: `dataclasses.replace` takes four times as long.

    Args:
        record: the record.
        names: the fields in which they differ.
    """

    def __init__(self, record: Record, *names: str) -> None:
        self._kind = kind = type(record)
        self._same = [
            (getattr(kind, field.name).__set__, getattr(record, field.name))
            for field in fields(cast(Any, record))
            if field.name not in names
        ]
        self._other = [getattr(kind, name).__set__ for name in names]

    def made(self, *values: Any) -> Record:
        """One with these values of the fields in which they differ."""
        made = object.__new__(self._kind)
        for put, value in self._same:
            put(made, value)
        for put, value in zip(self._other, values, strict=True):
            put(made, value)
        return made


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
