"""What tasks of an unfinished step have written, as a checkpointer has it beside the last checkpoint."""

from __future__ import annotations

from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONF, CONFIG_KEY_CHECKPOINTER
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from agentmatrix.pregel.compiled_graph import Graph

__all__ = ["RETURNED", "SAVED", "pending_writes", "saved_values", "saver_of"]

SAVED: Final = "agentmatrix:kept"
"""No channel of a graph: LangGraph saves and loads what is written to it, and leaves it alone."""
RETURNED: Final = "agentmatrix:returned"
"""Another one: what calls of `@task` have returned, each as `[id of the turn, which call, value]`."""


def saver_of(graph: Graph, config: RunnableConfig) -> BaseCheckpointSaver[Any]:
    """The checkpointer of a graph that is asked for its state under `config`: its own, or that of the graph around."""
    saver = config.get(CONF, {}).get(CONFIG_KEY_CHECKPOINTER) or graph.checkpointer
    return cast("BaseCheckpointSaver[Any]", saver)


def pending_writes(saved: CheckpointTuple) -> dict[str, dict[str, Any]]:
    """By id of the task, what it has written, by channel."""
    written: dict[str, dict[str, Any]] = {}
    for id, channel, value in saved.pending_writes or ():
        if channel not in (SAVED, RETURNED):
            written.setdefault(id, {})[channel] = value
    return written


def saved_values(saved: CheckpointTuple) -> list[Any]:
    """What `LoopHandle.save` has saved."""
    return [value for _, channel, value in saved.pending_writes or () if channel == SAVED]
