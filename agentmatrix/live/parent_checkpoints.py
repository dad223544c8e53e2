"""Waits until a checkpointer has the checkpoints of the graphs around a nested graph.

The namespace of a nested graph is made from the checkpoints above it. Under durability "async" these may come to the
checkpointer after what the nested graph keeps; after a kill in between, nobody would find that. So a signal to a nested
graph is acknowledged when they are there too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from agentmatrix.errors import SignalError
from agentmatrix.pregel import config_keys

__all__ = ["aparents_saved", "parents_saved"]

_DELAYS: Final = tuple(min(0.002 * 2**n, 1.0) for n in range(70))
"""The seconds between two looks: a minute in all."""


def parents_saved(saver: BaseCheckpointSaver[Any], configurable: Mapping[str, Any]) -> None:
    """Return when the checkpointer has all checkpoints above a nested graph.

    Args:
        saver: the checkpointer of the whole tree of graphs, or what was lent of it: what lies above that is for its
            lender to wait for.
        configurable: that of the nested graph.

    Raises:
        SignalError: one of them did not come within a minute.
    """
    looks = _looks(configurable)
    try:
        look = next(looks)
        while True:
            if isinstance(look, float):
                time.sleep(look)
            look = looks.send(None if isinstance(look, float) else saver.get_tuple(look))
    except (StopIteration, PermissionError):
        return


async def aparents_saved(saver: BaseCheckpointSaver[Any], configurable: Mapping[str, Any]) -> None:
    """The same as `parents_saved`, async."""
    looks = _looks(configurable)
    try:
        look = next(looks)
        while True:
            if isinstance(look, float):
                await asyncio.sleep(look)
            look = looks.send(None if isinstance(look, float) else await saver.aget_tuple(look))
    except (StopIteration, PermissionError):
        return


def _looks(configurable: Mapping[str, Any]) -> Generator[RunnableConfig | float, Any, None]:
    """What to read, nearest parent first, and how long to wait where it is not there."""
    own = configurable.get(config_keys.CHECKPOINT_NS, "")
    above = {space: id for space, id in configurable.get("checkpoint_map", {}).items() if space != own}
    for namespace in sorted(above, key=len, reverse=True):
        place = {"thread_id": configurable["thread_id"], "checkpoint_ns": namespace, "checkpoint_id": above[namespace]}
        kept = {key: value for key, value in configurable.items() if not config_keys.is_reserved(key)}
        for delay in _DELAYS:
            if (yield {"configurable": {**kept, **place}}) is not None:
                break
            yield delay
        else:
            raise SignalError(
                f"the checkpointer did not get the checkpoint of the graph around {own!r} within a minute"
            )
