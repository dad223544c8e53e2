"""The caller's side over gRPC: one stream to a host, shared by all runs of this process, made anew after a loss.

Three lifetimes: a `GrpcTransport` belongs to a remote agent; a `_SharedConnection` serves all transports to one address
with equal options, and counts them; a `_GrpcChannel` is one gRPC channel, which is lost once and then replaced.

Threads and locks. Any thread opens a run; everything that awaits runs on the I/O thread. `_registry_lock` guards the
shared connections and their counts. The lock of a shared connection guards which channel is the current one, so that a
thousand threads that find it lost make one new one. Neither is taken under the other, nor by a finalizer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import cache
from typing import TypeVar

import grpc
import grpc.aio

from agentmatrix.errors import AddressError, AgentMatrixError, HostLost, HostUnreachable, ProtocolError
from agentmatrix.transport import health
from agentmatrix.transport.base import ConnectionState, FrameReceiver, FrameStream, Transport
from agentmatrix.transport.flow import ByteBudget
from agentmatrix.transport.grpc_errors import call_error, connect_error, timeout_error
from agentmatrix.transport.grpc_options import (
    ACCEPTED,
    SERVICE,
    channel_credentials,
    channel_options,
    require_fast_protobuf,
)
from agentmatrix.transport.headers import has_secret, request_metadata, token_stamp
from agentmatrix.transport.iothread import AFTER_FORK, forked, io_thread
from agentmatrix.transport.multiplexer import ConnectionLoss, Multiplexer, unconnected_stream
from agentmatrix.transport.options import ClientOptions, memory_budget
from agentmatrix.transport.stream import MultiplexedStream
from agentmatrix.transport.target import Target, is_loopback, split_port
from agentmatrix.wire.v1.service_pb2 import DescribeReply, DescribeRequest, ListAgentsReply, ListAgentsRequest

__all__ = ["GrpcTransport"]

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0
"""How long a connection that is closed here may go on writing what is queued."""
_runs = itertools.count(1)


class GrpcTransport(Transport):
    """A remote agent's hold on the connection to one host.

    Raises:
        AddressError: a token would cross a network in the clear, or a certificate cannot be read.
    """

    def __init__(self, target: Target, options: ClientOptions) -> None:
        require_fast_protobuf()
        self.address = target.address
        self._closed = False
        self._connection = _acquire(target, options)
        # The finalizer may run inside any allocation, and so under any lock: it only asks the I/O thread to do it.
        self._release = weakref.finalize(self, io_thread().call, _release, self._connection)
        self._release.atexit = False

    def open(self, receiver: FrameReceiver) -> FrameStream:
        unusable = self._unusable()
        if unusable:
            io_thread().call(receiver.lost, unusable)
            return unconnected_stream(next(_runs), receiver)
        stream = self._connection.open(receiver)
        stream.owner = self  # an open run keeps its connection, also when nothing else holds this transport
        return stream

    def describe(self, agent: str, timeout: float) -> Future[DescribeReply]:
        request = DescribeRequest(agent=agent).SerializeToString()
        return self._call("Describe", request, timeout, lambda data, _: DescribeReply.FromString(data))

    def list_agents(self, timeout: float) -> Future[ListAgentsReply]:
        return self._call("ListAgents", b"", timeout, lambda data, _: ListAgentsReply.FromString(data))

    def ping(self, timeout: float) -> Future[float]:
        request = ListAgentsRequest().SerializeToString()
        return self._call("ListAgents", request, timeout, lambda _, seconds: seconds)

    def serves(self, timeout: float) -> Future[bool]:
        serving = health.encode_response(health.ServingStatus.SERVING)
        return self._call("Check", b"", timeout, lambda data, _: data == serving, health.SERVICE)

    @property
    def state(self) -> ConnectionState:
        return "closed" if self._closed else self._connection.state

    def close(self) -> None:
        self._closed = True
        self._release()
        io_thread().call(self._connection.end_runs, self)

    def _call(
        self, method: str, request: bytes, timeout: float, read: Callable[[bytes, float], T], service: str = SERVICE
    ) -> Future[T]:
        async def call() -> T:
            if unusable := self._unusable():
                raise unusable
            return read(*await self._connection.call(f"/{service}/{method}", request, timeout))

        return io_thread().run(call())

    def _unusable(self) -> HostUnreachable | None:
        if self._closed:
            return HostUnreachable(f"the connection to {self.address} has been closed here")
        if forked():
            return HostUnreachable(f"{self.address} cannot be reached from here: {AFTER_FORK}")
        return None


class _SharedConnection:
    """The connection that all transports to one address with equal options share.

    Attributes:
        references: how many transports hold it; under `_registry_lock`.
    """

    def __init__(self, key: Hashable, target: Target, options: ClientOptions) -> None:
        self.key = key
        self.references = 0
        self._target = target
        self._options = options
        request_metadata(options)  # what cannot be sent is an error now
        self._credentials = channel_credentials(options, target.scheme == "grpcs")
        self._check_token_is_protected()
        self._lock = threading.Lock()
        self._current: _GrpcChannel | None = None

    @property
    def state(self) -> ConnectionState:
        return "idle" if self._current is None else self._current.state

    def open(self, receiver: FrameReceiver) -> MultiplexedStream:
        while (stream := self._live_channel().open(receiver)) is None:
            pass  # the channel was lost in this moment: the next one is new
        return stream

    async def call(self, method: str, request: bytes, timeout: float) -> tuple[bytes, float]:
        return await self._live_channel().call(method, request, timeout)

    def end_runs(self, owner: object) -> None:
        """Ends the runs of a transport that has been closed, where others go on with the connection."""
        with self._lock:
            channel = self._current
        if channel:
            channel.end_runs(owner)

    def close(self) -> None:
        with self._lock:
            channel, self._current = self._current, None
        if channel:
            io_thread().call(channel.close)

    def _live_channel(self) -> _GrpcChannel:
        with self._lock:
            if self._current is None or self._current.state in ("lost", "closed"):
                self._current = self._new_channel()
            elif self._current.is_outdated:
                # Runs under way end on the connection that they have, as long as the host lets them.
                io_thread().call(self._current.retire)
                self._current = self._new_channel()
            return self._current

    def _new_channel(self) -> _GrpcChannel:
        # Each channel reads the files of certificates and keys again.
        self._credentials = channel_credentials(self._options, self._target.scheme == "grpcs")
        return _GrpcChannel(self._target, self._options, self._credentials)

    def _check_token_is_protected(self) -> None:
        plain = self._credentials is None and self._target.scheme != "unix"
        if not (plain and has_secret(self._options)) or self._options.insecure:
            return
        host, _ = split_port(self._target.address, self._target.address)
        if not is_loopback(host):
            what = "secret header" if self._options.token is None else "token"
            raise AddressError(
                f"the {what} would go to {self._target.address} in the clear, for anyone on the way to read; "
                "use grpcs://, an ssh tunnel to a loopback port, or insecure=True"
            )


@cache
def _process_budget() -> ByteBudget:
    return ByteBudget(memory_budget(), "this process holds for all hosts", "half of the machine's memory")


_registry_lock = threading.Lock()
_registry: dict[Hashable, _SharedConnection] = {}


def _acquire(target: Target, options: ClientOptions) -> _SharedConnection:
    key = (target.scheme, target.address, options.key())
    with _registry_lock:
        connection = _registry.get(key)
        if connection is None:
            connection = _registry[key] = _SharedConnection(key, target, options)
        connection.references += 1
        return connection


def _release(connection: _SharedConnection) -> None:
    with _registry_lock:
        connection.references -= 1
        if connection.references:
            return
        del _registry[connection.key]
    connection.close()


class _GrpcChannel:
    """One gRPC channel with at most one stream. Once it is lost, it is not used again.

    Public methods run on the I/O thread, but `open` and `state`, which any thread may call.
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
            budget=budget, on_refused=self.retire,
        )  # fmt: skip
        self._has_output = asyncio.Event()
        self._stream_task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closing = self._retired = False
        self._token_stamp = token_stamp(options)
        self._unregister_exit = self._io.at_exit(self._exit)

    def open(self, receiver: FrameReceiver) -> MultiplexedStream | None:
        if self._retired:
            return None
        stream = self._multiplexer.open(next(_runs), receiver)
        if stream and self._stream_task is None:
            self._io.call(self._start)
        return stream

    async def call(self, method: str, request: bytes, timeout: float) -> tuple[bytes, float]:
        channel = self._open_channel()
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
            raise failure from None
        except asyncio.CancelledError:
            if self.state not in ("lost", "closed"):
                raise
            # Closing a channel cancels the calls on it; nobody cancelled this one.
            raise HostLost(f"the connection to the host at {self._address} was lost before it answered") from None
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
        converse: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._open_channel().stream_stream(
            f"/{SERVICE}/Converse"
        )
        try:
            metadata = request_metadata(self._options)
        except AddressError as error:  # the token's file is gone
            self._lose(error)
            return
        call = converse(metadata=metadata)
        try:
            rejection = await self._rejection(call)
            if rejection:
                self._lose(rejection)
                return
            self.state = "connected"
            await self._read(call)
        except asyncio.CancelledError:
            self._lose(self._loss("this process is ending"))
        except ProtocolError as error:
            self._lose(error)
        except Exception as error:
            _logger.exception("the connection to a host failed")
            self._lose(self._loss(f"{type(error).__name__}: {error}"))
        finally:
            call.cancel()

    async def _rejection(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> AgentMatrixError | None:
        """Why the host has not taken the stream; None when it has.

        Nothing of a run is written before it has: so a run that fails here is known not to have started.
        """
        greeting = asyncio.ensure_future(call.initial_metadata())
        done, _ = await asyncio.wait({greeting}, timeout=self._options.connect_timeout)
        if not done:
            greeting.cancel()
            return timeout_error(self._address, self._options.connect_timeout)
        if greeting.exception() is None and ACCEPTED in tuple(greeting.result() or ()):
            return None
        return connect_error(self._address, await call.code(), await call.details() or "", self._secure)

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        writing = self._io.task(self._write(call))
        try:
            while isinstance(message := await call.read(), bytes):
                self._multiplexer.receive_message(message)
        except grpc.aio.AioRpcError:
            pass
        finally:
            writing.cancel()
        details = await call.details()
        if await call.code() is grpc.StatusCode.UNAUTHENTICATED:
            self._lose(connect_error(self._address, grpc.StatusCode.UNAUTHENTICATED, details or "", self._secure))
            return
        self._lose(self._loss("it was closed here" if self._closing else details or "the host closed the connection"))

    async def _write(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        try:
            while True:
                message = self._multiplexer.next_message()
                if message is not None:
                    await call.write(message)
                elif self._closing and self._multiplexer.outbox.empty:
                    await call.done_writing()
                    return
                else:
                    await self._has_output.wait()
                    self._has_output.clear()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # the reader learns of it too, and tells the runs

    def _loss(self, why: str) -> ConnectionLoss:
        return ConnectionLoss(
            HostLost(
                f"the connection to the host at {self._address} was lost ({why}); how far this run came is unknown"
            ),
            HostUnreachable(f"the connection to the host at {self._address} was lost ({why}) before this run was sent"),
        )

    def _lose(self, why: ConnectionLoss | AgentMatrixError) -> None:
        self.state = "closed" if self._closing else "lost"
        self._unregister_exit()
        self._multiplexer.connection_lost(why if isinstance(why, ConnectionLoss) else ConnectionLoss(why, why))
        channel, self._channel = self._channel, None
        if channel is not None:
            self._io.task(channel.close())

    async def _close_gracefully(self) -> None:
        self._closing = True
        self._has_output.set()
        if self._stream_task is not None:
            await asyncio.wait({self._stream_task}, timeout=_CLOSE_SECONDS)
            self._stream_task.cancel()
        elif self.state != "lost":
            self._lose(self._loss("it was closed here"))

    async def _exit(self) -> None:
        self.state = "closed"
        self._multiplexer.abandon()
        await self._close_gracefully()
