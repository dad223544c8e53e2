"""`update_state` on a thread whose last step was never closed: what has finished in it is put as a pause first.

LangGraph makes a new checkpoint of an update and forgets what lies beside the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.pregel import Pregel

from agentmatrix.engine.channels import RUN
from agentmatrix.engine.checkpoint import close, is_branch, is_open, levels_of, opened, schedule_of
from agentmatrix.engine.step import OpenStep
from agentmatrix.engine.tasks import TaskFactory
from agentmatrix.pregel.execution import (
    CONTROL_WRITES,
    INPUT,
    INTERRUPT,
    MISSING,
    NULL_TASK_ID,
    apply_input_writes,
    apply_writes,
    channels_from_checkpoint,
    newer_versions,
    with_globals,
)
from agentmatrix.pregel.task_template import TaskTemplates
from agentmatrix.scheduling.state import saved_value

__all__ = ["Pause", "abulk_update_state", "bulk_update_state", "pause_of", "reopened"]


def reopened(
    graph: Any, saved: CheckpointTuple, saver: Any, actors: Iterable[list[Any]] = ()
) -> tuple[OpenStep, dict[str, Any]] | None:
    """The step that a thread stands in, with all that has finished in it, and the channels that it began with.

    Args:
        graph: a graph with a `RunChannel`.
        saved: where the thread stands; its checkpoint is changed by what a command from outside has written.
        saver: the saver that has it.
        actors: who was hired before, as plain values.

    Returns:
        None where the input of a run is still to be taken in.
    """
    checkpoint, pending = saved.checkpoint, saved.pending_writes or []
    found, managed = channels_from_checkpoint(graph.channels, checkpoint, saver=saver, config=saved.config)
    channels: dict[str, Any] = dict(found)
    if not is_open(checkpoint, channels):
        return None
    apply_input_writes(checkpoint, channels, pending, saver.get_next_version)
    step = saved.metadata.get("step", -1) + 1
    scheduler, ids = opened(
        checkpoint, channels, graph.nodes, step, pending, branches=is_branch(saved.metadata), actors=actors
    )
    factory = TaskFactory(
        ids,
        checkpoint,
        pending,
        graph.nodes,
        managed,
        saved.config,
        step + 2,
        {"store": graph.store, "checkpointer": saver, "manager": None},
        TaskTemplates(),
        view=scheduler.view,
        given=scheduler.given,
        level=levels_of(schedule_of(channels), scheduler),
        node_of=scheduler.topology.node_of,
    )
    running = OpenStep(schedule_of(channels), scheduler, factory)
    running.replay(list(pending))
    return running, channels


class Pause(NamedTuple):
    """A checkpoint to put, with LangGraph's arguments for it, and the writes to keep beside it by task."""

    config: RunnableConfig
    checkpoint: Any
    metadata: Any
    versions: Mapping[str, Any]
    writes: Mapping[str, list[tuple[str, Any]]]


def pause_of(graph: Any, saved: CheckpointTuple | None, saver: Any) -> Pause | None:
    """What has finished beside a checkpoint, as a checkpoint of its own; None where nothing has."""
    if saved is None or not saved.pending_writes:
        return None
    checkpoint, pending, before = saved.checkpoint, saved.pending_writes, dict(saved.checkpoint["channel_versions"])
    found = reopened(graph, saved, saver)
    if found is None:
        return None
    running, channels = found
    scheduler, ids, step = running.scheduler, running.factory.ids, saved.metadata.get("step", -1) + 1
    brought = any(task_id == NULL_TASK_ID and channel not in CONTROL_WRITES for task_id, channel, _ in pending)
    if not (running.finished or brought):
        return None
    following = saver.get_next_version(max(checkpoint["channel_versions"].values()), None)
    updated = close(scheduler, running.unfinished(), checkpoint, channels, graph.nodes, following, ids)
    put = _checkpoint_of(checkpoint, channels, step, updated)
    metadata = {"source": "loop", "step": step, "parents": saved.metadata.get("parents", {})}
    writes: dict[str, list[tuple[str, Any]]] = {}
    for task_id, channel, value in pending:
        if task_id not in running.finished and task_id != NULL_TASK_ID and channel != RUN:
            writes.setdefault(task_id, []).append((channel, value))
    return Pause(saved.config, put, metadata, newer_versions(before, put["channel_versions"]), writes)


def _checkpoint_of(before: Checkpoint, channels: Mapping[str, Any], step: int, updated: Iterable[str]) -> Checkpoint:
    """The checkpoint of these channels that comes after another one."""
    versioned = ((name, saved_value(channels[name])) for name in channels if name in before["channel_versions"])
    return {
        **before,
        "ts": datetime.now(UTC).isoformat(),
        "id": str(uuid6(clock_seq=step)),
        "channel_values": {name: value for name, value in versioned if value is not MISSING},
        "channel_versions": dict(before["channel_versions"]),
        "updated_channels": sorted(updated),
    }


def apply_update(checkpoint: Any, channels: Any, tasks: Iterable[Any], *given: Any) -> set[str]:
    """LangGraph's `apply_writes`, for `update_state`: a node in whose name somebody writes has run.

    An update as END clears all tasks, and what is kept of the run with them.
    """
    tasks = list(tasks)
    updated = apply_writes(checkpoint, channels, tasks, *given)
    if channels[RUN].is_available():
        named = {task.name: list(task.writes) for task in tasks if task.path[:1] == (INTERRUPT,)}
        if named:
            channels[RUN].stand_for(named)
        elif all(task.name != INPUT for task in tasks):
            channels[RUN].clear()
    return updated


bulk_update_state: Any = with_globals(Pregel.bulk_update_state, apply_writes=apply_update)
abulk_update_state: Any = with_globals(Pregel.abulk_update_state, apply_writes=apply_update)
