"""Signals for a graph on another host: forwarded by its caller, put into an inbox of the run's own by its host.

The caller's half is one more receiver of the caller's inbox, the host's half has an inbox as the caller's, and the
graph's own receivers there say what is taken. So a remote graph inside of a remote graph needs nothing more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

from agentmatrix.errors import AgentMatrixError, SignalError
from agentmatrix.live.address import check_address
from agentmatrix.live.inbox import Inbox, Sent
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["MOST", "Arrivals", "Forwarding"]

MOST: Final = 10_000
"""How many signals of one run may lie unanswered on its host; more are refused."""


class Forwarding:
    """The caller's half: a `FrameReceiver` of everything for the remote graph and what is nested in it.

    Args:
        path: the nodes that lead to the remote graph.
        codec: writes the values.
        send: sends a signal and its encoded value.
        close: tells the host that no more will come.
    """

    names: frozenset[str] | None = None

    def __init__(
        self, path: tuple[str, ...], codec: Codec, send: Callable[[Sent, bytes], None], close: Callable[[], None]
    ) -> None:
        self.path, self.close = path, close
        self._codec, self._send = codec, send

    def receive(self, sent: Sent) -> None:
        try:
            value = self._codec.encode((sent.value,), f"signal {sent.address!r}")
        except AgentMatrixError as error:
            sent.refused(error)
            return
        self._send(sent, value)


class Arrivals:
    """The host's half: takes signals as they come, decodes them in worker threads, one after the other.

    Args:
        workers: run what may meet user code.
        answer: sends the answer to a signal: its number, and why it was refused, or "".

    Attributes:
        inbox: the inbox of the run here.
    """

    def __init__(self, workers: Executor, answer: Callable[[int, str], None]) -> None:
        self.inbox = Inbox()
        self._workers, self._answer = workers, answer
        self._lock = threading.Lock()
        self._waiting: deque[pb.Signal | None] = deque()
        self._unanswered = 0
        self._busy = True
        self._graph: Any = None
        self._above: tuple[str, ...] = ()
        self._codec = Codec()

    def open(self, graph: Any, above: tuple[str, ...], codec: Codec) -> None:
        """Lets what has come in.

        Args:
            graph: the graph that runs; None for a run that takes no signals.
            above: the nodes above it.
            codec: reads the values.
        """
        self._graph, self._above, self._codec = graph, above, codec
        with self._lock:
            self._busy = False
        self._work_on()

    @property
    def live(self) -> bool:
        """Whether the run takes signals."""
        return self._graph is not None

    def receive(self, signal: pb.Signal) -> None:
        """Takes a signal. On the I/O thread."""
        with self._lock:
            self._unanswered += 1
            full = self._unanswered > MOST
            if not full:
                self._waiting.append(signal)
        if full:
            self._done(signal, f"the host holds {MOST} signals of this run already; wait for their acknowledgement")
        self._work_on()

    def close(self) -> None:
        """No more signals will come. On the I/O thread."""
        with self._lock:
            self._waiting.append(None)
        self._work_on()

    def _work_on(self) -> None:
        with self._lock:
            if self._busy or not self._waiting:
                return
            self._busy = True
        self._workers.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = False
                    return
                signal = self._waiting.popleft()
            if signal is None:
                self.inbox.close()
            else:
                self._put(signal)

    def _put(self, signal: pb.Signal) -> None:
        try:
            (value,) = self._codec.decode(signal.value, f"signal {signal.address!r}")
            self._check(signal.address)
        except Exception as error:  # a decoder may meet user code: whatever it raises concerns this signal alone
            self._done(signal, str(error))
            return
        # The answer is on its way before the run can end, which is the end of all answers.
        self.inbox.send(signal.address, value, signal.id, lambda future: self._done(signal, _reason(future)))

    def _check(self, address: str) -> None:
        if self._graph is None:
            raise SignalError(f"the signal {address!r} was sent to a run that takes none")
        here = tuple(address.split("/"))[: len(self._above)]
        if here != self._above:
            raise SignalError(f"the signal {address!r} was sent to the host of {'/'.join(self._above)!r}")
        check_address(self._graph, "/".join(address.split("/")[len(self._above) :]), self._above)

    def _done(self, signal: pb.Signal, refused: str) -> None:
        with self._lock:
            self._unanswered -= 1
        self._answer(signal.number, refused)


def _reason(future: Future[None]) -> str:
    error = future.exception()
    return "" if error is None else str(error) or type(error).__name__
