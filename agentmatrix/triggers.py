"""Trigger groups: the declarations that say what starts a node. Values and functions of them; no engine, no state.

A group belongs to a node and has sources: nodes of the graph, external signals, timers. Each source has one of four
kinds, as in the multi-group triggering of the AgentMatrix paper: regular (`all_of`, `any_of`, `at_least`), gate, latest
and optional.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Literal, TypeAlias

from agentmatrix.errors import BuildError

__all__ = [
    "After",
    "Every",
    "Group",
    "GroupState",
    "Idle",
    "Signal",
    "Source",
    "Sources",
    "after",
    "all_of",
    "any_of",
    "at_least",
    "every",
    "group_of",
    "idle",
    "label_of",
    "signal",
]

RESERVED_IN_SIGNALS = "/|:"


@dataclass(frozen=True)
class Signal:
    """An external input that arrives while the graph runs."""

    name: str


@dataclass(frozen=True)
class Every:
    """A timer that fires at intervals."""

    seconds: float
    name: str


@dataclass(frozen=True)
class After:
    """A timer that fires once."""

    seconds: float
    name: str


@dataclass(frozen=True)
class Idle:
    """Fires when nothing in the graph is at work."""

    name: str


Source: TypeAlias = str | Signal | Every | After | Idle
Sources: TypeAlias = Source | Iterable[Source]


class GroupState(Enum):
    """Whether a group can start its node."""

    WAITING = "waiting"
    """Not yet: a source that it needs may still deliver."""
    COMPLETE = "complete"
    """It starts its node."""
    CLOSED = "closed"
    """Never again, which is no error."""
    BROKEN = "broken"
    """Never again, which is an error."""


@dataclass(frozen=True)
class Group:
    """Sources that start a node together.

    Attributes:
        name: the name that the activation gets, `get_activation().group`.
        need: the number of regular sources that must have delivered.
        regular: the sources that trigger. One item of each of the first `need` is consumed.
        gates: sources that must have delivered too; one item of each is consumed.
        latest: sources that never trigger; the newest item of each is read and not consumed.
        optional: sources that never trigger; one item of each is consumed, if there is one.
        demands: whether it is an error that fewer than `need` regular sources can deliver.
        tolerant: whether the node starts with the sources that are left (`skipped="ok"`).
        cancel_rest: whether the regular sources that were not consumed are cancelled.
    """

    name: str
    need: int
    regular: tuple[Source, ...]
    gates: tuple[Source, ...] = ()
    latest: tuple[Source, ...] = ()
    optional: tuple[Source, ...] = ()
    demands: bool = True
    tolerant: bool = False
    cancel_rest: bool = False

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The sources of every kind."""
        return (*self.regular, *self.gates, *self.latest, *self.optional)

    @cached_property
    def labelled(self) -> tuple[tuple[Source, str], ...]:
        """The sources of every kind, each with its label."""
        return tuple((source, label_of(source)) for source in self.sources)

    @cached_property
    def regular_labels(self) -> frozenset[str]:
        """The labels of the regular sources."""
        return frozenset(map(label_of, self.regular))

    @cached_property
    def gate_labels(self) -> frozenset[str]:
        """The labels of the gates."""
        return frozenset(map(label_of, self.gates))

    @cached_property
    def triggering(self) -> tuple[Source, ...]:
        """The sources that the group waits for: regular ones and gates."""
        return (*self.regular, *self.gates)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of the sources that the group waits for."""
        return tuple(label_of(source) for source in self.triggering)

    @cached_property
    def needs_all_nodes(self) -> bool:
        """Whether it waits for all of its sources, each a node, and starts without none."""
        is_plain = not (self.tolerant or self.latest or self.optional)
        return is_plain and self.need == len(self.regular) and all(isinstance(source, str) for source in self.sources)

    @property
    def is_external(self) -> bool:
        """Whether signals and timers alone can complete it."""
        external = sum(not isinstance(source, str) for source in self.regular)
        return external >= self.need and all(not isinstance(source, str) for source in self.gates)

    def needs_only(self, source: str) -> bool:
        """Whether one item of this source completes it."""
        return source in self.regular and self.need == 1 and not self.gates

    def missing(self, delivered: Collection[str]) -> tuple[str, ...]:
        """The labels of the sources that the group still waits for."""
        return tuple(label for label in self.labels if label not in delivered)

    def state(self, delivered: Collection[str], exhausted: Collection[str]) -> GroupState:
        """Whether the group can start its node.

        Args:
            delivered: the labels of the sources that have an item.
            exhausted: the labels of the sources that have none and can deliver none any more.
        """
        regular, gates = self.regular_labels, self.gate_labels
        count = len(regular.intersection(delivered))
        settled = self.tolerant and all(label in delivered or label in exhausted for label in regular)
        enough = count >= self.need or (settled and count > 0)
        if enough and gates.issubset(delivered):
            return GroupState.COMPLETE
        hopeless = settled and not enough if self.tolerant else len(regular.difference(exhausted)) < self.need
        if hopeless:
            return GroupState.BROKEN if self.demands and not self.tolerant else GroupState.CLOSED
        if gates.isdisjoint(exhausted):
            return GroupState.WAITING
        if self.tolerant:
            return GroupState.CLOSED
        # An any_of whose gate is exhausted is an error only once one of its sources has delivered.
        return GroupState.BROKEN if self.demands or enough else GroupState.WAITING


def signal(name: str) -> Signal:
    """A source that takes external values while the graph runs, sent by `run.signal(name, value)` of a live run.

    Args:
        name: its name in this graph.

    Raises:
        BuildError: the name is empty, or has a character that addresses of signals use.
    """
    if not name or any(character in name for character in RESERVED_IN_SIGNALS):
        raise BuildError(f"{name!r} cannot name a signal: use a name without {' '.join(RESERVED_IN_SIGNALS)}")
    return Signal(name)


def every(seconds: float, *, name: str | None = None) -> Every:
    """A source that fires at intervals, as long as something else keeps the run alive.

    Args:
        seconds: the seconds between two ticks. While a tick is unread, no other tick is added.
        name: its label; by default `"every(seconds)"`.

    Raises:
        BuildError: `seconds` is not positive.
    """
    return Every(_positive(seconds), name or f"every({seconds:g})")


def after(seconds: float, *, name: str | None = None) -> After:
    """A source that fires once.

    Args:
        seconds: the seconds between the start of the run and the tick.
        name: its label; by default `"after(seconds)"`.

    Raises:
        BuildError: `seconds` is not positive.
    """
    return After(_positive(seconds), name or f"after({seconds:g})")


def idle(*, name: str = "idle()") -> Idle:
    """A source that fires each time that a `CyclicGraph` comes to rest: nothing is at work, and nothing is unread.

    A question to a person is work. Timers, and an input that is still open, are not. When all that it has started has
    ended and has led to nothing else, it does not fire again; otherwise it does, and what it starts counts towards
    `max_rounds`.

    Args:
        name: its label.
    """
    return Idle(name)


def all_of(
    *sources: Source,
    gate: Sources = (),
    latest: Sources = (),
    optional: Sources = (),
    skipped: Literal["error", "ok"] = "error",
    name: str | None = None,
) -> Group:
    """A group that waits for one item of every source.

    Args:
        sources: nodes, signals and timers.
        gate: sources that must have delivered too; one item of each is consumed.
        latest: sources that never trigger; the newest item of each is read, and not consumed.
        optional: sources that never trigger; one item of each is consumed, if there is one.
        skipped: what to do when a source can no longer deliver: `"error"` ends the run with a `TriggerError`, `"ok"`
            starts the node without it.
        name: the value of `get_activation().group`; by default the group as it is written.

    Raises:
        BuildError: the group can never start its node, or names a source twice.
    """
    written = f"all_of({', '.join(map(label_of, sources))})"
    return _group(name or written, len(sources), sources, (gate, latest, optional), skipped, demands=True)


def any_of(
    *sources: Source,
    gate: Sources = (),
    latest: Sources = (),
    optional: Sources = (),
    skipped: Literal["error", "ok"] = "error",
    cancel_rest: bool = False,
    name: str | None = None,
) -> Group:
    """A group that waits for one item of one source; skipped sources do not matter.

    Args:
        sources: nodes, signals and timers.
        gate: as in `all_of`.
        latest: as in `all_of`.
        optional: as in `all_of`.
        skipped: what to do when a gate can no longer deliver and one of the sources has delivered.
        cancel_rest: cancel the other sources when the group starts its node.
        name: as in `all_of`.

    Raises:
        BuildError: as in `all_of`.
    """
    written = f"any_of({', '.join(map(label_of, sources))})"
    rest = (gate, latest, optional)
    return _group(name or written, min(1, len(sources)), sources, rest, skipped, demands=False, cancels=cancel_rest)


def at_least(
    k: int,
    *sources: Source,
    gate: Sources = (),
    latest: Sources = (),
    optional: Sources = (),
    skipped: Literal["error", "ok"] = "error",
    cancel_rest: bool = False,
    name: str | None = None,
) -> Group:
    """A group that waits for one item each of `k` different sources.

    Args:
        k: the number of sources.
        sources: nodes, signals and timers.
        gate: as in `all_of`.
        latest: as in `all_of`.
        optional: as in `all_of`.
        skipped: as in `all_of`; `"ok"` starts the node with fewer, once no other source can deliver.
        cancel_rest: as in `any_of`.
        name: as in `all_of`.

    Raises:
        BuildError: as in `all_of`, or `k` is not between 1 and the number of sources.
    """
    written = f"at_least({k}, {', '.join(map(label_of, sources))})"
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(sources):
        raise BuildError(f"{written} can never be complete: k must be between 1 and the number of its regular sources")
    rest = (gate, latest, optional)
    return _group(name or written, k, sources, rest, skipped, demands=True, cancels=cancel_rest)


def _group(
    name: str,
    need: int,
    sources: tuple[Source, ...],
    others: tuple[Sources, Sources, Sources],
    skipped: str,
    *,
    demands: bool,
    cancels: bool = False,
) -> Group:
    gates, latest, optional = map(_listed, others)
    if skipped not in ("error", "ok"):
        raise BuildError(f"skipped={skipped!r} of the group {name!r} is unknown: choose 'error' or 'ok'")
    group = Group(name, need, tuple(sources), gates, latest, optional, demands, skipped == "ok", cancels)
    if not group.triggering:
        raise BuildError(f"the group {name!r} has neither a regular source nor a gate, so nothing starts it: add one")
    labels = [label_of(source) for source in group.sources]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise BuildError(f"the group {name!r} names the source {twice!r} twice: leave one out")
    return group


def group_of(node: str, given: Group | Source) -> Group:
    """The group itself, or the group that has one source alone.

    Args:
        node: the node that the group starts; for the message.
        given: a group or a source.

    Raises:
        BuildError: it is neither.
    """
    if isinstance(given, Group):
        return given
    if isinstance(given, str | Signal | Every | After | Idle):
        return any_of(given)
    raise BuildError(f"{given!r} cannot start {node!r}: use all_of(...), any_of(...), at_least(...) or a source")


def label_of(source: Source) -> str:
    """The name of a source in activations, errors and explanations.

    Raises:
        BuildError: it is no source.
    """
    if isinstance(source, str):
        return source
    if isinstance(source, Signal | Every | After | Idle):
        return source.name
    raise BuildError(
        f"{source!r} is no source: use a node's name, signal(name), every(seconds), after(seconds) or idle()"
    )


def _positive(seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise BuildError(f"a timer of {seconds!r} seconds never fires: give a positive number")
    return seconds


def _listed(sources: Sources) -> tuple[Source, ...]:
    if isinstance(sources, str | Signal | Every | After | Idle):
        return (sources,)
    try:
        return tuple(sources)
    except TypeError:
        return (sources,)  # type: ignore[return-value]  # `label_of` refuses it with a better message
