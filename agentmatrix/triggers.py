"""Trigger groups: what starts a node. Pure; knows no engine.

A group belongs to a node and has sources: nodes of the graph, signals from outside, timers. Each source has one of four
kinds, as in the multi-group triggering of the AgentMatrix paper: regular (`all_of`, `any_of`, `at_least`), gate, latest
and optional.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from agentmatrix.errors import BuildError

__all__ = [
    "Every",
    "After",
    "Group",
    "Signal",
    "Source",
    "Sources",
    "Verdict",
    "after",
    "all_of",
    "any_of",
    "at_least",
    "every",
    "group_of",
    "label_of",
    "signal",
]

RESERVED_IN_SIGNALS = "/|:"


@dataclass(frozen=True)
class Signal:
    """A real-time input from outside while the graph runs."""

    name: str


@dataclass(frozen=True)
class Every:
    """A timer that fires again and again."""

    seconds: float
    name: str


@dataclass(frozen=True)
class After:
    """A timer that fires once."""

    seconds: float
    name: str


Source: TypeAlias = str | Signal | Every | After
Sources: TypeAlias = Source | Iterable[Source]


class Verdict(Enum):
    """Where a group stands."""

    WAITING = "waiting"
    COMPLETE = "complete"
    CLOSED = "closed"
    """It can never be complete, and does not mind."""
    BROKEN = "broken"
    """It can never be complete, and demands to be."""


@dataclass(frozen=True)
class Group:
    """Sources that start a node together.

    Attributes:
        name: what the activation is told.
        need: how many of the regular sources it takes.
        regular: the sources that trigger. One item of each that counts is consumed.
        gates: sources that must have fired too, even when the rest is ready; consumed.
        latest: sources that never trigger, and of which the newest item is read and not consumed.
        optional: sources that never trigger, and of which an item is taken if there is one.
        demands: whether it is an error that too few regular sources can come.
        tolerant: whether skipped sources are put up with (`skipped="ok"`).
        cancel_rest: whether the regular sources that did not count are cancelled.
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

    @property
    def sources(self) -> tuple[Source, ...]:
        """All of them."""
        return (*self.regular, *self.gates, *self.latest, *self.optional)

    @property
    def triggering(self) -> tuple[Source, ...]:
        """Those that the group waits for."""
        return (*self.regular, *self.gates)

    @property
    def is_from_outside(self) -> bool:
        """Whether signals and timers alone can complete it."""
        outside = sum(not isinstance(source, str) for source in self.regular)
        return outside >= self.need and all(not isinstance(source, str) for source in self.gates)

    def needs_only(self, source: str) -> bool:
        """Whether an item of this source completes it."""
        return source in self.regular and self.need == 1 and not self.gates

    def verdict(self, have: Collection[str], gone: Collection[str]) -> Verdict:
        """Where the group stands.

        Args:
            have: the labels of the sources that have an item.
            gone: the labels of those that have none and can deliver none any more.
        """
        regular, gates = {label_of(s) for s in self.regular}, {label_of(s) for s in self.gates}
        count = len(regular.intersection(have))
        settled = all(label in have or label in gone for label in regular)
        enough = count >= self.need or (self.tolerant and settled and count > 0)
        if enough and gates.issubset(have):
            return Verdict.COMPLETE
        hopeless = settled and not enough if self.tolerant else len(regular.difference(gone)) < self.need
        if hopeless:
            return Verdict.BROKEN if self.demands and not self.tolerant else Verdict.CLOSED
        if gates.isdisjoint(gone):
            return Verdict.WAITING
        if self.tolerant:
            return Verdict.CLOSED
        # Whether anybody misses the gate of an any_of is not known before one of its sources has come.
        return Verdict.BROKEN if self.demands or enough else Verdict.WAITING

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the sources that it waits for."""
        return tuple(label_of(source) for source in self.triggering)

    def missing(self, have: Collection[str]) -> tuple[str, ...]:
        """The labels that it waits for."""
        return tuple(label for label in self.labels if label not in have)


def signal(name: str) -> Signal:
    """A source that is fed from outside while the graph runs, by `run.signal(name, value)` of a live run.

    Args:
        name: its name, in this graph.

    Raises:
        BuildError: the name is empty or has a character that addresses use.
    """
    if not name or any(character in name for character in RESERVED_IN_SIGNALS):
        raise BuildError(f"{name!r} cannot name a signal: use a name without {' '.join(RESERVED_IN_SIGNALS)}")
    return Signal(name)


def every(seconds: float, *, name: str | None = None) -> Every:
    """A source that fires every so many seconds, while something else keeps the run going.

    Args:
        seconds: the time between two ticks. A tick that nobody has read yet is not followed by another one.
        name: its label; by default `"every(seconds)"`.

    Raises:
        BuildError: `seconds` is not positive.
    """
    return Every(_positive(seconds), name or f"every({seconds:g})")


def after(seconds: float, *, name: str | None = None) -> After:
    """A source that fires once, so many seconds after the run has begun.

    Args:
        seconds: the time until it fires.
        name: its label; by default `"after(seconds)"`.

    Raises:
        BuildError: `seconds` is not positive.
    """
    return After(_positive(seconds), name or f"after({seconds:g})")


def all_of(
    *sources: Source,
    gate: Sources = (),
    latest: Sources = (),
    optional: Sources = (),
    skipped: Literal["error", "ok"] = "error",
    name: str | None = None,
) -> Group:
    """A group that waits for an item of each source.

    Args:
        sources: nodes, signals and timers.
        gate: sources that must have fired too; consumed.
        latest: sources that never trigger; their newest item is read, and not consumed.
        optional: sources that never trigger; an item is taken if there is one.
        skipped: what to do when a source can no longer come: end the run with a `TriggerError`, or start without it.
        name: what `get_activation().group` says; by default the group as it is written.

    Raises:
        BuildError: the group can never start anything, or names a source twice.
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
    """A group that waits for an item of one source; skipped ones do not matter.

    Args:
        sources: nodes, signals and timers.
        gate: as in `all_of`.
        latest: as in `all_of`.
        optional: as in `all_of`.
        skipped: what to do when a gate can no longer come and one of the sources has.
        cancel_rest: stop the other sources when the group starts its node.
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
    """A group that waits for items of `k` different sources.

    Args:
        k: how many.
        sources: nodes, signals and timers.
        gate: as in `all_of`.
        latest: as in `all_of`.
        optional: as in `all_of`.
        skipped: as in `all_of`; "ok" starts the node with fewer, once no more can come.
        cancel_rest: stop the other sources when the group starts its node.
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
    """The group itself; of a bare source the group of that source alone.

    Args:
        node: the node that it is to start.
        given: the group or the source.

    Raises:
        BuildError: it is neither.
    """
    if isinstance(given, Group):
        return given
    if isinstance(given, str | Signal | Every | After):
        return any_of(given)
    raise BuildError(f"{given!r} cannot start {node!r}: use all_of(...), any_of(...), at_least(...) or a source")


def label_of(source: Source) -> str:
    """What a source is called in activations, errors and explanations.

    Raises:
        BuildError: it is no source.
    """
    if isinstance(source, str):
        return source
    if isinstance(source, Signal | Every | After):
        return source.name
    raise BuildError(f"{source!r} is no source: use a node's name, signal(name), every(seconds) or after(seconds)")


def _positive(seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise BuildError(f"a timer of {seconds!r} seconds never fires: give a positive number")
    return seconds


def _listed(sources: Sources) -> tuple[Source, ...]:
    if isinstance(sources, str | Signal | Every | After):
        return (sources,)
    try:
        return tuple(sources)
    except TypeError:
        return (sources,)  # type: ignore[return-value]  # what is no source is refused by its label
