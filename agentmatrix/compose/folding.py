"""Updates folded to a state by the schema's reducers. Pure; knows channels, and no engine."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.channels.base import BaseChannel
from langgraph.errors import EmptyChannelError
from langgraph.graph.message import add_messages

__all__ = ["Fold", "Write", "folded", "identified", "plain_keys", "unchanged", "values_of"]

Write = tuple[str, Any]
Fold = Mapping[str, BaseChannel[Any, Any, Any]]


def plain_keys(channels: Fold) -> frozenset[str]:
    """The keys that have no reducer."""
    return frozenset(key for key, channel in channels.items() if isinstance(channel, LastValue))


def folded(fold: Fold, writes: Iterable[Write]) -> Fold:
    """The fold with the writes of one activation in it. The given one stays as it is."""
    by_key: dict[str, list[Any]] = {}
    for key, value in writes:
        by_key.setdefault(key, []).append(value)
    changed: dict[str, BaseChannel[Any, Any, Any]] = {}
    for key, values in by_key.items():
        changed[key] = _fork(fold[key])
        changed[key].update(values)
    return {**fold, **changed}


def _fork(channel: BaseChannel[Any, Any, Any]) -> BaseChannel[Any, Any, Any]:
    """A copy that a reducer may change: reducers that extend their left argument in place are common."""
    fork = channel.copy()
    if isinstance(fork, BinaryOperatorAggregate) and isinstance(fork.value, list | dict | set):
        fork.value = copy.copy(fork.value)
    return fork


def values_of(fold: Fold, keys: Iterable[str]) -> dict[str, Any]:
    """The values of those keys that have one."""
    values: dict[str, Any] = {}
    for key in keys:
        try:
            values[key] = fold[key].get()
        except EmptyChannelError:
            continue
    return values


def unchanged(returned: Any, given: Any) -> bool:
    """Whether an agent handed back the very value that it was given, also where it was copied on the way."""
    if returned is given:
        return True
    if type(returned) is not type(given):
        return False
    try:
        return bool(returned == given)
    except Exception:  # an array, or any type whose == is no yes or no
        return False


def identified(channel: BaseChannel[Any, Any, Any], value: Any) -> Any:
    """The value with the ids that a reducer would give to its messages, so that folding it twice gives the same."""
    messages = isinstance(channel, BinaryOperatorAggregate) and channel.operator is add_messages
    if isinstance(value, list):
        return [_identified(item, convert=messages) for item in value]
    if messages and isinstance(value, str | tuple | dict) and not (isinstance(value, dict) and "role" not in value):
        return [_identified(value, convert=True)]
    return _identified(value, convert=False)


def _identified(item: Any, *, convert: bool) -> Any:
    if convert and not isinstance(item, BaseMessage):
        item = convert_to_messages([item])[0]
    if isinstance(item, BaseMessage) and item.id is None:
        item.id = str(uuid4())
    return item
