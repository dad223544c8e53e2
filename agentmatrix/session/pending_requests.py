"""The requests of a run on a host that its caller has not answered yet.

Threads: requests are opened and awaited on the threads of the graph, and answered on the I/O thread, which alone
removes an answered one. The dict is changed by atomic operations.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Final

from agentmatrix.errors import HostError
from agentmatrix.transport.base import ReceivedFrame

__all__ = ["PendingRequest", "PendingRequests"]

_TIMED: Final = frozenset({"saver", "store", "cache", "sends"})
"""The objects that have to answer in time. A callback may ask a person."""


@dataclass(frozen=True)
class PendingRequest:
    """A request.

    Attributes:
        target: the object that was called.
        method: its method.
        answer: the caller's reply, when it comes.
    """

    target: str
    method: str
    answer: Future[ReceivedFrame]


class PendingRequests:
    """The requests without an answer.

    Args:
        answer_timeout: seconds in which a checkpointer, a store or a cache has to answer; None for no limit.
    """

    def __init__(self, answer_timeout: float | None) -> None:
        self._timeout = answer_timeout
        self._by_number: dict[int, PendingRequest] = {}
        self._is_silent = False

    def open(self, number: int, target: str, method: str) -> PendingRequest:
        """A request is about to be sent."""
        request = self._by_number[number] = PendingRequest(target, method, Future())
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
        try:
            return request.answer.result(self._seconds(request))
        except concurrent.futures.TimeoutError:
            raise self._late(request) from None

    async def await_answer(self, request: PendingRequest) -> ReceivedFrame:
        """The same, awaited."""
        try:
            async with asyncio.timeout(self._seconds(request)):
                return await asyncio.wrap_future(request.answer)
        except TimeoutError:
            raise self._late(request) from None

    def _seconds(self, request: PendingRequest) -> float | None:
        if request.target not in _TIMED:
            return None
        return 0.0 if self._is_silent else self._timeout

    def _late(self, request: PendingRequest) -> HostError:
        self._is_silent = True
        return HostError(
            f"the caller has not answered {request.target}.{request.method} within {self._timeout:g} s "
            "(answer_timeout of the host)"
        )
