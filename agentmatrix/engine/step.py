"""One superstep that stays open: what has finished makes the next tasks ready, and these start in the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from langgraph.errors import InvalidUpdateError
from langgraph.types import Send

from agentmatrix.engine.channels import Schedule
from agentmatrix.engine.tasks import PendingWrites, TaskFactory
from agentmatrix.pregel.execution import (
    ERROR_SOURCE_NODE,
    TASKS,
    Task,
    branch_target,
    read_task_statuses,
)
from agentmatrix.scheduling.graph_scheduler import GraphScheduler
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write

__all__ = ["OpenStep"]

Holds = Callable[[ScheduledActivation], bool]


class OpenStep:
    """The scheduler of a run, and the tasks of its activations.

    Args:
        schedule: that of the graph.
        scheduler: what has run and what may start.
        factory: makes the tasks.

    Attributes:
        activations: by id of a task that is at work, its activation.
        finished: the ids of the tasks that have finished.
        held: the activations that wait for the step to end, behind a breakpoint, a drain, the last step or a barrier.
    """

    def __init__(self, schedule: Schedule, scheduler: GraphScheduler, factory: TaskFactory) -> None:
        self.schedule, self.scheduler, self.factory = schedule, scheduler, factory
        self.activations: dict[str, ScheduledActivation] = {}
        self._calls: dict[str, ScheduledActivation] = {}
        self.finished: set[str] = set()
        self.held: list[ScheduledActivation] = []

    def replay(self, pending: PendingWrites) -> dict[str, Task]:
        """Go through all that has finished since the checkpoint.

        Args:
            pending: the writes beside the checkpoint.

        Returns:
            The tasks that have not finished, by id.
        """
        statuses = read_task_statuses(pending)
        failed = {write[0] for write in pending if write[1] == ERROR_SOURCE_NODE}
        unfinished: dict[str, Task] = {}
        while ready := self.scheduler.take_ready():
            for activation in ready:
                task = self._make(activation)
                status = statuses.get(task.id)
                if task.id in failed and status is not None:
                    # Its error handler has taken its place.
                    error = status.error if isinstance(status.error, BaseException) else Exception(str(status.error))
                    task = self.error_handler(task, error) or task
                    status = statuses.get(task.id)
                if status is not None and status.output:
                    self.finish(task, status.output, recorded=True)
                else:
                    unfinished[task.id] = task
        return unfinished

    def go_on(self, factory: TaskFactory) -> None:
        """The next superstep, where each waits for the one before: what was held back is ready now."""
        self.scheduler.rules.ready[:0], self.held = self.held, []
        self.factory, self.finished = factory, set()

    def _make(self, activation: ScheduledActivation) -> Task:
        task = self.factory.task(activation)
        self.activations[task.id] = activation
        return task

    def start_ready(self, holds: Holds | None) -> list[Task]:
        """The tasks of the activations that have become ready and are not held back."""
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

    def finish(self, task: Task, writes: Iterable[Write], *, recorded: bool = False) -> None:
        """What a task has written counts from here on.

        Raises:
            InvalidUpdateError: it cannot; nothing has changed.
        """
        result = self._result(task.name, writes, recorded=recorded)
        activation = self.activations[task.id]
        self.scheduler.finish(activation, result, recorded=recorded)
        self.finished.add(task.id)
        del self.activations[task.id]

    def _result(self, node: str, writes: Iterable[Write], *, recorded: bool) -> NodeResult:
        keys, joins = self.schedule.keys.all, self.schedule.joins
        state: list[Write] = []
        targets: dict[str, None] = {}
        sends: list[Send] = []
        arrived: list[tuple[str, str]] = []
        for channel, value in writes:
            if channel in keys:
                state.append((channel, value))
            elif channel == TASKS:
                sends.append(value)
            elif (target := branch_target(channel)) is not None:
                targets[target] = None
            elif channel in joins:
                arrived.append((channel, joins[channel]))
        if not recorded:
            nodes = self.schedule.topology.follow
            for target in (*targets, *(send.node for send in sends)):
                if target not in nodes:
                    known = ", ".join(self.schedule.topology.nodes)
                    raise InvalidUpdateError(
                        f"the node {node!r} leads to {target!r}, which no node is (there are: {known})"
                    )
        return NodeResult(state, tuple(targets), sends, arrived)

    def unfinished(self) -> Sequence[ScheduledActivation]:
        """The activations that are ready, at work or held back, each once."""
        return list(dict.fromkeys((*self.activations.values(), *self.scheduler.rules.ready, *self.held)))
