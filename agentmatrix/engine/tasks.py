"""The tasks of a step, as LangGraph makes them, over the channels that an activation sees.

The id of a task depends on the checkpoint that its step began with and on the activation, never on the order of
starting. So the tasks of a step can be made again from the checkpoint and the writes beside it.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from langchain_core.runnables import RunnableConfig
from langgraph.channels.base import BaseChannel
from langgraph.types import Send

from agentmatrix.engine.channels import RUN
from agentmatrix.pregel.execution import (
    CONF,
    CONFIG_KEY_RESUMING,
    CONTROL_WRITES,
    NULL_TASK_ID,
    PULL,
    PUSH,
    RESUME,
    TASKS,
    Task,
    is_default_key,
    null_version,
    prepare_node_error_handler_task,
    prepare_single_task,
    raising,
    with_cache_key,
)
from agentmatrix.pregel.task_template import TaskStart, TaskTemplates
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.state import Channels

__all__ = ["PendingWrites", "TaskFactory", "TaskIds"]

PendingWrites = list[tuple[str, str, Any]]


class ConstantChannel(BaseChannel[Any, Any, Any]):
    """A channel of one task: its trigger, its `Send`, its activation."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        super().__init__(Any)
        self.value = value

    @property
    def ValueType(self) -> Any:
        return Any

    @property
    def UpdateType(self) -> Any:
        return Any

    def get(self) -> Any:
        return self.value

    def is_available(self) -> bool:
        return True

    def copy(self) -> Self:
        return self

    def from_checkpoint(self, checkpoint: Any) -> Self:
        return self

    def update(self, values: Sequence[Any]) -> bool:
        return False


class SparseSends(Sequence[Send]):
    """One `Send` at its number: LangGraph looks it up so among those that are pending."""

    def __init__(self, position: int, send: Send) -> None:
        self.position, self.send = position, send

    def __len__(self) -> int:
        return self.position + 1

    def __getitem__(self, position: Any) -> Any:
        return self.send


_TRIGGERED = ConstantChannel()


class TaskIds(NamedTuple):
    """What the ids of tasks are made from: they stay the same over the pauses of a step, since questions, answers and
    nested graphs are kept under them.

    Attributes:
        checkpoint_id: the checkpoint that the step began with.
        step: the number of that step.
    """

    checkpoint_id: str
    step: int


class TaskFactory:
    """Makes the tasks of one step.

    Args:
        ids: what their ids are made from.
        checkpoint: the checkpoint that the run stands at.
        pending: the writes beside it.
        nodes: the nodes of the graph.
        managed: its managed values.
        config: the config of the run.
        stop: the number of the last step.
        options: store, checkpointer, manager, retry_policy and cache_policy, as LangGraph's function takes them.
        templates: those of the run.
        view: what an activation sees.
        given: by label of its sources, what they have delivered to an activation.
        level: how many levels of activations of this step come before an activation.
        node_of: see `Topology.node_of`.
    """

    def __init__(
        self,
        ids: TaskIds,
        checkpoint: Mapping[str, Any],
        pending: Iterable[tuple[str, str, Any]],
        nodes: Mapping[str, Any],
        managed: Any,
        config: RunnableConfig,
        stop: int,
        options: Mapping[str, Any],
        templates: TaskTemplates,
        *,
        view: Callable[[ScheduledActivation], Channels],
        given: Callable[[ScheduledActivation], dict[str, Any]],
        level: Callable[[ScheduledActivation], int],
        node_of: Callable[[str], str],
    ) -> None:
        self.ids, self.config, self._templates = ids, config, templates
        self._id_bytes = binascii.unhexlify(ids.checkpoint_id.replace("-", ""))
        # Of what is pending LangGraph reads nothing else for a task, and it reads all of it for each.
        self.control: PendingWrites = [write for write in pending if write[1] in CONTROL_WRITES]
        self._for_those_at_work, self._had_answer = self.control, False
        self._nodes, self._view, self._given, self._level = nodes, view, given, level
        self._node_of = node_of
        self._options: dict[str, Any] = {
            **options,
            "checkpoint": {**checkpoint, "versions_seen": {}},
            "managed": managed,
            "processes": nodes,
            "stop": stop,
        }
        self._common = self._common_of_tasks()

    def _common_of_tasks(self) -> dict[str, Any]:
        return {
            **self._options,
            "checkpoint_null_version": null_version(self._options["checkpoint"]),
            "pending_writes": self.control,
            "config": self.config,
            "for_execution": True,
        }

    def task(self, activation: ScheduledActivation) -> Task:
        """The task of an activation, as LangGraph makes it."""
        common, activated = self._common, ConstantChannel((activation, self._given))
        channels: dict[str, Any] = {RUN: activated}
        path: tuple[Any, ...] = (PULL, activation.node)
        if activation.message is None:
            channels = {**self._view(activation), RUN: activated}
        # Otherwise it reads a state of its own.
        if (node := self._nodes.get(activation.node)) is None:
            # An actor or a member: to LangGraph it is a node of its own.
            node = self._node(activation.node)
            common = {**common, "processes": {activation.node: node}}
        if activation.send is None:
            channels[node.triggers[0]] = _TRIGGERED
        else:
            path = (PUSH, activation.position)
            channels[TASKS] = ConstantChannel(SparseSends(activation.position, activation.send))
        step = self.ids.step + self._level(activation)
        start = TaskStart(path, self._id_bytes + activation.name.encode(), step, channels)
        task = self._templates.prepare(start, common)
        assert task is not None, activation
        activation.task_id = task.id
        if task.cache_key is not None and activation.group is not None:
            task = self._cached_by_group(task, activation)
        return task if activation.error is None else raising(task, activation.error)

    def _node(self, name: str) -> Any:
        """The node that stands for a task of this name."""
        return self._nodes[self._node_of(name)]

    def _cached_by_group(self, task: Task, activation: ScheduledActivation) -> Task:
        """By default LangGraph's key is all that the node is given; what has started it is part of that."""
        policy = self._nodes[activation.node].cache_policy or self._options.get("cache_policy")
        if policy is None or not is_default_key(policy):
            return task
        return with_cache_key(task, [activation.group, self._given(activation)])

    def error_handler_of(self, failed: Task) -> str | None:
        """The node that answers for this one when it fails."""
        handler: str | None = self._node(failed.name).error_handler_node
        return handler

    def error_handler(self, failed: Task, handler: str, error: BaseException, activation: ScheduledActivation) -> Task:
        """The task of the error handler that answers for a failed task; it reads what that would have read."""
        checkpoint = {**self._options["checkpoint"], "id": self.ids.checkpoint_id}
        task = prepare_node_error_handler_task(
            failed,
            handler_node_name=handler,
            failed_error=error,
            pending_writes=self.control,
            channels={**self._view(activation), RUN: ConstantChannel((activation, self._given))},
            config=failed.config,
            step=self.ids.step,
            **{**self._options, "checkpoint": checkpoint},
        )
        assert task is not None, handler
        return task

    def call(self, caller: Task, number: int, call: Any, activation: ScheduledActivation) -> Task | None:
        """The task that a node, or another task, calls (`@task`).

        Args:
            caller: the task that calls.
            number: which of its calls this is.
            call: LangGraph's description of the call.
            activation: the activation that all of it belongs to; the task reads what that sees.
        """
        checkpoint = {**self._options["checkpoint"], "id": self.ids.checkpoint_id}
        task = prepare_single_task(
            (PUSH, caller.path, number, caller.id, call),
            None,
            checkpoint_id_bytes=self._id_bytes,
            channels={**self._view(activation), RUN: ConstantChannel((activation, self._given))},
            step=self.ids.step,
            **{**self._common, "checkpoint": checkpoint, "config": caller.config},
        )
        return task if isinstance(task, Task) else None

    def go_on(self) -> None:
        """From here on tasks are made that were not at work before the pause: they are not told to resume, and an
        answer that none of those at work has taken is not theirs."""
        configurable = {**self.config[CONF]}
        configurable.pop(CONFIG_KEY_RESUMING, None)
        self.config = {**self.config, CONF: configurable}
        self._had_answer = any(map(_is_answer, self.control))
        self._for_those_at_work = self.control
        self.control = [write for write in self.control if not _is_answer(write)]
        self._common = self._common_of_tasks()

    @property
    def answer_taken(self) -> bool:
        """Whether a task has taken the answer that the run began with. LangGraph then takes it off the list."""
        return self._had_answer and not any(map(_is_answer, self._for_those_at_work))


def _is_answer(write: tuple[str, str, Any]) -> bool:
    return write[:2] == (NULL_TASK_ID, RESUME)
