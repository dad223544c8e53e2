"""The requests of a run on a host that its caller has not answered yet.

Threads: requests are opened and awaited on the threads of the graph, and answered on the I/O thread, which alone
removes an answered one. The dict is changed by atomic operations.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Final

from agentmatrix.errors import HostError
from agentmatrix.transport.base import ReceivedFrame

__all__ = ["PendingRequest", "PendingRequests"]

_TIMED: Final = frozenset({"saver", "store", "cache", "sends"})
"""The objects that have to answer in time. A callback may ask a person."""
_SHORTEST: Final = 0.01
"""Seconds of a wait; while the line is cut, what is left stays the same."""


@dataclass(frozen=True)
class PendingRequest:
    """A request.

    Attributes:
        target: the object that was called.
        method: its method.
        answer: the caller's reply, when it comes.
        sent: when, by `time.monotonic`.
        downtime: seconds that the line to the caller was cut, in all, when it was sent.
    """

    target: str
    method: str
    answer: Future[ReceivedFrame]
    sent: float
    downtime: float


class PendingRequests:
    """The requests without an answer.

    Args:
        answer_timeout: seconds in which a checkpointer, a store or a cache has to answer; None for no limit.
        downtime: the seconds that the line to the caller was cut, in all: they do not count,
        linger: but no more than these for one request, lest a caller hold a run by cutting its line again and again.
    """

    def __init__(
        self, answer_timeout: float | None, downtime: Callable[[], float] = lambda: 0.0, linger: float = 0.0
    ) -> None:
        self._timeout, self._downtime, self._linger = answer_timeout, downtime, linger
        self._by_number: dict[int, PendingRequest] = {}
        self._is_silent = False

    def open(self, number: int, target: str, method: str) -> PendingRequest:
        """A request is about to be sent."""
        request = PendingRequest(target, method, Future(), time.monotonic(), self._downtime())
        self._by_number[number] = request
        return request

    def answered(self, received: ReceivedFrame) -> None:
        """The caller has replied. On the I/O thread."""
        request = self._by_number.pop(received.frame.reply.id)
        try:
            request.answer.set_result(received)
        except InvalidStateError:  # the awaiting task was cancelled
            received.release()

    def fail(self, error: BaseException) -> None:
        """No more answers will come."""
        while self._by_number:
            _, request = self._by_number.popitem()
            if not request.answer.done():
                request.answer.set_exception(error)

    def wait(self, request: PendingRequest) -> ReceivedFrame:
        """Waits for the answer.

        Raises:
            HostError: it does not come in time.
        """
        while True:
            seconds = self._seconds(request)
            try:
                return request.answer.result(seconds)
            except concurrent.futures.TimeoutError:
                if not seconds:
                    raise self._late(request) from None

    async def await_answer(self, request: PendingRequest) -> ReceivedFrame:
        """The same, awaited."""
        answer = asyncio.wrap_future(request.answer)
        try:
            while not answer.done():
                seconds = self._seconds(request)
                await asyncio.wait({answer}, timeout=seconds)
                if seconds == 0.0 and not answer.done():
                    raise self._late(request)
            return answer.result()
        finally:
            request.answer.cancel()  # so that one that comes later is released

    def _seconds(self, request: PendingRequest) -> float | None:
        """How long to wait before asking again; 0 where it is over, None where there is no limit."""
        if request.target not in _TIMED or self._timeout is None:
            return None
        paused = min(self._linger, self._downtime() - request.downtime)
        left = self._timeout + paused - (time.monotonic() - request.sent)
        return 0.0 if self._is_silent or left <= 0 else max(left, _SHORTEST)

    def _late(self, request: PendingRequest) -> HostError:
        self._is_silent = True
        return HostError(
            f"the caller has not answered {request.target}.{request.method} within {self._timeout:g} s "
            "(answer_timeout of the host)"
        )
