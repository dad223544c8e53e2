"""The checkpoints that keep who was hired, in a namespace of the actors' name: each has those since the one before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint

from agentmatrix.engine.branches import Fork, Span, sees
from agentmatrix.pregel.execution import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_NS,
    with_configurable,
)

__all__ = ["forks_in", "staff_checkpoint", "staff_config", "staff_in", "staff_version"]

_STAFF = "agentmatrix:staff"
"""The channel of the checkpoints that keep who was hired."""
_FORKS = "agentmatrix:forks"
"""The channel that keeps, beside that, which branches have begun."""


def staff_config(config: RunnableConfig, name: str) -> RunnableConfig:
    """Where a checkpointer keeps who was hired.

    Args:
        config: the graph's, as its checkpointer takes it.
        name: the node that stands for the actors.
    """
    above = config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, "")
    namespace = f"{above}|{name}" if above else name
    here: dict[str, Any] = {CONFIG_KEY_CHECKPOINT_NS: namespace, CONFIG_KEY_CHECKPOINT_ID: None, "checkpoint_map": {}}
    return with_configurable(config, here)


def staff_in(found: Iterable[CheckpointTuple], spans: Sequence[Span]) -> list[list[Any]]:
    """Who was hired or dismissed, as plain values, in order.

    Args:
        found: what a checkpointer has listed, newest first.
        spans: when what counts here was kept.
    """
    seen = [saved for saved in found if sees(spans, saved.checkpoint["id"])]
    return [plain for saved in reversed(seen) for plain in saved.checkpoint["channel_values"].get(_STAFF, ())]


def forks_in(listed: Mapping[str, Iterable[CheckpointTuple]]) -> list[Fork]:
    """The forks of a thread, as these checkpoints have them, by the name of actors."""
    found = (saved.checkpoint["channel_values"].get(_FORKS, ()) for each in listed.values() for saved in each)
    return [Fork(*plain) for forks in found for plain in forks]


def staff_version(saved: CheckpointTuple) -> Any:
    """The version of one of these checkpoints."""
    return saved.checkpoint["channel_versions"][_STAFF]


def staff_checkpoint(id: str, staff: Sequence[list[Any]], forks: Sequence[Fork], version: Any) -> dict[str, Any]:
    """A checkpoint that keeps who was hired.

    Args:
        id: that of the graph's checkpoint which follows it: it belongs to the same branch.
        staff: who was hired or dismissed, as plain values.
        forks: the branches that have begun.
        version: of its channels.
    """
    values: dict[str, Any] = {_STAFF: [*staff], **({_FORKS: [list(fork) for fork in forks]} if forks else {})}
    versions = dict.fromkeys(values, version)
    return {**empty_checkpoint(), "id": id, "channel_values": values, "channel_versions": versions}
