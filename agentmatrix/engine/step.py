"""One superstep that stays open: what has finished makes the next tasks ready, and these start in the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from langgraph.errors import InvalidUpdateError
from langgraph.types import Send

from agentmatrix.engine.channels import REACHED_END, RUN, Schedule, dismissed_by, is_record
from agentmatrix.engine.tasks import PendingWrites, TaskFactory
from agentmatrix.pregel.compiled_graph import branch_target
from agentmatrix.pregel.execution import (
    ERROR_SOURCE_NODE,
    TASKS,
    Task,
    read_task_statuses,
)
from agentmatrix.scheduling.actors import split_path
from agentmatrix.scheduling.graph_scheduler import GraphScheduler, Record
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write
from agentmatrix.scheduling.topology import Topology

__all__ = ["OpenStep", "result_of"]

Holds = Callable[[ScheduledActivation], bool]


class OpenStep:
    """The scheduler of a run, and the tasks of its activations.

    Args:
        schedule: that of the graph.
        scheduler: what has run and what may start.
        factory: makes the tasks.

    Attributes:
        activations: by id of a task that is at work, its activation.
        finished: by id of a task that has finished, its node.
        replayed: the tasks that had finished before this run, with what they have written.
        held: the activations that wait for the step to end, behind a breakpoint, a drain, the last step or a barrier.
    """

    def __init__(self, schedule: Schedule, scheduler: GraphScheduler, factory: TaskFactory) -> None:
        self.schedule, self.scheduler, self.factory = schedule, scheduler, factory
        self.activations: dict[str, ScheduledActivation] = {}
        self._calls: dict[str, ScheduledActivation] = {}
        self.finished: dict[str, str] = {}
        self.replayed: list[tuple[Task, Sequence[Write]]] = []
        self.held: list[ScheduledActivation] = []

    def replay(self, pending: PendingWrites) -> dict[str, Task]:
        """Go through all that has finished since the checkpoint.

        Args:
            pending: the writes beside the checkpoint.

        Returns:
            The tasks that have not finished, by id. What comes behind a barrier is held.
        """
        opening = {*self.scheduler.rules.ready}
        statuses = read_task_statuses(pending)
        failed = {write[0] for write in pending if write[1] == ERROR_SOURCE_NODE}
        tasks: dict[ScheduledActivation, Task] = {}

        def saved(activation: ScheduledActivation) -> tuple[NodeResult, Record | None] | None:
            if self.schedule.barriers and activation not in opening:
                # It has not begun, though its task would have the id of one that has where a node leads to itself.
                return None
            task = self._make(activation)
            status = statuses.get(task.id)
            if task.id in failed and status is not None:
                # Its error handler has taken its place.
                error = status.error if isinstance(status.error, BaseException) else Exception(str(status.error))
                task = self.error_handler(task, error) or task
                status = statuses.get(task.id)
            tasks[activation] = task
            if status is None or not status.output:
                return None
            self.finished[task.id] = activation.node
            self.replayed.append((task, status.output))
            record = next((value for channel, value in status.output if is_record(channel, value)), None)
            return result_of(self.schedule, activation.node, task.name, status.output, recorded=True), record

        left = self.scheduler.replay(saved)
        unfinished, self.held = [a for a in left if a in tasks], [a for a in left if a not in tasks]
        self.activations = {activation.task_id: activation for activation in unfinished}
        return {tasks[activation].id: tasks[activation] for activation in unfinished}

    def go_on(self, factory: TaskFactory) -> dict[str, Task]:
        """The run goes on in another step, and in memory. What was held back is ready now. Returns the tasks, by id."""
        self.scheduler.rules.ready[:0], self.held = self.held, []
        self.scheduler.begin_step()
        self.factory, self.finished = factory, {}
        return {task.id: task for task in self.start_ready(None)}

    def _make(self, activation: ScheduledActivation) -> Task:
        task = self.factory.task(activation)
        self.activations[task.id] = activation
        return task

    def start_ready(self, holds: Holds | None) -> list[Task]:
        """The tasks of the activations that have become ready and are not held back."""
        if not self.scheduler.rules.ready:
            return []
        ready = self.scheduler.take_ready()
        if holds is not None:
            self.held += [activation for activation in ready if holds(activation)]
            ready = [activation for activation in ready if activation not in self.held]
        return [self._make(activation) for activation in ready]

    def error_handler(self, failed: Task, error: BaseException) -> Task | None:
        """The task of the error handler that takes the place of a failed task; None where it has none."""
        handler = self.factory.error_handler_of(failed)
        if handler is None:
            return None
        activation = self.activations.pop(failed.id)
        task = self.factory.error_handler(failed, handler, error, activation)
        self.activations[task.id] = activation
        activation.task_id = task.id
        return task

    def call(self, caller: Task, number: int, call: Any) -> Task | None:
        """The task that another task calls; None where that was given up."""
        activation = self.activations.get(caller.id) or self._calls.get(caller.id)
        task = self.factory.call(caller, number, call, activation) if activation is not None else None
        if task is not None and activation is not None:
            self._calls[task.id] = activation
        return task

    def finish(self, task: Task, writes: Iterable[Write]) -> Record | None:
        """What a task has written counts from here on. Returns what was decided because of it, to be saved with it.

        Raises:
            InvalidUpdateError: it cannot; nothing has changed.
        """
        activation = self.activations[task.id]
        record = self.scheduler.finish(activation, result_of(self.schedule, activation.node, task.name, writes))
        self.finished[task.id] = activation.node
        del self.activations[task.id]
        return record

    def cancel(self, activations: Iterable[ScheduledActivation]) -> list[str]:
        """These activations are given up. Returns the ids of their tasks."""
        ids = [activation.task_id for activation in activations if self.activations.pop(activation.task_id, None)]
        self.held = [activation for activation in self.held if activation.task_id not in ids]
        return ids

    def unfinished(self) -> Sequence[ScheduledActivation]:
        """The activations that are ready, at work or held back, each once."""
        return list(dict.fromkeys((*self.activations.values(), *self.scheduler.rules.ready, *self.held)))


def result_of(
    schedule: Schedule, node: str, name: str, writes: Iterable[Write], *, recorded: bool = False
) -> NodeResult:
    """What a task has done, read from its writes to LangGraph's channels.

    Args:
        schedule: that of the graph.
        node: the node whose activation has ended.
        name: the node whose task it was: an error handler may have answered.
        writes: what it has written.
        recorded: whether this is out of a saver; the code may have changed since.

    Raises:
        InvalidUpdateError: it leads to a name that no node has.
    """
    keys, joins, known = schedule.keys.all, schedule.joins, schedule.targets
    state: list[Write] = []
    targets: dict[str, None] = {}
    unknown: list[str] = []
    sends: list[Send] = []
    arrived: list[tuple[str, str]] = []
    ends = False
    dismisses: list[str] = []
    for channel, value in writes:
        if channel in keys:
            state.append((channel, value))
        elif channel == TASKS:
            sends.append(value)
            if not schedule.topology.takes(value.node):
                unknown.append(value.node)
        elif channel in known:
            targets[known[channel]] = None
        elif (target := branch_target(channel)) is not None:
            targets[target] = None
            if target not in schedule.topology.members:
                unknown.append(target)
        elif channel in joins:
            arrived.append((channel, joins[channel]))
        elif channel == RUN:
            ends = ends or value == REACHED_END
            if (path := dismissed_by(channel, value)) is not None:
                dismisses.append(path)
    if unknown and not recorded:
        raise _unknown_target(schedule.topology, node, unknown[0])
    return NodeResult(
        state, tuple(targets), sends, arrived, delivers=name == node, ends=ends, dismisses=tuple(dismisses)
    )


def _unknown_target(topology: Topology, node: str, target: str) -> InvalidUpdateError:
    name, _ = split_path(target)
    if name in topology.actors:
        return InvalidUpdateError(
            f"the node {node!r} leads to {target!r}, which stands for many agents: Send to {name + '/<key>'!r}"
        )
    known = ", ".join((*topology.nodes, *(f"{name}/<key>" for name in topology.actors)))
    return InvalidUpdateError(f"the node {node!r} leads to {target!r}, which no node is (there are: {known})")
