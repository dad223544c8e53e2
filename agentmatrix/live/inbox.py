"""Signals on their way into a run: who gets which, what waits, what has been answered.

A run that takes signals has one `Inbox`, under the key `INBOX` of its config. Whatever declares signals inside of the
run attaches a `Receiver` to it: a graph, a nested graph, or what forwards to a graph on another host. A signal waits
until there is a receiver for it, and counts as taken only when that receiver has said so.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from functools import cache
from itertools import count
from typing import Any, Final, Protocol

from agentmatrix.errors import SignalError

__all__ = ["INBOX", "SAVED_AS", "Inbox", "Receiver", "Sent", "Settled", "new_id", "path_of"]

SAVED_AS = "~signal"
"""The path under which savers are given what must be kept before it is acknowledged."""
INBOX: Final = "__pregel_agentmatrix_inbox"
"""The key in `config["configurable"]`. With LangGraph's own prefix it stays out of metadata, savers and the wire."""

_ids = count(1)


@cache
def _process(number: int) -> str:
    return f"{number:x}-{secrets.token_hex(6)}"


def new_id() -> str:
    """An id that no other signal has, or run, of any process, also of one that was forked off this one."""
    return f"{_process(os.getpid())}-{next(_ids)}"


def path_of(namespace: str) -> tuple[str, ...]:
    """The nodes that a checkpoint namespace leads through: `"panel:1ab|2|x:9cd"` gives `("panel", "x")`."""
    parts = namespace.split("|") if namespace else []
    return tuple(part.partition(":")[0] for part in parts if not part.isdigit())


class Sent:
    """One signal on its way.

    Attributes:
        id: what tells it from others; sent twice, it counts once.
        name: the signal, as its graph declares it.
        path: the nodes from the root graph to the one that declares it.
        value: what was sent.
        future: done once it was taken or refused.
        saving: whether its receiver has it, and is only to answer yet: then it goes to no other one.
    """

    __slots__ = ("future", "holder", "id", "name", "path", "saving", "value")

    def __init__(self, id: str, name: str, path: tuple[str, ...], value: Any) -> None:
        self.id, self.name, self.path, self.value = id, name, path, value
        self.future: Future[None] = Future()
        self.holder: _Slot | None = None
        self.saving = False

    @property
    def address(self) -> str:
        """`"panel/audio"`."""
        return "/".join((*self.path, self.name))

    def taken(self) -> None:
        """It will be consumed, whatever happens to this process. The first answer counts. Thread-safe."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(None)

    def refused(self, error: BaseException) -> None:
        """It will not be consumed. The first answer counts. Thread-safe."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class Receiver(Protocol):
    """Who takes signals. Both methods are called on any thread, one call at a time, and never block or raise.

    Another thread may still call it in the moment in which it is detached; it ignores what it gets then.

    Attributes:
        path: where it is: the nodes from the root graph.
        names: the signals that it declares; None for everything at its path and below, as of a remote agent.
    """

    path: tuple[str, ...]
    names: frozenset[str] | None

    def receive(self, sent: Sent) -> None:
        """Take a signal; say `sent.taken()` or `sent.refused(...)` at some time, on any thread."""

    def close(self) -> None:
        """No more signals will come."""


class _Slot:
    """A receiver, and what it is to be given next; None stands for the end."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.queue: deque[Sent | None] = deque()
        self.busy = self.closed = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.queue.append(None)

    def takes(self, sent: Sent) -> bool:
        names, path = self.receiver.names, self.receiver.path
        if self.closed:
            return False
        if names is None:
            return sent.path[: len(path)] == path
        return sent.path == path and sent.name in names


class Settled:
    """What a graph at work says of its nodes and its signals: for whom nobody will take a signal any more, and why.

    Args:
        inbox: the signals of the run that it is part of.
        path: where it is: the nodes from the root graph.
    """

    def __init__(self, inbox: Inbox, path: tuple[str, ...]) -> None:
        self.path = path
        self.why: Mapping[str, str] = {}
        self._inbox = inbox

    def tell(self, why: Mapping[str, str]) -> None:
        """Says it, by name of the node or signal; this takes the place of what it said before."""
        self.why = why
        self._inbox.give_up()

    def forget(self) -> None:
        """The graph is at work no more: those who may start it again know what becomes of signals."""
        self._inbox.forget(self)


class Inbox:
    """The signals of one run. Every method may be called on any thread; none waits.

    Where several receivers fit, the one that names the signal goes before one that takes everything, the nearest before
    the farther, the first attached before the later ones. No receiver is called while a lock is held.

    Args:
        root: the nodes above the run's root graph, where it was started inside of another run.
    """

    def __init__(self, root: tuple[str, ...] = ()) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._unanswered: dict[int, Sent] = {}
        self._numbers = count()
        self._slots: list[_Slot] = []
        self._settled: list[Settled] = []
        self._closed = False
        self._over: BaseException | None = None

    @property
    def closed(self) -> bool:
        """Whether no more signals can be sent."""
        return self._closed

    def send(
        self, address: str, value: Any, id: str | None = None, answered: Callable[[Future[None]], None] | None = None
    ) -> Future[None]:
        """Sends a signal.

        Args:
            address: the name of a signal of the root graph, or of a nested one with the nodes before: `"panel/audio"`.
            value: anything; to a remote agent, anything that can cross.
            id: what tells it from others; by default a new one.
            answered: called with the future when it is done, before whoever answers goes on.

        Returns:
            A future that is done when the signal has been taken, and fails with SignalError when it was not. Cancelling
            it withdraws a signal that still waits; one that a receiver has may be taken all the same.
        """
        *path, name = address.split("/")
        sent = Sent(id or new_id(), name, (*self.root, *path), value)
        number = next(self._numbers)
        sent.future.add_done_callback(lambda future: self._forget(number))
        if answered is not None:
            sent.future.add_done_callback(answered)
        with self._lock:
            refusal = self._refusal(sent)
            if refusal is None:
                self._unanswered[number] = sent
            slots = self._route([] if refusal else [sent])
            refusal = refusal or self._in_vain(sent)
        if refusal is not None:
            sent.refused(refusal)
        self._deliver(slots)
        return sent.future

    def _refusal(self, sent: Sent) -> SignalError | None:
        if self._over is not None:
            return _not_taken(sent, self._over)
        if self._closed:
            return SignalError(f"the signal {sent.address!r} was not sent: the run's input is closed (close_input)")
        return None

    def _in_vain(self, sent: Sent) -> SignalError | None:
        """Why nobody will take a signal that waits, if all graphs at work say so that are where it goes."""
        for depth, name in enumerate((*sent.path, sent.name) if sent.holder is None and self._settled else ()):
            said = [settled.why.get(name) for settled in self._settled if settled.path == sent.path[:depth]]
            if said and said[0] and all(said):
                return SignalError(f"the signal {sent.address!r} was not taken: {said[0]}")
        return None

    def attach(self, receiver: Receiver) -> None:
        """Lets a receiver take signals; it gets what waits for it, in order, and the end if that has come."""
        slot = _Slot(receiver)
        with self._lock:
            self._slots.append(slot)
            self._route(sent for sent in self._unanswered.values() if sent.holder is None)
            if self._closed:
                slot.close()
        self._deliver([slot])

    def detach(self, receiver: Receiver) -> None:
        """Takes a receiver off. What it has not answered waits again, and goes to the next one that fits."""
        with self._lock:
            gone = [slot for slot in self._slots if slot.receiver is receiver]
            self._slots = [slot for slot in self._slots if slot not in gone]
            for slot in gone:
                slot.queue.clear()
            left = [sent for sent in self._unanswered.values() if sent.holder in gone and not sent.saving]
            others = self._route(left)
        self._deliver(others)
        self.give_up()

    def settled(self, path: tuple[str, ...]) -> Settled:
        """Lets the graph at this path say who takes no signals any more."""
        settled = Settled(self, path)
        with self._lock:
            self._settled.append(settled)
        return settled

    def forget(self, settled: Settled) -> None:
        """What was said does not hold any more."""
        with self._lock:
            self._settled = [other for other in self._settled if other is not settled]
        self.give_up()

    def give_up(self) -> None:
        """Refuses the signals that wait in vain."""
        with self._lock:
            refusals = [(sent, self._in_vain(sent)) for sent in self._unanswered.values()]
        for sent, refusal in refusals:
            if refusal is not None:
                sent.refused(refusal)

    def close(self) -> None:
        """No more signals can be sent; those under way still arrive. Idempotent."""
        with self._lock:
            self._closed = True
            slots = list(self._slots)
            for slot in slots:
                slot.close()
        self._deliver(slots)

    def end(self, error: BaseException) -> None:
        """The run is over: what has not been answered is refused, with `error` as the reason. Idempotent."""
        with self._lock:
            if self._over is not None:
                return
            self._over, self._closed = error, True
            unanswered = list(self._unanswered.values())
            for slot in self._slots:
                slot.queue.clear()
        for sent in unanswered:
            sent.refused(_not_taken(sent, error))

    def _forget(self, number: int) -> None:
        with self._lock:
            self._unanswered.pop(number, None)

    def _route(self, signals: Iterable[Sent]) -> list[_Slot]:
        """Puts each signal into the slot of its receiver, or lets it wait; returns those slots. Under the lock."""
        for sent in signals:
            fitting = [slot for slot in self._slots if slot.takes(sent)]
            sent.holder = max(fitting, key=_nearness, default=None)
            if sent.holder is not None:
                sent.holder.queue.append(sent)
        return [slot for slot in self._slots if slot.queue]

    def _deliver(self, slots: Iterable[_Slot]) -> None:
        """Calls the receivers, without the lock. Whoever finds one busy leaves the rest to who is at it."""
        for slot in slots:
            while (item := self._next(slot)) is not _NOTHING:
                try:
                    slot.receiver.close() if item is None else _receive(slot.receiver, item)
                finally:
                    slot.busy = False

    def _next(self, slot: _Slot) -> Sent | None:
        with self._lock:
            if slot.busy or not slot.queue:
                return _NOTHING
            slot.busy = True
            return slot.queue.popleft()


_NOTHING: Final = Sent("", "", (), None)


def _receive(receiver: Receiver, sent: Sent) -> None:
    if not sent.future.done():
        receiver.receive(sent)


def _nearness(slot: _Slot) -> tuple[bool, int]:
    return slot.receiver.names is not None, len(slot.receiver.path)


def _not_taken(sent: Sent, error: BaseException) -> SignalError:
    reason = str(error) if isinstance(error, SignalError) else f"the run has failed with {type(error).__name__}"
    refusal = SignalError(f"the signal {sent.address!r} was not taken: {reason}")
    refusal.__cause__ = error.__cause__ if isinstance(error, SignalError) else error
    return refusal
