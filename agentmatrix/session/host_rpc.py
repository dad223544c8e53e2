"""What a run on a host says to its caller: requests and notifications, with the frames that carry them.

Any thread of the graph may send. `_lock` guards the protocol machine, and is held until the frame that it made is sent:
so frames go out in the order of the protocol. It is never held while user code runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentmatrix.errors import HostError
from agentmatrix.session import host_verbs
from agentmatrix.session.event_encoding import GATHERED, encode_event
from agentmatrix.session.part_sender import BATCH_SECONDS, PartBatch, wait_for_room
from agentmatrix.session.pending_requests import PendingRequest, PendingRequests
from agentmatrix.session.protocol import HostProtocol
from agentmatrix.transport.base import NO_FIELDS, FrameStream, ReceivedFrame
from agentmatrix.transport.identity import Identity
from agentmatrix.transport.iothread import io_thread
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import decode_failure, raisable
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["HostRpc"]

_ENDED: Final = "the run has ended; its caller's objects cannot be asked any more"
_FLUSH_AFTER: Final = 0.002
"""Seconds that a write to the caller's checkpointer may wait for what goes along: each message costs both sides."""


class HostRpc:
    """The `RpcClient` of one run's proxies.

    Args:
        frames: of the run.
        codec: of the graph.
        user: who calls.
        answer_timeout: see `PendingRequests`.
        linger: likewise.

    Attributes:
        flush_after: seconds that what is not waited for may wait for what goes along.
    """

    def __init__(
        self,
        frames: FrameStream,
        codec: Codec,
        user: Identity | None,
        answer_timeout: float | None,
        linger: float = 0.0,
    ) -> None:
        self.frames, self.user = frames, user
        self.protocol = HostProtocol()
        self.codec = codec
        self._replies: Codec | None = None
        self._lock = threading.Lock()
        self._requests = PendingRequests(answer_timeout, lambda: frames.downtime, linger)
        self._accepted: pb.Frame | None = None
        """Sent with what the run sends first; the end of a run that sends nothing else goes without it."""
        self.flush_after = _FLUSH_AFTER
        self._flushes = False
        self._batch, self._batch_kind, self._batch_is_timed = PartBatch(), "part", False

    @property
    def replies(self) -> Codec:
        """Reads what the caller's checkpointer, cache and store have kept."""
        if self._replies is None:
            self._replies = self.codec.for_replies()
        return self._replies

    def notify(self, kind: str, *args: Any) -> None:
        args = self._shown(args) if kind == "stream" else args
        arguments = encode_event(self.codec, kind, (args,) if kind in GATHERED else args)
        wait_for_room(self.frames)
        if kind not in GATHERED:
            self.send_event(kind, arguments)
            return
        with self._lock:
            starts_timer = self._gather(kind, arguments)
        if starts_timer:
            self._send_later()

    def send_event(self, kind: str, arguments: bytes) -> None:
        """Sends a notification, whatever waits already."""
        with self._lock:
            self._send(self.protocol.event(kind, arguments))

    def send_part(self, part: Any, *, more: bool) -> bool:
        """Sends a part; None is the mark of a superstep's end. `more`: the host goes on without a credit.

        It is encoded at once, since its node may go on to change it, and goes with those that come within milliseconds.

        Returns:
            Whether it is the first to wait for others: the one before it has gone out moments ago.
        """
        value = [b""] if part is None else self.codec.encode_pieces(self._shown((part,)), "part")
        with self._lock:
            if len(value) > 1 or not value[0]:
                self._send(self.protocol.part(b"", more=more), {"value": value})
                return False
            starts_timer = self._gather("part", value[0], more=more)
        if starts_timer:
            self._send_later()
        return starts_timer

    def _gather(self, kind: str, item: bytes, *, more: bool = True) -> bool:
        """Sends a part or an event, or keeps it for those of its kind that come next. Under the lock.

        Returns:
            Whether to call `_send_later`.
        """
        if kind != self._batch_kind:
            self._send_batch()
            self._batch_kind = kind
        if not (self._batch.may_wait(item) and more):
            self._send_batch(more=more)
            return False
        starts_timer, self._batch_is_timed = not self._batch_is_timed, True
        return starts_timer

    def _send_later(self) -> None:
        # On the I/O thread, which no node holds up.
        io_thread().call(io_thread().loop.call_later, BATCH_SECONDS, self._send_late)

    def _send_late(self) -> None:
        with self._lock:
            self._batch_is_timed = False
            self._send_batch()

    def _send_batch(self, *, more: bool = True) -> None:
        """Sends what waits. Under the lock."""
        if not self._batch:
            return
        items, kind = self._batch.take(), self._batch_kind
        self._send(self.protocol.part(items, more=more) if kind == "part" else self.protocol.event(kind, items))

    def _send_request(self, target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PendingRequest:
        arguments = self.codec.encode_pieces([[*args], kwargs], f"{target}.{method}")
        wait_for_room(self.frames)
        with self._lock:
            frame = self.protocol.request(target, method, b"")
            if frame is None:
                raise HostError(_ENDED)
            request = self._requests.open(frame.request.id, target, method)
            self._send(frame, {"arguments": arguments})
        return request

    def _result_of(self, request: PendingRequest, received: ReceivedFrame) -> Any:
        try:
            if failure := received.field("failure"):
                raise raisable(decode_failure(failure, self.codec))
            # Of what was kept there, unlisted classes come closed; a run's own arguments must not have any.
            codec = self.codec if request.target == "messages" else self.replies
            return codec.decode_pieces(received.pieces("value"), f"reply of {request.target}.{request.method}")
        finally:
            received.release()

    def request(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        request = self._send_request(target, method, args, kwargs)
        return self._result_of(request, self._requests.wait(request))

    async def arequest(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        request = self._send_request(target, method, args, kwargs)
        return self._result_of(request, await self._requests.await_answer(request))

    def request_nowait(self, target: str, method: str, *args: Any, **kwargs: Any) -> None:
        arguments = self.codec.encode_pieces([[*args], kwargs], f"{target}.{method}")
        wait_for_room(self.frames)
        with self._lock:
            frame = self.protocol.request(target, method, b"", pipelined=True)
            if frame is None:
                raise HostError(_ENDED)
            self._send(frame, {"arguments": arguments}, flush=False)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.frames.flush()
            return
        if not self._flushes:
            self._flushes = True
            loop.call_later(self.flush_after, self._flush)

    def _flush(self) -> None:
        self._flushes = False
        self.frames.flush()

    def _shown(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        return parts if self.user is None else host_verbs.without_identity(parts)

    def _send(
        self, frame: pb.Frame | None, large: Mapping[str, Sequence[bytes]] = NO_FIELDS, *, flush: bool = True
    ) -> None:
        if self._batch:
            self._send_batch()  # they came first
        if frame is None:
            return
        is_end = frame.HasField("end")
        if (accepted := self._accepted) is not None:
            self._accepted = None
            if not is_end:
                self.frames.send(accepted, flush=False)
        # The I/O thread wakes for the end when this thread has nothing more to do: else both want the interpreter.
        self.frames.send(frame, large, flush=flush and not is_end)
