"""What a run on a host asks of its caller's objects: calls that are answered. Made on the threads of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from agentmatrix.session.part_sender import wait_for_room
from agentmatrix.session.pending_requests import PendingRequest, PendingRequests
from agentmatrix.transport.base import FrameStream, ReceivedFrame
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import decode_failure, raisable

__all__ = ["CallerRequests"]


class AskingRun(Protocol):
    """A run, as far as its requests are concerned.

    Attributes:
        frames: its stream.
        codec: of what it sends.
        replies: of what is answered.
    """

    frames: FrameStream
    codec: Codec
    replies: Codec


class CallerRequests:
    """The requests of one run: the part of an `RpcClient` that has answers.

    Args:
        run: the run.
        timeout: seconds in which the caller has to answer; None for no limit.
        open: sends a request of target, method and encoded arguments.

    Attributes:
        pending: those that wait for their answers.
    """

    def __init__(
        self, run: AskingRun, timeout: float | None, open: Callable[[str, str, bytes], PendingRequest]
    ) -> None:
        self._run, self._open = run, open
        self.pending = PendingRequests(timeout)

    def request(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        request = self._send(target, method, args, kwargs)
        return self._result_of(request, self.pending.wait(request))

    async def arequest(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        request = self._send(target, method, args, kwargs)
        return self._result_of(request, await self.pending.await_answer(request))

    def request_nowait(self, target: str, method: str, *args: Any, **kwargs: Any) -> None:
        self.pending.pipelined.append(self._send(target, method, args, kwargs))

    def await_pipelined(self) -> None:
        """Waits for the answers to pipelined requests; raises an exception that one of them has raised."""
        while self.pending.pipelined:
            request = self.pending.pipelined.popleft()
            self._result_of(request, self.pending.wait(request))

    async def aawait_pipelined(self) -> None:
        """The same, awaited."""
        while self.pending.pipelined:
            request = self.pending.pipelined.popleft()
            self._result_of(request, await self.pending.await_answer(request))

    def _send(self, target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PendingRequest:
        arguments = self._run.codec.encode((args, kwargs), f"{target}.{method}")
        wait_for_room(self._run.frames)
        return self._open(target, method, arguments)

    def _result_of(self, request: PendingRequest, received: ReceivedFrame) -> Any:
        try:
            if failure := received.field("failure"):
                raise raisable(decode_failure(failure, self._run.codec))
            return self._run.replies.decode(received.field("value"), f"reply of {request.target}.{request.method}")
        finally:
            received.release()
