"""What had finished at a pause, read from its checkpoint and the writes beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph._internal._config import ensure_config
from langgraph._internal._constants import CONF, CONFIG_KEY_CHECKPOINT_ID, NULL_TASK_ID
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.pregel._task_status import CONTROL_WRITES, read_task_statuses
from langgraph.types import PregelTask

from agentmatrix.ledger_engine.pauses import is_pause, unfolded
from agentmatrix.pregel.compiled_graph import Graph

__all__ = ["Finished", "afinished_tasks", "finished_tasks"]


class Finished(NamedTuple):
    """What the tasks that have finished at a pause have written, by task id; what a command from outside has written
    before them; and the names of the nodes, save those that the command called for."""

    names: Mapping[str, str]
    writes: Mapping[str, Sequence[tuple[str, Any]]]
    commanded: Sequence[tuple[str, Any]]


def _finished(saved: CheckpointTuple | None, tasks: Sequence[PregelTask], config: RunnableConfig) -> Finished:
    names = {task.id: task.name for task in tasks}
    addressed = bool(config[CONF].get(CONFIG_KEY_CHECKPOINT_ID))
    # As in LangGraph, what is pending belongs to the latest checkpoint; that of a pause brings along what had finished.
    pending = [] if saved is None or (addressed and not is_pause(saved)) else saved.pending_writes or []
    pending = unfolded(pending, alone=addressed)
    writes = {id: status.output for id, status in read_task_statuses(pending).items() if status.output}
    commanded = [(key, value) for id, key, value in pending if id == NULL_TASK_ID and key not in CONTROL_WRITES]
    return Finished(names, writes, commanded)


def finished_tasks(graph: Graph, config: RunnableConfig) -> Finished | None:
    """What has finished at the pause that `config` leads to; None if `config` is about a graph inside `graph`."""
    saver = graph._state_checkpointer(config)
    if graph._subgraph_for_namespace(config, saver):
        return None
    own = graph._own_checkpoint_config(ensure_config(graph.config, config))
    return _finished(saver.get_tuple(own), graph.get_state(config).tasks, own)


async def afinished_tasks(graph: Graph, config: RunnableConfig) -> Finished | None:
    """The same as `finished_tasks`, async."""
    saver = graph._state_checkpointer(config)
    if graph._subgraph_for_namespace(config, saver):
        return None
    own = graph._own_checkpoint_config(ensure_config(graph.config, config))
    return _finished(await saver.aget_tuple(own), (await graph.aget_state(config)).tasks, own)
