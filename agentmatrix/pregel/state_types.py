"""The classes that may stand in a state, as the graph of a task declares it."""

from __future__ import annotations

from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONF, CONFIG_KEY_READ
from langgraph.channels.base import BaseChannel

__all__ = ["state_types_around"]


def state_types_around(config: RunnableConfig) -> list[Any]:
    """The annotations of the state of the graph that the task of a config runs in; empty outside of any task."""
    read = config.get(CONF, {}).get(CONFIG_KEY_READ)
    if not isinstance(read, partial):
        return []
    found: list[Any] = []
    for part in read.args:
        if isinstance(part, dict):
            for channel in part.values():
                if isinstance(channel, BaseChannel):
                    found += (channel.ValueType, channel.UpdateType)
    return found
