"""Whether the reducers of a state take what a node has written: asked before the write is recorded.

A write that a reducer refuses must never be saved, since nobody could read the thread afterwards. Each write is tried
on what its node sees, which is always the same; and where unrelated nodes have written the key, on all of it together.
The first of the two results is what a node behind this one sees, so that in a chain no reducer runs twice.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, RemoveMessage
from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
from langgraph.channels.base import BaseChannel
from langgraph.graph.message import add_messages

from agentmatrix.scheduling.log import ActivationLog, entries_of

if TYPE_CHECKING:
    from agentmatrix.scheduling.scheduled_activation import ScheduledActivation

__all__ = ["ReducerChecks", "reducers_of", "updated"]

Channel = BaseChannel[Any, Any, Any]

_HAS_KNOWN_SLOTS = {*BinaryOperatorAggregate.__slots__, *BaseChannel.__slots__} == {"value", "operator", "key", "typ"}


def reducers_of(channels: Mapping[str, Channel]) -> dict[str, Callable[[Any, Any], Any]]:
    """By key, the reducers of a state."""
    found = {key: c.operator for key, c in channels.items() if isinstance(c, BinaryOperatorAggregate)}
    return {**found, **{key: c.reducer for key, c in channels.items() if isinstance(c, DeltaChannel)}}


def updated(channel: Channel, values: Sequence[Any]) -> Channel:
    """A copy of a channel that has taken these writes of one step."""
    other = _copy_of(channel)
    if isinstance(other, BinaryOperatorAggregate) and isinstance(value := other.value, list | dict | set):
        # A reducer may change its left side in place.
        other.value = list(value) if type(value) is list else copy.copy(value)
    other.update(values)
    return other


def _copy_of(channel: Channel) -> Channel:
    if type(channel) is not BinaryOperatorAggregate or not _HAS_KNOWN_SLOTS:
        return channel.copy()
    # Its own copy makes an empty value of the type of its key first.
    other: BinaryOperatorAggregate[Any] = BinaryOperatorAggregate.__new__(BinaryOperatorAggregate)
    other.typ, other.key, other.operator, other.value = channel.typ, channel.key, channel.operator, channel.value
    return other


class ReducerChecks:
    """The checks of one run.

    Args:
        log: what has run.
        reducers: by key, its reducer.

    Attributes:
        tried: by key, what a node behind this one sees and all that is recorded, with the writes that were tried last.
    """

    def __init__(self, log: ActivationLog, reducers: Mapping[str, Callable[[Any, Any], Any]]) -> None:
        self._log, self._reducers = log, reducers
        # By key: the entries that wrote it, and all that they wrote together, in the order of recording.
        self._whole: dict[str, tuple[int, Channel]] = {}
        self.tried: dict[str, tuple[Channel, Channel]] = {}

    def rebase(self) -> None:
        """The entries of the log are renumbered."""
        self._whole = {}

    def needs(self, key: str, values: Sequence[Any]) -> bool:
        """Whether there is a reducer for the key, and it might refuse these values."""
        reducer = self._reducers.get(key)
        if reducer is None:
            return False
        if reducer is add_messages:
            return not all(map(_are_messages, values))
        return reducer is not operator.add or not all(isinstance(value, list) for value in values)

    def check(
        self,
        key: str,
        activation: ScheduledActivation,
        values: Sequence[Any],
        seen: Channel,
        fold: Callable[[], Channel],
        base: Channel,
    ) -> None:
        """Try what a node has written.

        Args:
            key: the key.
            activation: the activation that has written it.
            values: what it has written.
            seen: the key's channel as the node saw it.
            fold: makes the key's channel after all that is recorded.
            base: the key's channel as the run began with it.

        Raises:
            Exception: what the reducer has raised, with a note that names key and nodes. Nothing has changed.
        """
        log = self._log
        try:
            own = updated(seen, values)
        except Exception as error:
            error.add_note(self._refusal(key, [activation.node], values))
            raise
        recorded = log.writers.get(key, 0)
        if not recorded & ~activation.ancestors:
            self.tried[key] = own, own
            return
        known, whole = self._whole.get(key, (0, base))
        if known != recorded:
            whole = fold()
        try:
            together = updated(whole, values)
        except Exception:
            # In their canonical order they may fit.
            try:
                together = self._in_order(key, activation, values, base)
            except Exception as error:
                others = {log.nodes[entry] for entry in entries_of(recorded & ~activation.ancestors)}
                error.add_note(self._refusal(key, sorted({activation.node, *others}), values))
                raise
        self.tried[key] = own, together

    def _in_order(self, key: str, activation: ScheduledActivation, values: Sequence[Any], base: Channel) -> Channel:
        log = self._log
        found = [
            (log.depths[entry], log.orders[entry], [value for name, value in log.writes[entry] if name == key])
            for entry in entries_of(log.writers.get(key, 0))
        ]
        found.append((activation.depth, activation.order, list(values)))
        channel = base
        for _, level in groupby(sorted(found, key=lambda one: one[:2]), key=lambda one: one[0]):
            channel = updated(channel, [value for *_, written in level for value in written])
        return channel

    def _refusal(self, key: str, nodes: Sequence[str], values: Sequence[Any]) -> str:
        reducer = getattr(self._reducers[key], "__name__", repr(self._reducers[key]))
        if len(nodes) > 1:
            return (
                f"The nodes {' and '.join(map(repr, nodes))} wrote the key {key!r}, and its reducer {reducer} does not "
                "take all of it together: let them write what fits, or annotate the key with another reducer"
            )
        types = " and ".join(dict.fromkeys(type(value).__name__ for value in values))
        return (
            f"The node {nodes[0]!r} wrote a value of type {types} to the key {key!r}, which its reducer {reducer} does "
            "not take: return what the reducer takes, or annotate the key with another one"
        )

    def recorded(self, activation: ScheduledActivation, bit: int) -> dict[str, tuple[int, Channel]]:
        """What was tried last is recorded.

        Args:
            activation: the activation.
            bit: its entry in the log.

        Returns:
            By key that was tried, the entries of what a node behind this one sees, and the channel after them.
        """
        tried, self.tried = self.tried, {}
        log = self._log
        self._whole.update({key: (log.writers[key], whole) for key, (_, whole) in tried.items()})
        return {key: ((activation.ancestors | bit) & log.writers[key], own) for key, (own, _) in tried.items()}


def _are_messages(value: Any) -> bool:
    """Whether `add_messages` takes a value, whatever it has before."""
    messages = value if isinstance(value, list) else [value]
    return all(isinstance(message, BaseMessage) and not isinstance(message, RemoveMessage) for message in messages)
