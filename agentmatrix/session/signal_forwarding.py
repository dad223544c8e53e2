"""Signals for a graph on another host: forwarded by its caller, routed again by its host.

The caller's half, `SignalForwarder`, is one more receiver of the caller's router. The host's half, `IncomingSignals`,
has a router of its own, whose receivers in the graph there acknowledge. So a remote graph inside of a remote
graph needs nothing more.

Threads: signal frames come in on the I/O thread, which only queues them. One worker thread at a time decodes them, in
order, since decoding may meet user code. `_lock` guards the queue and the count; it is not held while a signal is
decoded, routed or answered.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

from agentmatrix.errors import AgentMatrixError, SignalError
from agentmatrix.live.address import check_address
from agentmatrix.live.signal_router import PendingSignal, SignalRouter
from agentmatrix.transport.base import ReceivedFrame
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["MAX_UNACKED", "IncomingSignals", "SignalForwarder"]

MAX_UNACKED: Final = 10_000
"""How many signals of one run may wait on its host for their acknowledgement; more are refused."""


class SignalForwarder:
    """The caller's half: a receiver of all signals for the remote graph and the graphs nested in it.

    Args:
        path: the nodes that lead to the remote graph.
        codec: writes the values.
        send: sends a signal and its encoded value.
        close: tells the host that no more signals will come.
    """

    names: frozenset[str] | None = None

    def __init__(
        self,
        path: tuple[str, ...],
        codec: Codec,
        send: Callable[[PendingSignal, bytes], None],
        close: Callable[[], None],
    ) -> None:
        self.path, self.close = path, close
        self._codec, self._send = codec, send

    def receive(self, sent: PendingSignal) -> None:
        try:
            value = self._codec.encode((sent.value,), f"signal {sent.address!r}")
        except AgentMatrixError as error:
            sent.refuse(error)
            return
        self._send(sent, value)


class IncomingSignals:
    """The host's half: queues signals, decodes them in worker threads, one after the other, and routes them.

    Args:
        workers: the threads that decode.
        ack: acknowledges a signal: by its number, with the reason if it was refused, else "".

    Attributes:
        router: the router of the run on this host.
    """

    def __init__(self, workers: Executor, ack: Callable[[int, str], None]) -> None:
        self.router = SignalRouter()
        self._workers, self._ack = workers, ack
        self._lock = threading.Lock()
        self._queue: deque[ReceivedFrame | None] = deque()
        """None stands for the end of the input."""
        self._unacked = 0
        self._busy = True  # until `open`: the graph is not known before
        self._graph: Any = None
        self._above: tuple[str, ...] = ()
        self._codec = Codec()

    def open(self, graph: Any, above: tuple[str, ...], codec: Codec) -> None:
        """Begins to route signals, those that have come already first.

        Args:
            graph: the graph that runs; None for a run that takes no signals.
            above: the nodes above it.
            codec: reads the values.
        """
        self._graph, self._above, self._codec = graph, above, codec
        with self._lock:
            self._busy = False
        self._schedule()

    @property
    def live(self) -> bool:
        """Whether the run takes signals."""
        return self._graph is not None

    def receive(self, received: ReceivedFrame) -> None:
        """Queues a signal. On the I/O thread."""
        with self._lock:
            self._unacked += 1
            full = self._unacked > MAX_UNACKED
            if not full:
                self._queue.append(received)
        if full:
            why = f"the host holds {MAX_UNACKED} signals of this run already; wait for their acknowledgement"
            self._done(received.frame.signal, why)
            received.release()
        self._schedule()

    def close(self, after: Future[None] | None = None) -> None:
        """No more signals will come. On the I/O thread.

        Args:
            after: what else has come before, such as a drain, and is done by a worker.
        """
        if after is not None:
            after.add_done_callback(lambda _: self.close())
            return
        with self._lock:
            self._queue.append(None)
        self._schedule()

    def _schedule(self) -> None:
        with self._lock:
            if self._busy or not self._queue:
                return
            self._busy = True
        self._workers.submit(self._process_queue)

    def _process_queue(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._busy = False
                    return
                received = self._queue.popleft()
            if received is None:
                self.router.close()
            else:
                self._route(received)
                received.release()

    def _route(self, received: ReceivedFrame) -> None:
        signal = received.frame.signal
        try:
            (value,) = self._codec.decode(received.field("value"), f"signal {signal.address!r}")
            self._check(signal.address)
        except Exception as error:  # a decoder may meet user code: whatever it raises concerns this signal alone
            self._done(signal, str(error))
            return
        # The callback runs where the signal is accepted: so its acknowledgement is sent before the run can end.
        self.router.send(signal.address, value, signal.id, lambda future: self._done(signal, _reason(future)))

    def _check(self, address: str) -> None:
        if self._graph is None:
            raise SignalError(f"the signal {address!r} was sent to a run that takes none")
        here = tuple(address.split("/"))[: len(self._above)]
        if here != self._above:
            raise SignalError(f"the signal {address!r} was sent to the host of {'/'.join(self._above)!r}")
        check_address(self._graph, "/".join(address.split("/")[len(self._above) :]), self._above)

    def _done(self, signal: pb.Signal, refused: str) -> None:
        with self._lock:
            self._unacked -= 1
        self._ack(signal.number, refused)


def _reason(future: Future[None]) -> str:
    error = future.exception()
    return "" if error is None else str(error) or type(error).__name__
