"""The rules of trigger groups as plain functions over the order of arrival. They know nothing of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import agentmatrix


@dataclass(frozen=True)
class Group:
    """One trigger group, as a test writes it down.

    Attributes:
        kind: "all_of", "any_of" or "at_least".
        sources: the labels of its regular sources.
        k: how many of them, for "at_least".
        gate, latest, optional: labels.
        skipped: "error" or "ok".
    """

    kind: str
    sources: tuple[str, ...]
    k: int = 0
    gate: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    skipped: Literal["error", "ok"] = "error"
    name: str = "group"

    def built(self) -> Any:
        """The group that a user would write."""
        options: dict[str, Any] = {"skipped": self.skipped, "name": self.name}
        for kind in ("gate", "latest", "optional"):
            if labels := getattr(self, kind):
                options[kind] = labels[0] if len(labels) == 1 else list(labels)
        if self.kind == "at_least":
            return agentmatrix.at_least(self.k, *self.sources, **options)
        return getattr(agentmatrix, self.kind)(*self.sources, **options)

    @property
    def need(self) -> int:
        """How many regular sources must have an item."""
        return {"all_of": len(self.sources), "any_of": min(1, len(self.sources)), "at_least": self.k}[self.kind]

    @property
    def least(self) -> int:
        """How many are enough once nothing more can come."""
        return min(1, len(self.sources)) if self.skipped == "ok" else self.need

    def regular(self, came: Sequence[str]) -> list[str]:
        """The regular sources among those that came, first come first."""
        return [label for label in came if label in self.sources]

    def used(self, came: Sequence[str], gone: Sequence[str]) -> list[str] | None:
        """What the group fires with, or None while it cannot."""
        if not set(self.gate) <= set(came):
            return None
        regular = self.regular(came)
        settled = all(label in came or label in gone for label in self.sources)
        if len(regular) < (self.least if settled else self.need):
            return None
        others = [label for label in (*self.gate, *self.latest, *self.optional) if label in came]
        return [*regular[: self.need], *others]

    def closed(self, came: Sequence[str], gone: Sequence[str]) -> bool:
        """Whether it can never fire any more, and what that means for the run is known: whether anybody misses the
        gate of an any_of is not, before one of its sources has come."""
        early = self.kind != "any_of" or self.skipped == "ok" or not self.sources
        if set(self.gate) & set(gone) and (early or self.regular(came)):
            return True
        return len(self.sources) - len(self.regular(gone)) < self.least

    def demands(self, gone: Sequence[str]) -> bool:
        """Whether a closed group ends the run. An any_of tolerates that all its sources are skipped, not that a gate
        of its own stays shut to those that come."""
        if self.skipped == "ok":
            return False
        return self.kind != "any_of" or not self.sources or len(self.regular(gone)) < len(self.sources)

    def missing(self, gone: Sequence[str]) -> set[str]:
        """The skipped sources that closed it."""
        return {label for label in (*self.sources, *self.gate) if label in gone}


@dataclass(frozen=True)
class Outcome:
    """What becomes of a node of a Dag.

    Attributes:
        step: the number of the event that decided it, from 0.
        kind: "fires", "skipped" or "fails".
        group: the name of the group that fired or that demanded.
        labels: the sources whose items it has, or those that were skipped.
    """

    step: int
    kind: str
    group: str = ""
    labels: frozenset[str] = frozenset()


def outcome(groups: Sequence[Group], events: Sequence[tuple[str, bool]]) -> Outcome:
    """What becomes of a node with these groups when its sources come (True) or are skipped (False) in this order."""
    came: list[str] = []
    gone: list[str] = []
    for step, (label, delivered) in enumerate(events):
        (came if delivered else gone).append(label)
        for group in groups:
            used = group.used(came, gone)
            if used is not None:
                return Outcome(step, "fires", group.name, frozenset(used))
        if all(group.closed(came, gone) for group in groups):
            for group in groups:
                if group.demands(gone):
                    return Outcome(step, "fails", group.name, frozenset(group.missing(gone)))
            return Outcome(step, "skipped")
    raise AssertionError("not every source has settled")
