"""State snapshots. In flight `get_state` shows what has finished, as a StateGraph does: folded on request, not kept."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.pregel import Pregel

from agentmatrix.engine.channels import RUN
from agentmatrix.engine.checkpoint import is_branch, is_open, levels_of, opened, schedule_of
from agentmatrix.engine.step import OpenStep
from agentmatrix.engine.tasks import TaskFactory, TaskIds
from agentmatrix.pregel.execution import (
    CONTROL_WRITES,
    NULL_TASK_ID,
    Task,
    apply_input_writes,
    prepare_next_tasks,
    with_globals,
)
from agentmatrix.pregel.task_template import TaskTemplates

__all__ = ["arecord_snapshot", "asnapshot", "for_snapshot", "record_snapshot", "snapshot"]

_INPUT = "agentmatrix:input"
"""The task under which a snapshot finds what a command from outside has written."""


def for_snapshot(saved: CheckpointTuple | None) -> CheckpointTuple | None:
    """A saved checkpoint as LangGraph's snapshot is to find it.

    It would apply what a command from outside has written after it has made the tasks, while a run that goes on applies
    that before.
    """
    if saved is None:
        return None
    pending = [
        (_INPUT, channel, value)
        if task_id == NULL_TASK_ID and channel not in CONTROL_WRITES
        else (task_id, channel, value)
        for task_id, channel, value in saved.pending_writes or ()
    ]
    values = saved.checkpoint["channel_values"]
    if RUN in values and is_branch(saved.metadata):
        values = {**values, RUN: {**values[RUN], "ids": None}}
    return saved._replace(pending_writes=pending, checkpoint={**saved.checkpoint, "channel_values": values})


def _live_tasks(
    checkpoint: Any,
    pending_writes: Any,
    processes: Any,
    channels: Any,
    managed: Any,
    config: Any,
    step: int,
    stop: int,
    *,
    for_execution: bool,
    **options: Any,
) -> dict[str, Task]:
    """LangGraph's `prepare_next_tasks`, for a snapshot: through all that has finished since the checkpoint."""
    if not is_open(checkpoint, channels):
        return prepare_next_tasks(
            checkpoint, pending_writes, processes, channels, managed, config, step, stop, for_execution=True, **options
        )
    written = [(NULL_TASK_ID, channel, value) for task_id, channel, value in pending_writes or () if task_id == _INPUT]
    apply_input_writes(checkpoint, channels, written, None)
    scheduler, ids = opened(checkpoint, channels, processes, step, written, branches=False)

    def factory(ids: TaskIds) -> TaskFactory:
        return TaskFactory(
            ids,
            checkpoint,
            pending_writes or (),
            processes,
            managed,
            config,
            stop,
            options,
            TaskTemplates(),
            view=scheduler.view,
            given=scheduler.given,
            level=levels_of(schedule_of(channels), scheduler),
            node_of=scheduler.topology.node_of,
        )

    running = OpenStep(schedule_of(channels), scheduler, factory(ids))
    tasks = running.replay(pending_writes or [])
    if running.finished:
        channels.update(scheduler.state.final())
    if running.held:
        # All of a superstep has finished, and its checkpoint is not there: the next one is to run.
        return running.go_on(factory(TaskIds(ids.checkpoint_id, ids.step + 1)))
    return tasks


def _recorded_tasks(checkpoint: Any, pending_writes: Any, *given: Any, for_execution: bool, **options: Any) -> Any:
    """The same for a checkpoint as it was when it was put: nothing had finished then."""
    questions = [write for write in pending_writes or () if write[1] in CONTROL_WRITES]
    return _live_tasks(checkpoint, questions, *given, for_execution=for_execution, **options)


snapshot: Any = with_globals(Pregel._prepare_state_snapshot, prepare_next_tasks=_live_tasks)
asnapshot: Any = with_globals(Pregel._aprepare_state_snapshot, prepare_next_tasks=_live_tasks)
record_snapshot: Any = with_globals(Pregel._prepare_state_snapshot, prepare_next_tasks=_recorded_tasks)
arecord_snapshot: Any = with_globals(Pregel._aprepare_state_snapshot, prepare_next_tasks=_recorded_tasks)
