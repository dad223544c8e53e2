"""Signals of a run: which receiver gets which signal, which signals wait, which were acknowledged.

A run that takes signals has one `SignalRouter`, under the key `SIGNAL_ROUTER` of its config. Everything inside the run
that declares signals attaches a `SignalReceiver` to it: a graph, a nested graph, or the forwarder to a graph on another
host. A signal waits until there is a receiver for it, and is acknowledged only when that receiver says so.

Threads: every method may be called on any thread, and none waits. `SignalRouter._lock` guards the routing tables: the
endpoints and their queues, the unanswered signals, the closed targets. It is never held while a receiver is called or
a future is resolved, because both call back into the router.

Order: a signal joins the queue of its endpoint under the lock, and the queue is emptied without it. `_Endpoint.busy`
marks the one thread that calls the receiver; another thread that finds it set leaves its signal to that thread. So a
receiver gets the signals of one sender in the order in which they were sent.
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

__all__ = [
    "SIGNAL_ROUTER",
    "SIGNAL_TASK_PATH",
    "ClosedTargets",
    "PendingSignal",
    "SignalReceiver",
    "SignalRouter",
    "new_id",
    "node_path",
]

SIGNAL_TASK_PATH: Final = "~signal"
"""The task path of checkpoint writes that must be saved before a signal is acknowledged."""
SIGNAL_ROUTER: Final = "__pregel_agentmatrix_signal_router"
"""The key in `config["configurable"]`. LangGraph's own prefix keeps it out of metadata, savers and the wire."""

_ids = count(1)


@cache
def _process_id(pid: int) -> str:
    # The cache is keyed by the pid, so that a forked process gets a token of its own.
    return f"{pid:x}-{secrets.token_hex(6)}"


def new_id() -> str:
    """An id that is unique among the signals and runs of all processes, forked ones included."""
    return f"{_process_id(os.getpid())}-{next(_ids)}"


def node_path(namespace: str) -> tuple[str, ...]:
    """The nodes that a checkpoint namespace leads through: `"panel:1ab|2|x:9cd"` gives `("panel", "x")`."""
    parts = namespace.split("|") if namespace else []
    return tuple(part.partition(":")[0] for part in parts if not part.isdigit())


class PendingSignal:
    """A signal that was sent and is not answered yet.

    Attributes:
        id: the id of the signal; a signal that is sent again with the same id counts once.
        name: the name of the signal, as its graph declares it.
        path: the nodes from the root graph to the graph that declares it.
        value: the value that was sent.
        future: done once the signal was acknowledged or refused.
        endpoint: the endpoint of the receiver that it is routed to; None while it waits for one.
        accepted: whether the receiver has begun to save it, so that it goes to no other receiver.
    """

    __slots__ = ("accepted", "endpoint", "future", "id", "name", "path", "value")

    def __init__(self, id: str, name: str, path: tuple[str, ...], value: Any) -> None:
        self.id, self.name, self.path, self.value = id, name, path, value
        self.future: Future[None] = Future()
        self.endpoint: _Endpoint | None = None
        self.accepted = False

    @property
    def address(self) -> str:
        """`"panel/audio"`."""
        return "/".join((*self.path, self.name))

    def acknowledge(self) -> None:
        """The signal will be consumed, even if this process dies. The first answer counts. Thread-safe."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(None)

    def refuse(self, error: BaseException) -> None:
        """The signal will not be consumed. The first answer counts. Thread-safe."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class SignalReceiver(Protocol):
    """Takes signals. Both methods are called on any thread, one call at a time; they must neither block nor raise.

    A call may still be under way on another thread when the receiver is detached; the receiver ignores that signal.

    Attributes:
        path: the nodes from the root graph to the receiver's graph.
        names: the signals that the graph declares; None for every signal at its path and below, as for a remote agent.
    """

    path: tuple[str, ...]
    names: frozenset[str] | None

    def receive(self, signal: PendingSignal) -> None:
        """Take a signal, and call its `acknowledge` or `refuse` at any time, on any thread."""

    def close(self) -> None:
        """No more signals will come."""


class _Endpoint:
    """A receiver and the queue of its signals; None in the queue stands for the end of the input."""

    def __init__(self, receiver: SignalReceiver) -> None:
        self.receiver = receiver
        self.queue: deque[PendingSignal | None] = deque()
        self.busy = self.closed = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.queue.append(None)

    def accepts(self, signal: PendingSignal) -> bool:
        names, path = self.receiver.names, self.receiver.path
        if self.closed:
            return False
        if names is None:
            return signal.path[: len(path)] == path
        return signal.path == path and signal.name in names


class ClosedTargets:
    """The nodes and signals of one running graph that will take no signals any more, and the reasons.

    Args:
        router: the signals of the run.
        path: the nodes from the root graph to this graph.

    Attributes:
        reasons: by name of the node or signal, the reason.
    """

    def __init__(self, router: SignalRouter, path: tuple[str, ...]) -> None:
        self.path = path
        self.reasons: Mapping[str, str] = {}
        self._router = router

    def update(self, reasons: Mapping[str, str]) -> None:
        """Replaces the reasons, and refuses the signals that nothing will take any more."""
        if reasons == self.reasons:
            return
        self.reasons = reasons
        self._router.refuse_undeliverable()

    def remove(self) -> None:
        """The graph has stopped. Whether it runs again is for the graph above it to say, in its own closed targets."""
        self._router.untrack(self)


class SignalRouter:
    """The signals of one run. Every method may be called on any thread, and none waits.

    If several receivers fit a signal, a receiver that names it goes before one that takes everything, the nearest path
    before a shorter one, the first attached before later ones.

    Args:
        root: the nodes above the run's root graph, if it was started inside another run.
    """

    def __init__(self, root: tuple[str, ...] = ()) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._unanswered: dict[int, PendingSignal] = {}
        self._numbers = count()
        self._endpoints: list[_Endpoint] = []
        self._closed_targets: list[ClosedTargets] = []
        self._closed = False
        self._end_error: BaseException | None = None

    @property
    def closed(self) -> bool:
        """Whether no more signals can be sent."""
        return self._closed

    def send(
        self, address: str, value: Any, id: str | None = None, on_answer: Callable[[Future[None]], None] | None = None
    ) -> Future[None]:
        """Sends a signal.

        Args:
            address: the name of a signal of the root graph, or the nodes to a nested graph and a name: `"panel/audio"`.
            value: any value; for a remote agent, one that the wire can encode.
            id: the id of the signal; by default a new one.
            on_answer: called with the future when it is done, on the thread that answers and before it goes on.

        Returns:
            A future that is done when the signal was acknowledged, and fails with SignalError when it was refused.
            Cancelling it withdraws a signal that still waits; one that a receiver has may be consumed all the same.
        """
        *path, name = address.split("/")
        signal = PendingSignal(id or new_id(), name, (*self.root, *path), value)
        number = next(self._numbers)
        signal.future.add_done_callback(lambda future: self._forget(number))
        if on_answer is not None:
            signal.future.add_done_callback(on_answer)
        with self._lock:
            error = self._error_after_close(signal)
            if error is None:
                self._unanswered[number] = signal
            endpoints = self._route([] if error else [signal])
            error = error or self._undeliverable(signal)
        if error is not None:
            signal.refuse(error)
        self._deliver(endpoints)
        return signal.future

    def _error_after_close(self, signal: PendingSignal) -> SignalError | None:
        if self._end_error is not None:
            return _not_taken(signal, self._end_error)
        if self._closed:
            return SignalError(f"the signal {signal.address!r} was not sent: the run's input is closed (close_input)")
        return None

    def _undeliverable(self, signal: PendingSignal) -> SignalError | None:
        """The error for a waiting signal that nothing will take any more; None if something may. Under the lock.

        The target is closed if all running graphs at one place on the signal's path have closed the next name on it.
        """
        if signal.endpoint is not None or not self._closed_targets:
            return None
        for depth, name in enumerate((*signal.path, signal.name)):
            graphs = [targets for targets in self._closed_targets if targets.path == signal.path[:depth]]
            reasons = [graph.reasons.get(name) for graph in graphs]
            if reasons and reasons[0] and all(reasons):
                return SignalError(f"the signal {signal.address!r} was not taken: {reasons[0]}")
        return None

    def attach(self, receiver: SignalReceiver) -> None:
        """Adds a receiver. It gets the signals that wait for it, in order, and the end of the input if that is past."""
        endpoint = _Endpoint(receiver)
        with self._lock:
            self._endpoints.append(endpoint)
            self._route(signal for signal in self._unanswered.values() if signal.endpoint is None)
            if self._closed:
                endpoint.close()
        self._deliver([endpoint])

    def detach(self, receiver: SignalReceiver) -> None:
        """Removes a receiver. The signals that it has not accepted wait again, or go to the next receiver that fits."""
        with self._lock:
            detached = [endpoint for endpoint in self._endpoints if endpoint.receiver is receiver]
            self._endpoints = [endpoint for endpoint in self._endpoints if endpoint not in detached]
            for endpoint in detached:
                endpoint.queue.clear()
            left = [s for s in self._unanswered.values() if s.endpoint in detached and not s.accepted]
            endpoints = self._route(left)
        self._deliver(endpoints)
        self.refuse_undeliverable()

    def track(self, path: tuple[str, ...]) -> ClosedTargets:
        """The closed targets of the graph at this path, which starts now."""
        targets = ClosedTargets(self, path)
        with self._lock:
            self._closed_targets.append(targets)
        return targets

    def untrack(self, targets: ClosedTargets) -> None:
        """Removes the closed targets of a graph that has stopped."""
        with self._lock:
            self._closed_targets = [other for other in self._closed_targets if other is not targets]
        self.refuse_undeliverable()

    def refuse_undeliverable(self) -> None:
        """Refuses the waiting signals that nothing will take any more."""
        with self._lock:
            errors = [(signal, self._undeliverable(signal)) for signal in self._unanswered.values()]
        for signal, error in errors:
            if error is not None:
                signal.refuse(error)

    def close(self) -> None:
        """No more signals can be sent; signals that were sent still arrive. Idempotent."""
        with self._lock:
            self._closed = True
            endpoints = list(self._endpoints)
            for endpoint in endpoints:
                endpoint.close()
        self._deliver(endpoints)

    def end(self, error: BaseException) -> None:
        """The run has ended: all unanswered signals are refused, with `error` as the reason. Idempotent."""
        with self._lock:
            if self._end_error is not None:
                return
            self._end_error, self._closed = error, True
            unanswered = list(self._unanswered.values())
            for endpoint in self._endpoints:
                endpoint.queue.clear()
        for signal in unanswered:
            signal.refuse(_not_taken(signal, error))

    def _forget(self, number: int) -> None:
        with self._lock:
            self._unanswered.pop(number, None)

    def _route(self, signals: Iterable[PendingSignal]) -> list[_Endpoint]:
        """Puts each signal into the queue of its endpoint, or lets it wait. Under the lock.

        Returns:
            All endpoints with a queue to deliver.
        """
        for signal in signals:
            fitting = [endpoint for endpoint in self._endpoints if endpoint.accepts(signal)]
            signal.endpoint = max(fitting, key=_precedence, default=None)
            if signal.endpoint is not None:
                signal.endpoint.queue.append(signal)
        return [endpoint for endpoint in self._endpoints if endpoint.queue]

    def _deliver(self, endpoints: Iterable[_Endpoint]) -> None:
        """Calls the receivers, without the lock.

        The queue of a busy endpoint is left to the thread that has set `busy`: it looks at the queue once more after it
        has cleared `busy`.
        """
        for endpoint in endpoints:
            while (item := self._next(endpoint)) is not _NOTHING:
                try:
                    endpoint.receiver.close() if item is None else _receive(endpoint.receiver, item)
                finally:
                    endpoint.busy = False

    def _next(self, endpoint: _Endpoint) -> PendingSignal | None:
        with self._lock:
            if endpoint.busy or not endpoint.queue:
                return _NOTHING
            endpoint.busy = True
            return endpoint.queue.popleft()


_NOTHING: Final = PendingSignal("", "", (), None)


def _receive(receiver: SignalReceiver, signal: PendingSignal) -> None:
    if not signal.future.done():
        receiver.receive(signal)


def _precedence(endpoint: _Endpoint) -> tuple[bool, int]:
    return endpoint.receiver.names is not None, len(endpoint.receiver.path)


def _not_taken(signal: PendingSignal, error: BaseException) -> SignalError:
    reason = str(error) if isinstance(error, SignalError) else f"the run has failed with {type(error).__name__}"
    refusal = SignalError(f"the signal {signal.address!r} was not taken: {reason}")
    refusal.__cause__ = error.__cause__ if isinstance(error, SignalError) else error
    return refusal
