"""The caller's side over gRPC: one stream to a host, shared by all runs of this process, made anew after a loss."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar

import grpc
import grpc.aio

from agentmatrix.errors import AddressError, AgentMatrixError, HostLost, HostUnreachable, ProtocolError
from agentmatrix.transport.base import Lane, Receiver, State, Transport
from agentmatrix.transport.grpc_errors import call_failed, connect_failed, unanswered
from agentmatrix.transport.grpc_options import (
    ACCEPTED,
    SERVICE,
    channel_credentials,
    channel_options,
    request_metadata,
    require_fast_protobuf,
)
from agentmatrix.transport.iothread import AFTER_FORK, forked, io_thread
from agentmatrix.transport.multiplexer import Exchange, Loss, OpenLane
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import Target, is_loopback, split_port
from agentmatrix.wire.v1.service_pb2 import DescribeReply, DescribeRequest, ListAgentsReply, ListAgentsRequest

__all__ = ["GrpcTransport"]

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_FAREWELL = 1.0
_runs = itertools.count(1)


class GrpcTransport(Transport):
    """A holder of the connection to one host.

    Raises:
        AddressError: a token would cross a network in the clear, or a certificate cannot be read.
    """

    def __init__(self, target: Target, options: ClientOptions) -> None:
        require_fast_protobuf()
        self.address = target.address
        self._closed = False
        self._connection = _acquire(target, options)
        # The finalizer may run inside any allocation, so it only leaves a note for the I/O thread.
        self._release = weakref.finalize(self, io_thread().call, _release, self._connection)
        self._release.atexit = False

    def open(self, receiver: Receiver) -> Lane:
        unusable = self._unusable()
        if unusable:
            io_thread().call(receiver.lost, unusable)
            return OpenLane(Exchange(lambda: None, 0), next(_runs), receiver)
        lane = self._connection.open(receiver)
        lane.owner = self
        return lane

    def describe(self, agent: str, timeout: float) -> Future[DescribeReply]:
        request = DescribeRequest(agent=agent).SerializeToString()
        return self._ask("Describe", request, timeout, lambda data, _: DescribeReply.FromString(data))

    def list_agents(self, timeout: float) -> Future[ListAgentsReply]:
        return self._ask("ListAgents", b"", timeout, lambda data, _: ListAgentsReply.FromString(data))

    def ping(self, timeout: float) -> Future[float]:
        request = ListAgentsRequest().SerializeToString()
        return self._ask("ListAgents", request, timeout, lambda _, seconds: seconds)

    @property
    def state(self) -> State:
        return "closed" if self._closed else self._connection.state

    def close(self) -> None:
        self._closed = True
        self._release()

    def _ask(self, method: str, request: bytes, timeout: float, read: Callable[[bytes, float], T]) -> Future[T]:
        async def ask() -> T:
            if unusable := self._unusable():
                raise unusable
            return read(*await self._connection.ask(method, request, timeout))

        return io_thread().run(ask())

    def _unusable(self) -> HostUnreachable | None:
        if self._closed:
            return HostUnreachable(f"the connection to {self.address} has been closed here")
        if forked():
            return HostUnreachable(f"{self.address} cannot be reached from here: {AFTER_FORK}")
        return None


class _Connection:
    """What transports to one address with equal options share: the link of the moment."""

    def __init__(self, key: Hashable, target: Target, options: ClientOptions) -> None:
        self.key = key
        self.holders = 0
        self._target = target
        self._options = options
        self._metadata = request_metadata(options)
        self._credentials = channel_credentials(options, target.scheme == "grpcs")
        self._refuse_clear_token()
        self._lock = threading.Lock()
        self._link: _Link | None = None

    @property
    def state(self) -> State:
        return "idle" if self._link is None else self._link.state

    def open(self, receiver: Receiver) -> OpenLane:
        while (lane := self._live_link().open(receiver)) is None:
            pass
        return lane

    async def ask(self, method: str, request: bytes, timeout: float) -> tuple[bytes, float]:
        return await self._live_link().ask(method, request, timeout)

    def close(self) -> None:
        with self._lock:
            link, self._link = self._link, None
        if link:
            io_thread().call(link.end)

    def _live_link(self) -> _Link:
        with self._lock:
            if self._link is None or self._link.state in ("lost", "closed"):
                self._link = _Link(self._target, self._options, self._metadata, self._credentials)
            return self._link

    def _refuse_clear_token(self) -> None:
        if self._options.token is None or self._credentials or self._options.insecure or self._target.scheme == "unix":
            return
        host, _ = split_port(self._target.address, self._target.address)
        if not is_loopback(host):
            raise AddressError(
                f"the token would go to {self._target.address} in the clear, for anyone on the way to read; "
                "use grpcs://, an ssh tunnel to a loopback port, or insecure=True"
            )


_registry_lock = threading.Lock()
_registry: dict[Hashable, _Connection] = {}


def _acquire(target: Target, options: ClientOptions) -> _Connection:
    key = (target.scheme, target.address, options.key())
    with _registry_lock:
        connection = _registry.get(key)
        if connection is None:
            connection = _registry[key] = _Connection(key, target, options)
        connection.holders += 1
        return connection


def _release(connection: _Connection) -> None:
    with _registry_lock:
        connection.holders -= 1
        if connection.holders:
            return
        del _registry[connection.key]
    connection.close()


class _Link:
    """One channel with at most one stream. It is lost once and not used again.

    Public methods run on the I/O thread, `open` and `state` on any.
    """

    def __init__(
        self,
        target: Target,
        options: ClientOptions,
        metadata: tuple[tuple[str, str], ...],
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self.state: State = "idle"
        self._io = io_thread()
        self._at = target.address
        self._target = target
        self._options = options
        self._metadata = metadata
        self._credentials = credentials
        self._exchange = Exchange(self._wake, options.max_frame, peer=f"the host at {self._at}")
        self._something = asyncio.Event()
        self._streaming: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._ending = False
        self._cancel_exit = self._io.at_exit(self._exit)

    def open(self, receiver: Receiver) -> OpenLane | None:
        lane = self._exchange.open(next(_runs), receiver)
        if lane and self._streaming is None:
            self._io.call(self._start)
        return lane

    async def ask(self, method: str, request: bytes, timeout: float) -> tuple[bytes, float]:
        channel = self._open_channel()
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{method}")
        began = time.perf_counter()
        try:
            answer = await call(request, timeout=timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            connected = channel.get_state() is grpc.ChannelConnectivity.READY
            if not connected and self._streaming is None:
                self._lose(HostUnreachable(f"no host answers at {self._at}"))
            details = error.details() or ""
            raise call_failed(self._at, error.code(), details, self._secure, timeout, connected) from None
        except asyncio.CancelledError:
            if self.state not in ("lost", "closed"):
                raise
            # Closing a channel cancels the calls on it; nobody cancelled this one.
            raise HostLost(f"the connection to the host at {self._at} was lost before it answered") from None
        if self.state == "idle":
            self.state = "connected"
        return answer, time.perf_counter() - began

    def end(self) -> None:
        self._io.task(self._farewell())

    @property
    def _secure(self) -> bool:
        return self._credentials is not None

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            options = channel_options(self._options)
            name = f"unix:{self._at}" if self._target.scheme == "unix" else f"dns:///{self._at}"
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(name, options=options)
            else:
                self._channel = grpc.aio.secure_channel(name, self._credentials, options=options)
        return self._channel

    def _wake(self) -> None:
        if self._io.here:
            self._something.set()
        else:
            self._io.call(self._something.set)

    def _start(self) -> None:
        if self._streaming is None and self.state not in ("lost", "closed"):
            self._streaming = self._io.task(self._converse())

    async def _converse(self) -> None:
        converse: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._open_channel().stream_stream(
            f"/{SERVICE}/Converse"
        )
        call = converse(metadata=self._metadata)
        try:
            refused = await self._refused(call)
            if refused:
                self._lose(refused)
                return
            self.state = "connected"
            await self._carry(call)
        except asyncio.CancelledError:
            self._lose(self._loss("this process is ending"))
        except ProtocolError as error:
            self._lose(error)
        except Exception as error:
            _logger.exception("the connection to a host failed")
            self._lose(self._loss(f"{type(error).__name__}: {error}"))
        finally:
            call.cancel()

    async def _refused(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> AgentMatrixError | None:
        """Why the host has not taken the stream. Nothing of a run is written before it has."""
        greeting = asyncio.ensure_future(call.initial_metadata())
        done, _ = await asyncio.wait({greeting}, timeout=self._options.connect_timeout)
        if not done:
            greeting.cancel()
            return unanswered(self._at, self._options.connect_timeout)
        if greeting.exception() is None and ACCEPTED in tuple(greeting.result() or ()):
            return None
        return connect_failed(self._at, await call.code(), await call.details() or "", self._secure)

    async def _carry(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        writing = self._io.task(self._write(call))
        try:
            while isinstance(message := await call.read(), bytes):
                self._exchange.feed(message)
        except grpc.aio.AioRpcError:
            pass
        finally:
            writing.cancel()
        details = await call.details()
        self._lose(self._loss("it was closed here" if self._ending else details or "the host closed the connection"))

    async def _write(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        try:
            while True:
                message = self._exchange.take()
                if message is not None:
                    await call.write(message)
                elif self._ending:
                    await call.done_writing()
                    return
                else:
                    await self._something.wait()
                    self._something.clear()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # the reader learns of it too, and tells the runs

    def _loss(self, why: str) -> Loss:
        return Loss(
            HostLost(f"the connection to the host at {self._at} was lost ({why}); how far this run came is unknown"),
            HostUnreachable(f"the connection to the host at {self._at} was lost ({why}) before this run was sent"),
        )

    def _lose(self, why: Loss | AgentMatrixError) -> None:
        self.state = "closed" if self._ending else "lost"
        self._cancel_exit()
        self._exchange.lose(why if isinstance(why, Loss) else Loss(why, why))
        channel, self._channel = self._channel, None
        if channel is not None:
            self._io.task(channel.close())

    async def _farewell(self) -> None:
        self._ending = True
        self._something.set()
        if self._streaming is not None:
            await asyncio.wait({self._streaming}, timeout=_FAREWELL)
            self._streaming.cancel()
        elif self.state != "lost":
            self._lose(self._loss("it was closed here"))

    async def _exit(self) -> None:
        self.state = "closed"
        self._exchange.silence()
        await self._farewell()
