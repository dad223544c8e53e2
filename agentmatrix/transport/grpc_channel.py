"""One connection to a host over gRPC: a stream, and after a cut the next one, until it is lost for good.

Everything runs on the I/O thread, but what says otherwise.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from functools import cache
from typing import Final, NoReturn

import grpc
import grpc.aio

from agentmatrix.errors import (
    AgentMatrixError,
    HostBusy,
    HostLost,
    HostUnreachable,
    ProtocolError,
)
from agentmatrix.transport.base import ConnectionState, FrameReceiver
from agentmatrix.transport.flow import ByteBudget
from agentmatrix.transport.framing import DISCONNECT, encoded_received
from agentmatrix.transport.grpc_errors import call_error, connect_error, timeout_error
from agentmatrix.transport.grpc_options import ACCEPTED, SERVICE, channel_options
from agentmatrix.transport.headers import request_metadata, token_stamp
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import ConnectionLoss, Multiplexer
from agentmatrix.transport.options import ClientOptions, memory_budget
from agentmatrix.transport.resumption import ConnectionGrant, ConnectionRequest, ReconnectBackoff
from agentmatrix.transport.stream import MultiplexedStream
from agentmatrix.transport.target import Target

__all__ = ["GrpcChannel", "new_run"]

_logger = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 1.0
"""How long a connection that is closed here may go on writing what is queued."""
_FOR_GOOD: Final = frozenset(
    {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INVALID_ARGUMENT}
)
"""The statuses by which a host ends a stream by intention."""
_runs = itertools.count(1)


def new_run() -> int:
    """The number of a new run, unique in this process."""
    return next(_runs)


@cache
def _process_budget() -> ByteBudget:
    return ByteBudget(memory_budget(), "this process holds for all hosts", "half of the machine's memory")


class _StreamEnded(Exception):
    """The stream of the connection is gone; the text says why. `for_good`: the host does not want it back."""

    def __init__(self, why: str, *, for_good: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good


class GrpcChannel:
    """A connection with one stream at a time. Once it is lost, it is not used again.

    After a cut it tries to reach the host again as long as runs are open. They go on where they stopped; new runs are
    better off with a new connection, whose state tells at once whether the host can be reached.

    Public methods run on the I/O thread, but `open` and `state`, which any thread may call.

    Attributes:
        state: `"lost"` also while it tries to reach the host again.
    """

    def __init__(
        self,
        target: Target,
        options: ClientOptions,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self.state: ConnectionState = "idle"
        self._io = io_thread()
        self._address = target.address
        self._target = target
        self._options = options
        self._credentials = credentials
        most = options.max_bytes or memory_budget() // 2
        budget = ByteBudget(most, "this process holds for one host", "max_bytes", _process_budget())
        self._multiplexer = Multiplexer(
            self._wake, options.max_frame, on_close=self._close_if_retired, peer=f"the host at {self._address}",
            budget=budget, on_refused=self.retire, is_resumable=options.reconnect_timeout != 0,
        )  # fmt: skip
        self._granted = ConnectionGrant()
        self._has_output = asyncio.Event()
        self._is_closed_here = asyncio.Event()
        self._stream_task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closing = self._retired = False
        self._token_stamp = token_stamp(options)
        self._unregister_exit = self._io.at_exit(self._exit)

    @property
    def number(self) -> int:
        """Of the connection, in this process."""
        return self._multiplexer.number

    def open(self, receiver: FrameReceiver) -> MultiplexedStream | None:
        if self._retired:
            return None
        stream = self._multiplexer.open(new_run(), receiver)
        if stream and self._stream_task is None:
            self._io.call(self._start)
        return stream

    async def call(self, method: str, request: bytes, timeout: float) -> tuple[bytes, float]:
        """The answer to a request, and the seconds until it came.

        Raises:
            HostUnreachable: there is no line, or (`closed`) there was one.
            HostError: as `call_error` makes it.
        """
        channel = self._open_channel()
        was_connected = self.state == "connected" or channel.get_state() is grpc.ChannelConnectivity.READY
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        began = time.perf_counter()
        try:
            answer = await call(request, timeout=timeout, metadata=request_metadata(self._options))
        except grpc.aio.AioRpcError as error:
            connected = channel.get_state() is grpc.ChannelConnectivity.READY
            details = error.details() or ""
            failure = call_error(self._address, error.code(), details, self._secure, timeout, connected)
            if not connected and self._stream_task is None:
                # A run that was opened in this moment is told the same.
                unreachable = HostUnreachable(f"no host answers at {self._address}")
                self._lose(failure if isinstance(failure, HostUnreachable) else unreachable)
            if was_connected and isinstance(failure, HostUnreachable):
                failure.closed = error.code() is grpc.StatusCode.UNAVAILABLE
            raise failure from None
        except asyncio.CancelledError:
            if self.state not in ("lost", "closed"):
                raise
            # Closing a channel cancels the calls on it; nobody cancelled this one.
            closed = HostUnreachable(f"the connection to the host at {self._address} was lost before it answered")
            closed.closed = True
            raise closed from None
        if self.state == "idle":
            self.state = "connected"
        return answer, time.perf_counter() - began

    def end_runs(self, owner: object) -> None:
        self._multiplexer.end_runs(owner, self._loss("it was closed here"))

    def close(self) -> None:
        self._io.task(self._close_gracefully())

    @property
    def is_outdated(self) -> bool:
        """Whether the host takes no more runs here, or has been shown another token than the file has now. Any thread
        may ask."""
        return self._retired or (self._token_stamp is not None and self._token_stamp != token_stamp(self._options))

    def retire(self) -> None:
        """Takes no new run, and closes when those under way have ended."""
        self._retired = True
        self._close_if_retired()

    def _close_if_retired(self) -> None:
        if self._retired and not len(self._multiplexer):
            self._io.call(self.close)

    @property
    def _secure(self) -> bool:
        return self._credentials is not None

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            options = channel_options(self._options)
            name = f"unix:{self._address}" if self._target.scheme == "unix" else f"dns:///{self._address}"
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(name, options=options)
            else:
                self._channel = grpc.aio.secure_channel(name, self._credentials, options=options)
        return self._channel

    def _wake(self) -> None:
        if self._io.is_current:
            self._has_output.set()
        else:
            self._io.call(self._has_output.set)

    def _start(self) -> None:
        if self._stream_task is None and self.state not in ("lost", "closed"):
            self._stream_task = self._io.task(self._converse())

    async def _converse(self) -> None:
        """Serves the stream, and after a cut the next one, until the connection is lost."""
        backoff: ReconnectBackoff | None = None
        try:
            while True:
                try:
                    await self._serve(is_new=backoff is None)
                except _StreamEnded as ended:
                    if ended.for_good or not self._may_reconnect:
                        return self._lose(self._loss(str(ended)))
                    backoff = self._cut(str(ended))
                except (HostUnreachable, HostBusy) as error:
                    if backoff is None:
                        return self._lose(error)
                    backoff.failed(error, refused=getattr(error, "refused", False))
                    if backoff.is_refused and self._options.has_replicas:
                        # The others wait for this host, as they would for the only one.
                        self._multiplexer.end_streams(self._multiplexer.going_elsewhere(), self._loss(backoff.why))
                        if not len(self._multiplexer):
                            return self._lose(self._loss(backoff.why))
                except AgentMatrixError as error:
                    if backoff is None or self.state == "connected":
                        return self._lose(error)
                    return self._lose(self._loss(f"{backoff.why}; then {error}"))
                self._drop_channel()
                pause = backoff.next_pause()
                if pause is None or not self._may_reconnect:
                    return self._lose(self._loss(backoff.why))
                await asyncio.wait({closed := asyncio.ensure_future(self._is_closed_here.wait())}, timeout=pause)
                closed.cancel()
        except asyncio.CancelledError:
            self._lose(self._loss("this process is ending"))
        except Exception as error:
            _logger.exception("the connection to a host failed")
            self._lose(self._loss(f"{type(error).__name__}: {error}"))

    async def _serve(self, *, is_new: bool) -> NoReturn:
        """Carries the frames of one stream to its end.

        Raises:
            _StreamEnded: it was there, and is gone.
            HostUnreachable, HostBusy: the host has not taken it.
            AgentMatrixError: the host will not take it, or has broken the protocol.
        """
        converse: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._open_channel().stream_stream(
            f"/{SERVICE}/Converse"
        )
        asked = ConnectionRequest(self._granted.id, self._multiplexer.outbox.received)
        resumable = asked.headers if self._options.reconnect_timeout != 0 else ()
        call = converse(metadata=(*request_metadata(self._options), *resumable))
        try:
            granted = await self._greeting(call)
            if is_new:
                self._granted = granted
            else:
                self._resume(granted)
            self.state = "connected"
            await self._read(call)
        finally:
            call.cancel()

    async def _greeting(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> ConnectionGrant:
        """What the host says when it takes the stream.

        Nothing of a run is written before it has: so a run that fails here is known not to have started.

        Raises:
            AgentMatrixError: it does not take it.
        """
        greeting = asyncio.ensure_future(call.initial_metadata())
        done, _ = await asyncio.wait({greeting}, timeout=self._options.connect_timeout)
        if not done:
            greeting.cancel()
            raise timeout_error(self._address, self._options.connect_timeout)
        if greeting.exception() is None and ACCEPTED in (metadata := tuple(greeting.result() or ())):
            return ConnectionGrant.read(metadata)
        raise connect_error(self._address, await call.code(), await call.details() or "", self._secure)

    @property
    def _may_reconnect(self) -> bool:
        """Whether there is anything to go on with, and a host that has kept it."""
        waits = len(self._multiplexer) or not self._multiplexer.outbox.empty
        return bool(self._granted.id and waits) and not (self._closing or self._multiplexer.has_disconnected)

    def _cut(self, why: str) -> ReconnectBackoff:
        """The stream is gone, and may come back."""
        self.state = "lost"
        self._multiplexer.cut()
        _logger.info(
            "the line to the host at %s was cut (%s); %d runs wait", self._address, why, len(self._multiplexer)
        )
        seconds = self._options.reconnect_timeout
        most = self._granted.linger if seconds is None else seconds
        return ReconnectBackoff(why, most, is_patient=seconds is not None)

    def _resume(self, granted: ConnectionGrant) -> None:
        if granted.id != self._granted.id:
            raise ProtocolError("the host has not kept the runs of this connection")
        down = self._multiplexer.downtime
        self._multiplexer.resume(granted.received)
        down = self._multiplexer.downtime - down
        _logger.info("the line to the host at %s is back after %.1f s", self._address, down)

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> NoReturn:
        writing = self._io.task(self._write(call))
        try:
            while isinstance(message := await call.read(), bytes):
                self._multiplexer.receive_message(message)
        except grpc.aio.AioRpcError:
            pass
        finally:
            writing.cancel()
        code, details = await call.code(), await call.details() or ""
        if code is grpc.StatusCode.UNAUTHENTICATED:
            raise connect_error(self._address, code, details, self._secure)
        why = "it was closed here" if self._closing else details or "the host closed the connection"
        raise _StreamEnded(why, for_good=code in _FOR_GOOD)

    async def _write(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        try:
            while True:
                message = self._multiplexer.next_message()
                if message is not None:
                    await call.write(message)
                elif self._closing and self._multiplexer.outbox.empty:
                    await call.write(DISCONNECT + encoded_received(self._multiplexer.outbox.received))
                    await call.done_writing()
                    return
                else:
                    await self._has_output.wait()
                    self._has_output.clear()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # the reader learns of it too, and tells the runs

    def _loss(self, why: str) -> ConnectionLoss:
        return ConnectionLoss(
            HostLost(f"the connection to the host at {self._address} was lost ({why})"),
            HostUnreachable(
                f"the connection to the host at {self._address} was lost ({why}) before it had got this run"
            ),
        )

    def _lose(self, why: ConnectionLoss | AgentMatrixError) -> None:
        self.state = "closed" if self._closing else "lost"
        self._unregister_exit()
        self._multiplexer.connection_lost(why if isinstance(why, ConnectionLoss) else ConnectionLoss(why, why))
        self._drop_channel()

    def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._io.task(channel.close())

    async def _close_gracefully(self) -> None:
        self._closing = True
        self._has_output.set()
        self._is_closed_here.set()
        if self._stream_task is not None:
            await asyncio.wait({self._stream_task}, timeout=_CLOSE_SECONDS)
            self._stream_task.cancel()
        elif self.state != "lost":
            self._lose(self._loss("it was closed here"))

    async def _exit(self) -> None:
        self.state = "closed"
        self._multiplexer.abandon()
        await self._close_gracefully()
