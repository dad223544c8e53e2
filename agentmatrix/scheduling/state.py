"""What an activation sees, and the final state: folds of the log over LangGraph's own channels.

All writes of one depth reach a channel in one `update()`, in LangGraph's order of one superstep, so that `Overwrite`,
guards and `Topic` mean what they mean there. A channel is copied before it changes: siblings share the folds of their
common ancestors.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langgraph.channels import BinaryOperatorAggregate, DeltaChannel, LastValue, Topic, UntrackedValue
from langgraph.channels.base import BaseChannel
from langgraph.errors import InvalidUpdateError
from langgraph.types import Overwrite

from agentmatrix.scheduling.log import ActivationLog, entries_of
from agentmatrix.scheduling.reducer_checks import ReducerChecks, reducers_of, updated
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write

__all__ = ["Channels", "State", "StateKeys", "is_overwrite", "saved_value"]

Channel = BaseChannel[Any, Any, Any]
Channels = dict[str, Channel]

_KEPT_VIEWS = 64
_KEPT_FOLDS = 256
"""How many folds of a key are remembered. Those that activations at work need are made again where one is missing."""
_NO_WRITES: tuple[Any, ...] = ()


class StateKeys:
    """How the channels of a state take writes: what never changes, made once a graph.

    Args:
        channels: the channels of the state, by key.
        trusted: the keys that nobody but AgentMatrix writes, and whose reducers refuse nothing.

    Attributes:
        all: the keys.
        reducers: by key, its reducer.
        single: the keys that hold one value and have no reducer: unrelated nodes must not both write them.
        stepwise: the keys whose channels hear of each step in which nobody wrote them.
    """

    def __init__(self, channels: Mapping[str, Channel], trusted: Iterable[str] = ()) -> None:
        self.all, self.trusted = frozenset(channels), frozenset(trusted)
        self.reducers = reducers_of(channels)
        self.single = frozenset(key for key, channel in channels.items() if _is_single(channel))
        reduced = (BinaryOperatorAggregate, Topic)
        self.tolerant = frozenset(key for key, channel in channels.items() if isinstance(channel, reduced))
        silent = (LastValue, BinaryOperatorAggregate, UntrackedValue)
        self.stepwise = tuple(key for key, channel in channels.items() if not isinstance(channel, silent))
        self.untracked = frozenset(key for key, channel in channels.items() if isinstance(channel, UntrackedValue))


def _is_single(channel: Channel) -> bool:
    guarded = isinstance(channel, UntrackedValue) and channel.guard
    return isinstance(channel, LastValue) or guarded


class State:
    """Folds of a log.

    Args:
        log: what has run.
        keys: how the channels take writes.
        base: the channels that the run began with; they are never changed.
    """

    def __init__(self, log: ActivationLog, keys: StateKeys, base: Channels) -> None:
        self.log, self.keys, self.base = log, keys, base
        self._views: dict[int, Channels] = {}
        self._folds: dict[str, dict[int, Channel]] = {}
        self._reducers = ReducerChecks(log, keys.reducers)
        # By key that holds one value, and by the events from outside that an entry knows: the entries that wrote it.
        self._writers_by_events: dict[str, dict[int, int]] = {}
        self._indexed = 0

    def rebase(self, base: Channels) -> None:
        """The beginning of the log has been folded for good into `base`, and its entries are renumbered."""
        self.base, self._views, self._folds = base, {}, {}
        self._reducers.rebase()
        self._writers_by_events, self._indexed = {}, 0

    def fold(self, entries: int, below: int | None = None) -> Channels:
        """The channels after these entries.

        Args:
            entries: a bit set that contains the ancestors of each of its entries.
            below: a depth that is greater than theirs; by default the log's own is taken, and the search is longer.

        Returns:
            A dict that is shared: neither it nor its channels may be changed.
        """
        # A signal writes nothing: in the key of a fold it would only make the remembered ones miss.
        entries &= ~self.log.silent
        if (fold := self._views.get(entries)) is not None:
            return fold
        fold = dict(self.base)
        if entries:
            stepwise = self.keys.stepwise
            for key, writers in self.log.writers.items():
                if key not in stepwise and (own := entries & writers):
                    fold[key] = self._fold_key(key, own, below, self.log.written[key])
            for key in stepwise:
                fold[key] = self._fold_key(key, entries, below, self.log.loud)
        if len(self._views) > _KEPT_VIEWS:
            self._views.clear()
        self._views[entries] = fold
        return fold

    def _fold_key(self, key: str, entries: int, below: int | None, depths: Sequence[int]) -> Channel:
        """One channel after these entries, of these depths: what others have written in between makes no difference,
        so that a long queue does not make each view a new one for every key."""
        levels, folds = self.log.levels, self._folds.setdefault(key, {0: self.base[key]})
        place = len(depths) if below is None else bisect_left(depths, below)
        steps: list[tuple[int, int]] = []
        while (fold := folds.get(entries)) is None:
            place -= 1
            if top := entries & levels[depths[place]]:
                steps.append((entries, top))
                # One value is held, the last one.
                entries = 0 if key in self.keys.single else entries ^ top
        if len(folds) > _KEPT_FOLDS:
            kept = dict(list(folds.items())[-_KEPT_FOLDS // 4 :])
            self._folds[key] = folds = {0: self.base[key], **kept}
        for whole, top in reversed(steps):
            fold = folds[whole] = self._step(key, fold, top)
        return fold

    def final(self) -> Channels:
        """The channels after all that has run."""
        return self.fold(self.log.all)

    def _step(self, key: str, before: Channel, level: int) -> Channel:
        """A channel after the entries of one depth."""
        log = self.log
        is_alone = level & (level - 1) == 0
        entries = (level.bit_length() - 1,) if is_alone else sorted(entries_of(level), key=log.orders.__getitem__)
        values = [value for entry in entries for name, value in log.writes[entry] if name == key]
        if not values:
            return updated(before, _NO_WRITES) if before.is_available() else before
        if key in self.keys.single and len(values) == 1:
            after = before.copy()
            after.update(values)
            return after
        # Several nodes may write one value where something from outside has come between them: the last one counts.
        try:
            return updated(before, values[-1:] if key in self.keys.single else values)
        except Exception as error:
            nodes = sorted({log.nodes[entry] for entry in entries_of(level)})
            error.add_note(f"At key {key!r}, written by {' and '.join(map(repr, nodes))}")
            raise

    def check(self, activation: ScheduledActivation, writes: Sequence[Write]) -> None:
        """Whether these writes can be recorded.

        Raises:
            InvalidUpdateError: two nodes of which neither comes after the other write a key that holds one value; or
                the channel does not take what the nodes of this depth write to it. The message names key and nodes.
            Exception: what a reducer has raised, with a note that names them.
        """
        log, single = self.log, self.keys.single
        self._reducers.tried = {}
        for key in {key for key, _ in writes} - self.keys.trusted:
            if key in single:
                if log.writers.get(key, 0) & ~activation.ancestors:
                    for other in entries_of(self._rivals(key, activation)):
                        raise _conflict(key, activation.node, log.nodes[other])
                if len(writes) > 1 and sum(name == key for name, _ in writes) > 1:
                    self._try(key, activation, [value for name, value in writes if name == key], 0)
                continue
            values = [value for name, value in writes if name == key]
            level = log.levels[activation.depth] if activation.depth < len(log.levels) else 0
            beside = log.writers.get(key, 0) & level
            if key not in self.keys.tolerant:
                if beside or len(values) > 1:
                    self._try(key, activation, values, beside)
            elif any(map(is_overwrite, values)):
                if sum(map(is_overwrite, values)) > 1:
                    self._try(key, activation, values, 0)
                for other in entries_of(beside):
                    if any(name == key and is_overwrite(value) for name, value in log.writes[other]):
                        raise _conflict(key, activation.node, log.nodes[other], "Overwrite")
            if self._reducers.needs(key, values):
                self._check_reducer(key, activation, values)

    def _rivals(self, key: str, activation: ScheduledActivation) -> int:
        """The entries that wrote a key, know the same events from outside, and are no ancestors of the activation."""
        log = self.log
        for entry in range(self._indexed, len(log)):
            events = log.ancestors[entry] & log.outside
            for name in {name for name, _ in log.writes[entry]} if not log.outside >> entry & 1 else ():
                if name in self.keys.single:
                    known = self._writers_by_events.setdefault(name, {})
                    known[events] = known.get(events, 0) | 1 << entry
        self._indexed = len(log)
        events = activation.ancestors & log.outside
        return self._writers_by_events.get(key, {}).get(events, 0) & ~activation.ancestors & ~log.earlier

    def _check_reducer(self, key: str, activation: ScheduledActivation, values: Sequence[Any]) -> None:
        log = self.log
        writers, depths = log.writers.get(key, 0), log.written.get(key, ())
        seen = self._fold_key(key, activation.ancestors & writers, activation.depth, depths)

        def fold() -> Channel:
            return self._fold_key(key, writers, None, depths)

        self._reducers.check(key, activation, values, seen, fold, self.base[key])

    def record(self, activation: ScheduledActivation, bit: int) -> None:
        """The writes that were checked last are recorded as the entry `bit`."""
        for key, (entries, channel) in self._reducers.recorded(activation, bit).items() if self._reducers.tried else ():
            folds = self._folds.setdefault(key, {0: self.base[key]})
            if len(folds) < _KEPT_FOLDS:
                folds[entries] = channel

    def _try(self, key: str, activation: ScheduledActivation, values: list[Any], beside: int) -> None:
        others = [value for e in entries_of(beside) for name, value in self.log.writes[e] if name == key]
        try:
            updated(self.base[key], [*others, *values])
        except InvalidUpdateError as error:
            nodes = sorted({activation.node, *(self.log.nodes[entry] for entry in entries_of(beside))})
            error.add_note(f"key {key!r}, written by {' and '.join(map(repr, nodes))}")
            raise


def saved_value(channel: BaseChannel[Any, Any, Any]) -> Any:
    """From which `from_checkpoint` makes the channel: in full, also where LangGraph would keep differences."""
    full = isinstance(channel, DeltaChannel) and channel.is_available()
    return channel.get() if full else channel.checkpoint()


def is_overwrite(value: Any) -> bool:
    """Whether a write replaces the value of its channel, past the reducer."""
    if not isinstance(value, dict):
        return isinstance(value, Overwrite)
    # As LangGraph has it, also where JSON has made a dict of it.
    return value.keys() == {"__overwrite__"} or (value.get("type") == "__overwrite__" and "value" in value)


def _conflict(key: str, node: str, other: str, what: str = "value") -> InvalidUpdateError:
    first, second = sorted((node, other))
    who = f"The nodes {first!r} and {second!r} both write" if first != second else f"{first!r} writes"
    return InvalidUpdateError(
        f"At key {key!r}: Can receive only one {what} per step. {who} it, it has no reducer that could join the two, "
        "and neither comes after the other: add an edge between them, or annotate the key with a reducer"
    )
