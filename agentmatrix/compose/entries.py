"""What a ledger holds: activations that have run, those that are due, packets. Plain values; knows no engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from langgraph.types import Send

from agentmatrix.compose.folding import Write

__all__ = ["Entry", "Firing", "Item", "Pending", "Plan", "entry_of", "plain_entry"]


@dataclass(frozen=True)
class Entry:
    """One activation of one node.

    Attributes:
        node: the node.
        writes: what it wrote, as pairs of key and value.
        chosen: the nodes that its routers and commands chose.
        sends: the packets that they sent.
        follows: whether its unconditional edges are taken; not so where an error handler answered for it.
        origin: for a node that a `Send` started: the activation that sent it, and its number among its sends.
        causes: the activations that led to it directly.
        outside: an update that came from outside of the run and belongs to no node's turn.
        number: which of the node's activations it is, from 1, where trigger groups count them.
        group: the name of the trigger group that started it, if one did.
        chain: those of its causes that it follows in a loop.
    """

    node: str
    writes: tuple[Write, ...] = ()
    chosen: tuple[str, ...] = ()
    sends: tuple[Send, ...] = ()
    follows: bool = True
    origin: tuple[int, int] | None = None
    causes: tuple[int, ...] = ()
    outside: bool = False
    number: int = 0
    group: str | None = None
    chain: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pending:
    """A packet whose node has not run yet; `number` says which of the node's activations it starts."""

    origin: tuple[int, int]
    send: Send
    number: int = 0


@dataclass(frozen=True)
class Item:
    """What a source has delivered.

    Attributes:
        entries: the activations of a node that it is made of.
        number: of a signal or a tick.
        at: its place in the order of arrival.
        several: whether packets made it, so that it stands for a list.
    """

    entries: tuple[int, ...] = ()
    number: int = 0
    at: int = 0
    several: bool = False


@dataclass(frozen=True)
class Firing:
    """An activation that is due.

    Attributes:
        node: the node.
        number: which of its activations it is, from 1.
        group: the name of the trigger group, or None where an edge or a command leads to it.
        items: what it was given, by the label of the source.
        causes: the activations that led to it.
        chain: those among them that it follows in a loop.
        called: whether a command from outside called for it.
        error: what is wrong with it: it raises this instead of running.
    """

    node: str
    number: int
    group: str | None = None
    items: Mapping[str, Item] = field(default_factory=dict)
    causes: tuple[int, ...] = (0,)
    chain: tuple[int, ...] = ()
    called: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class Plan:
    """What may run now, and what will not run at all.

    Attributes:
        ready: the nodes that may start, in canonical order.
        pending: the packets to deliver, in the order of sending.
        skipped: the nodes that no branch leads to any more.
        done: the nodes that have run, or are skipped.
        fired: what trigger groups have started and has not finished; their nodes are in `ready`.
    """

    ready: tuple[str, ...] = ()
    pending: tuple[Pending, ...] = ()
    skipped: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    fired: tuple[Firing, ...] = ()

    @cached_property
    def packets(self) -> list[Send]:
        """The pending packets themselves."""
        return [pending.send for pending in self.pending]


_DEFAULTS = {field.name: field.default for field in fields(Entry)}


def plain_entry(activation: Entry) -> dict[str, Any]:
    """What a checkpoint keeps of it."""
    return {name: value for name, value in vars(activation).items() if value != _DEFAULTS[name]}


def entry_of(values: Mapping[str, Any]) -> Entry:
    """The entry out of what a checkpoint keeps."""
    return Entry(
        **{
            **values,
            "writes": tuple((key, value) for key, value in values.get("writes", ())),
            "chosen": tuple(values.get("chosen", ())),
            "sends": tuple(values.get("sends", ())),
            "causes": tuple(values.get("causes", ())),
            "chain": tuple(values.get("chain", ())),
            "origin": tuple(values["origin"]) if values.get("origin") else None,
        }
    )


def plain_firing(firing: Firing) -> dict[str, Any]:
    """What a checkpoint keeps of it."""
    kept = {name: value for name, value in vars(firing).items() if name not in ("items", "error")}
    items = {label: [list(i.entries), i.number, i.at, i.several] for label, i in firing.items.items()}
    return {**kept, "items": items}


def firing_of(values: Mapping[str, Any]) -> Firing:
    """The firing out of what a checkpoint keeps."""
    items = {label: Item(tuple(entries), *rest) for label, (entries, *rest) in values["items"].items()}
    return Firing(**{**values, "items": items, "causes": tuple(values["causes"]), "chain": tuple(values["chain"])})
