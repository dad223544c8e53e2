"""The door to LangGraph's private names for chat groups: one task of a graph that stands for several nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CALL,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_RESUMING,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_SEND,
    CONFIG_KEY_TASK_ID,
    NS_END,
    NS_SEP,
    PULL,
)
from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import GraphInterrupt
from langgraph.runtime import ExecutionInfo, Runtime
from langgraph.types import Interrupt

from agentmatrix.pregel.compiled_graph import namespace_of, trigger_of

__all__ = ["Activation", "RunningGraph", "asked_again"]

# No channel of a graph: LangGraph saves and loads what is written to it, and leaves it alone.
_KEPT = "agentmatrix:kept"
_PLAIN = frozenset({"values", "updates"})


class Activation(NamedTuple):
    """One run of a node inside the task of another."""

    run: RunningGraph
    node: str
    id: str

    @property
    def namespace(self) -> str:
        """The checkpoint namespace that it runs in."""
        return f"{self.run.space}{self.node}{NS_END}{self.id}"

    def enter(self) -> RunnableConfig:
        """The config to run under, which from here on is the context's too."""
        config = self.run.config_of(self)
        var_child_runnable_config.set(config)
        return config


class RunningGraph:
    """The run of a graph, as seen from a task of one of its nodes.

    Args:
        config: the config of the task.
    """

    def __init__(self, config: RunnableConfig) -> None:
        self._config = config
        # The one thing in a task's config that knows the loop is the function by which tasks start others.
        self.loop: Any = config[CONF][CONFIG_KEY_CALL].keywords["schedule_task"].__self__

    @property
    def saves(self) -> bool:
        """Whether the run has a checkpointer."""
        return self.loop.checkpointer is not None

    @property
    def breakpoints(self) -> list[str]:
        """The nodes that the run pauses before or after."""
        return [*(self.loop.interrupt_before or ()), *(self.loop.interrupt_after or ())]

    @cached_property
    def is_watched(self) -> bool:
        """Whether callbacks or a stream follow each run of a node."""
        modes = self._modes
        return bool(self.loop.manager and self.loop.manager.handlers) or not modes <= _PLAIN

    @property
    def is_followed(self) -> bool:
        """Whether somebody waits for what each node answers; those who want the values too, as `invoke` does, need not
        have it before the step ends."""
        return self.is_watched or self._modes == {"updates"}

    @cached_property
    def _modes(self) -> frozenset[str]:
        return frozenset(self.loop.stream.modes if self.loop.stream else ())

    @property
    def kept(self) -> list[Any]:
        """What was kept by this task before the run was killed, or failed."""
        return [value for _, channel, value in self.loop.checkpoint_pending_writes if channel == _KEPT]

    def keep(self, id: str, values: Sequence[Any]) -> None:
        """Save values beside the checkpoint, as results of finished tasks are saved, until the task is over.

        Args:
            id: of an activation that was not given before.
            values: what the saver takes.
        """
        self.loop.put_writes(id, [(_KEPT, value) for value in values])

    def at_exit(self, stop: Callable[[], Any]) -> None:
        """Call `stop` when the run ends, in whatever way; in an async run it is awaited."""
        stack = self.loop.stack
        (getattr(stack, "push_async_callback", None) or stack.callback)(stop)

    @cached_property
    def space(self) -> str:
        """What the namespaces of all nodes of the graph begin with."""
        return "".join(f"{part}{NS_SEP}" for part in namespace_of(self._config).split(NS_SEP)[:-1])

    @cached_property
    def _common(self) -> tuple[RunnableConfig, dict[str, Any], dict[str, Any], dict[str, Any]]:
        """What all activations of a task have in common: config, metadata, runtime, execution info."""
        config, runtime = self._config, self._config[CONF][CONFIG_KEY_RUNTIME]
        tags = [tag for tag in config.get("tags") or () if tag != TAG_HIDDEN]
        shared: RunnableConfig = {**config, "tags": tags, "callbacks": None}
        shared.pop("run_id", None)
        return shared, config.get("metadata", {}), _fields_of(runtime), _fields_of(runtime.execution_info)

    def config_of(self, activation: Activation) -> RunnableConfig:
        """A config with a namespace, metadata and counters of the activation's own."""
        loop, (shared, metadata, runtime, info) = self.loop, self._common
        node, namespace = activation.node, activation.namespace
        info = {**info, "task_id": activation.id, "checkpoint_ns": namespace}
        own = {
            CONFIG_KEY_TASK_ID: activation.id,
            CONFIG_KEY_CHECKPOINT_NS: namespace,
            CONFIG_KEY_SEND: deque[Any]().extend,
            CONFIG_KEY_SCRATCHPAD: _scratchpad(loop.step, loop.stop),
            CONFIG_KEY_RUNTIME: Runtime(**{**runtime, "execution_info": ExecutionInfo(**info)}),
        }
        told = {
            "langgraph_node": node,
            "langgraph_triggers": (trigger_of(node),),
            "langgraph_path": (PULL, node),
            "langgraph_checkpoint_ns": namespace,
        }
        both: dict[str, Any] = {"metadata": {**metadata, **told}, "configurable": {**shared[CONF], **own}}
        made: RunnableConfig = {**shared, "run_name": node, **both}  # type: ignore[typeddict-item]
        if self.is_watched:
            made["callbacks"] = loop.manager.get_child(f"graph:step:{loop.step}")
        return made

    def show_begin(self, activation: Activation, given: Any) -> None:
        """Stream that a node has begun."""
        task = {"id": activation.id, "name": activation.node, "input": given}
        self._show_task({**task, "triggers": (trigger_of(activation.node),)})

    def show_end(self, activation: Activation, update: Mapping[str, Any]) -> None:
        """Stream what a node has answered."""
        if "updates" in self._modes:
            self._show_update(activation.node, update)
        if self._modes <= _PLAIN:
            return
        result = {key: value for key, value in update.items() if key in self.loop.output_keys}
        self._show_task(
            {"id": activation.id, "name": activation.node, "error": None, "result": result, "interrupts": []}
        )

    def _show_task(self, payload: dict[str, Any]) -> None:
        self.loop._emit("tasks", iter, [payload])

    def _show_update(self, node: str, update: Mapping[str, Any]) -> None:
        keys = self.loop.output_keys
        if isinstance(keys, str):
            shown = update.get(keys)
        else:
            shown = {key: value for key, value in update.items() if key in keys} or None
        self.loop.stream((self.loop.checkpoint_ns, "updates", {node: shown}))


def _fields_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass: `dataclasses.replace` looks for them each time, which costs more than the copy."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _scratchpad(step: int, stop: int) -> PregelScratchpad:
    """The counters of a node that has not been asked anything."""
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


def asked_again(config: RunnableConfig, namespace: str, values: Sequence[Any], *, inside: bool) -> RunnableConfig:
    """The config to go on under, for a node that has asked in another task before.

    Args:
        config: the config of the task that takes over.
        namespace: the one that the node ran in.
        values: what it asked.
        inside: whether a graph inside the node asked, which goes on from its own checkpoints.

    Raises:
        GraphInterrupt: the question, as long as there is no answer.
    """
    if inside:
        changed = {CONFIG_KEY_CHECKPOINT_NS: namespace, CONFIG_KEY_RESUMING: True}
        return {**config, "configurable": {**config[CONF], **changed}}
    scratchpad = config[CONF][CONFIG_KEY_SCRATCHPAD]
    if not scratchpad.resume and scratchpad.get_null_resume(False) is None:
        raise GraphInterrupt([Interrupt.from_ns(value, ns=namespace_of(config)) for value in values])
    return config
