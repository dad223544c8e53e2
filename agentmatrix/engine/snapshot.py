"""State snapshots. In flight `get_state` shows what has finished, as for a StateGraph: folded when asked, not written."""

from __future__ import annotations

from typing import Any

from langgraph.pregel import Pregel

from agentmatrix.engine.checkpoint import is_open, opened, schedule_of
from agentmatrix.engine.step import OpenStep
from agentmatrix.engine.tasks import TaskFactory
from agentmatrix.pregel.execution import CONTROL_WRITES, Task, prepare_next_tasks, with_globals

__all__ = ["arecord_snapshot", "asnapshot", "record_snapshot", "snapshot"]


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
    scheduler, ids = opened(checkpoint, channels, processes, step, branches=False)
    factory = TaskFactory(
        ids,
        checkpoint,
        pending_writes or (),
        processes,
        managed,
        config,
        stop,
        options,
        view=scheduler.view,
        level=scheduler.level,
    )
    running = OpenStep(schedule_of(channels), scheduler, factory)
    tasks = running.replay(pending_writes or [])
    if running.finished:
        channels.update(scheduler.state.final())
    return tasks


def _recorded_tasks(checkpoint: Any, pending_writes: Any, *given: Any, for_execution: bool, **options: Any) -> Any:
    """The same for a checkpoint as it was when it was put: nothing had finished then."""
    questions = [write for write in pending_writes or () if write[1] in CONTROL_WRITES]
    return _live_tasks(checkpoint, questions, *given, for_execution=for_execution, **options)


snapshot: Any = with_globals(Pregel._prepare_state_snapshot, prepare_next_tasks=_live_tasks)
asnapshot: Any = with_globals(Pregel._aprepare_state_snapshot, prepare_next_tasks=_live_tasks)
record_snapshot: Any = with_globals(Pregel._prepare_state_snapshot, prepare_next_tasks=_recorded_tasks)
arecord_snapshot: Any = with_globals(Pregel._aprepare_state_snapshot, prepare_next_tasks=_recorded_tasks)
