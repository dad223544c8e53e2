"""Actors: one node of a graph that stands for many agents by key. How they are named, and which of them there are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentmatrix.errors import HiringError, SendError
from agentmatrix.middleware import MiddlewareChain

__all__ = ["Actor", "Actors", "Staff", "address_of", "split_path"]

_LONGEST = 80
"""How many characters of an escaped key the name of a node has at most."""
_RESERVED = re.compile(r"[\x00-\x1f\x7f%/:|]")


def split_path(path: str) -> tuple[str, str]:
    """The actors and the key of a path: `"staff/ann"` gives `("staff", "ann")`; of a node the key is ""."""
    name, _, key = path.partition("/")
    return name, key


def address_of(path: str) -> str:
    """What LangGraph calls an actor: a name that a node, a namespace and a line of a log can have.

    Characters that are reserved there are escaped as in URLs. Of a long key the beginning is kept, and a hash.
    """
    name, key = split_path(path)
    escaped = _RESERVED.sub(lambda found: f"%{ord(found.group()):02X}", key)
    if len(escaped) > _LONGEST:
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        escaped = f"{escaped[: _LONGEST - 17]}~{digest}"
    return f"{name}/{escaped}"


@dataclass(frozen=True)
class Actors:
    """What a builder declares.

    Attributes:
        name: the node.
        make: is given a key that is new and its first message; returns plain values that say who the actor is, or None
            to refuse. By default nobody is refused.
        max_actors: how many there may be at a time.
        max_depth: how long a chain of actors may be of which each has hired the next.
        on_error: what follows when an actor raises: the run ends ("error"), the message is given up ("skip"), or the
            actor is dismissed ("dismiss").
        check: is given a path, a message and its sender, and raises a SendError for what is no message.
        middleware: what messages from inside pass before they are kept.
    """

    name: str
    make: Callable[[str, Any], Any] | None = None
    max_actors: int = 1_000
    max_depth: int = 10
    on_error: str = "error"
    check: Callable[[str, Any, str], None] | None = None
    middleware: MiddlewareChain | None = None


@dataclass(slots=True)
class Actor:
    """One actor.

    Attributes:
        path: its name in a `Send`: `"staff/ann"`.
        hired_by: the path of whoever has sent it its first message; "" for the run's input.
        depth: how many actors have hired each other in the chain that ends with it, itself among them.
        made: what `make` has answered.
        dismissed: whether it takes no more messages.
        is_new: whether it was hired just now, in this process, so that no checkpoint has a state of it.
    """

    path: str
    hired_by: str
    depth: int
    made: Any = None
    dismissed: bool = False
    is_new: bool = False

    def plain(self) -> list[Any]:
        """As plain values."""
        return [self.path, self.hired_by, self.depth, self.made, self.dismissed]


class Staff:
    """Who there is, of all actors of a graph.

    Args:
        declared: by node, what was declared.
    """

    def __init__(self, declared: Mapping[str, Actors]) -> None:
        self.declared = declared
        self._actors: dict[str, Actor] = {}
        self._counts = dict.fromkeys(declared, 0)
        # Whom activations that are at work are about to hire; by key of an activation, their addresses.
        self._reserved: dict[str, Actor] = {}
        self._reservations: dict[str, set[str]] = {}
        # What no checkpoint has yet.
        self._changed: dict[str, Actor] = {}

    def __iter__(self) -> Iterator[Actor]:
        return iter(self._actors.values())

    def get(self, address: str) -> Actor | None:
        """The actor at this address, or None."""
        return self._actors.get(address)

    def know(self, plain: Iterable[list[Any]]) -> None:
        """These were hired or dismissed before; later ones count."""
        for path, hired_by, depth, made, dismissed in plain:
            self._add(Actor(path, hired_by, depth, made, dismissed))

    def _add(self, actor: Actor) -> None:
        address, (name, _) = address_of(actor.path), split_path(actor.path)
        before = self._actors.get(address)
        self._actors[address] = actor
        if name in self._counts:
            self._counts[name] += (not actor.dismissed) - (before is not None and not before.dismissed)

    def check(self, sender: str, sender_path: str, path: str, value: Any) -> None:
        """Whether the actor at this path takes a message. One that is new is made, and has its place from here on.

        Args:
            sender: the key of the activation that sends.
            sender_path: the path of the node or actor that sends.
            path: the actor's.
            value: the message.

        Raises:
            SendError: it does not.
            BoundError: there would be too many.
        """
        name, key = split_path(path)
        address = address_of(path)
        if not key:
            raise SendError(f"{name!r} stands for many agents: send to {name + '/<key>'!r}")
        if (check := self.declared[name].check) is not None:
            check(path, value, sender_path)
        if (known := self._actors.get(address)) is not None:
            if known.dismissed:
                raise SendError(f"{path!r} was dismissed and takes no more messages: send to another key", "dismissed")
            return
        if address not in self._reserved:
            hirer = self._actors.get(address_of(sender_path))
            depth = hirer.depth + 1 if hirer is not None and split_path(hirer.path)[0] == name else 1
            self._check_bounds(self.declared[name], path, depth)
            self._reserved[address] = Actor(path, sender_path, depth, self._make(name, key, value), is_new=True)
            self._counts[name] += 1
        self._reservations.setdefault(sender, set()).add(address)

    def _check_bounds(self, actors: Actors, path: str, depth: int) -> None:
        name = actors.name
        if self._counts[name] >= actors.max_actors:
            raise HiringError(
                f"{path!r} was not hired: there are {actors.max_actors} actors {name!r} already, dismiss some, or "
                f"raise the bound with add_actors({name!r}, ..., max_actors=...)"
            )
        if depth > actors.max_depth:
            raise HiringError(
                f"{path!r} was not hired: {depth - 1} actors {name!r} have hired each other in a chain, end it, or "
                f"raise the bound with add_actors({name!r}, ..., max_depth=...)"
            )

    def _make(self, name: str, key: str, value: Any) -> Any:
        if (make := self.declared[name].make) is None:
            return None
        made = make(key, value)
        if made is None:
            raise SendError(
                f"{name + '/' + key!r} was refused: make({key!r}, ...) of the actors {name!r} returned None", "refused"
            )
        return made

    def release(self, sender: str) -> None:
        """An activation has ended, or begins again: who was reserved for it alone is not hired."""
        for address in self._reservations.pop(sender, ()):
            if address in self._reserved and not any(address in held for held in self._reservations.values()):
                self._counts[split_path(self._reserved.pop(address).path)[0]] -= 1

    def hire(self, path: str, hired_by: str, *, is_new: bool) -> Actor | None:
        """Let the actor at this path count, if nobody knows it yet. Returns it then."""
        address = address_of(path)
        if address in self._actors:
            return None
        if (reserved := self._reserved.pop(address, None)) is not None:
            self._counts[split_path(path)[0]] -= 1
            reserved.hired_by, reserved.is_new = hired_by, is_new
        actor = reserved or Actor(path, hired_by, 1)
        self.put(actor)
        return actor

    def put(self, actor: Actor) -> None:
        """An actor was hired or dismissed."""
        self._add(actor)
        self._changed[address_of(actor.path)] = actor

    def dismiss(self, path: str) -> Actor | None:
        """The actor at this path takes no more messages. Returns it as it is then; None where there is none."""
        known = self._actors.get(address_of(path))
        if known is None or known.dismissed:
            return None
        gone = Actor(known.path, known.hired_by, known.depth, known.made, dismissed=True)
        self.put(gone)
        return gone

    def take_changed(self) -> list[list[Any]]:
        """Who was hired or dismissed since the last look, as plain values."""
        changed, self._changed = self._changed, {}
        return [actor.plain() for actor in changed.values()]
