"""The caller's side over gRPC: one stream to a host, shared by all runs of this process, made anew after a loss.

Three lifetimes: a `GrpcTransport` belongs to a remote agent; a `_SharedConnection` serves all transports to one address
with equal options, and counts them; a `GrpcChannel` is one connection of them, which outlives cuts, is lost once and
then replaced.

Threads and locks. Any thread opens a run; everything that awaits runs on the I/O thread. `_registry_lock` guards the
shared connections and their counts. The lock of a shared connection guards which channel is the current one, so that a
thousand threads that find it lost make one new one. Neither is taken under the other, nor by a finalizer.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar

from agentmatrix.errors import AddressError, HostUnreachable
from agentmatrix.transport import health
from agentmatrix.transport.base import ConnectionState, FrameReceiver, FrameStream, Transport
from agentmatrix.transport.grpc_channel import GrpcChannel, new_run
from agentmatrix.transport.grpc_options import SERVICE, channel_credentials, require_fast_protobuf
from agentmatrix.transport.headers import has_secret, request_metadata
from agentmatrix.transport.iothread import AFTER_FORK, forked, io_thread
from agentmatrix.transport.multiplexer import unconnected_stream
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.resumption import ReconnectBackoff
from agentmatrix.transport.stream import MultiplexedStream
from agentmatrix.transport.target import Target, is_loopback, split_port
from agentmatrix.wire.v1.service_pb2 import DescribeReply, DescribeRequest, ListAgentsReply, ListAgentsRequest

__all__ = ["GrpcTransport"]

T = TypeVar("T")


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
            return unconnected_stream(new_run(), receiver)
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
    def connection(self) -> int | None:
        return self._connection.number

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
        self._current: GrpcChannel | None = None
        self._closed = False

    @property
    def number(self) -> int | None:
        channel = self._current
        return None if channel is None else channel.number

    @property
    def state(self) -> ConnectionState:
        return "idle" if self._current is None else self._current.state

    def open(self, receiver: FrameReceiver) -> MultiplexedStream:
        while (stream := self._live_channel().open(receiver)) is None:
            pass  # the channel was lost in this moment: the next one is new
        return stream

    async def call(self, method: str, request: bytes, timeout: float) -> tuple[bytes, float]:
        """The answer to a request that changes nothing: it is sent again where the line is cut before it has come.

        As with runs, nobody is waited for who does not listen any more, unless `reconnect_timeout` says so.
        """
        until, left = time.monotonic() + timeout, timeout
        backoff: ReconnectBackoff | None = None
        while True:
            try:
                return await self._live_channel().call(method, request, left)
            except HostUnreachable as error:
                seconds = self._options.reconnect_timeout
                if backoff is None:
                    if not error.closed or seconds == 0 or self._closed:
                        raise
                    most = timeout if seconds is None else min(timeout, seconds)
                    is_patient = seconds is not None and not self._options.has_replicas
                    backoff = ReconnectBackoff(str(error), most, is_patient=is_patient)
                # One that closes each line at once may want TLS, or be no host.
                backoff.failed(error, refused=error.refused or error.closed)
                pause = backoff.next_pause()
                left = until - time.monotonic() - (pause or 0.0)
                if pause is None or left <= 0:
                    raise
                await asyncio.sleep(pause)
                if self._closed:
                    raise

    def end_runs(self, owner: object) -> None:
        """Ends the runs of a transport that has been closed, where others go on with the connection."""
        with self._lock:
            channel = self._current
        if channel:
            channel.end_runs(owner)

    def close(self) -> None:
        with self._lock:
            channel, self._current, self._closed = self._current, None, True
        if channel:
            io_thread().call(channel.close)

    def _live_channel(self) -> GrpcChannel:
        with self._lock:
            if self._current is None or self._current.state == "closed":
                self._current = self._new_channel()
            elif self._current.state == "lost" or self._current.is_outdated:
                # Runs under way end on the connection that they have, as long as the host lets them.
                io_thread().call(self._current.retire)
                self._current = self._new_channel()
            return self._current

    def _new_channel(self) -> GrpcChannel:
        # Each channel reads the files of certificates and keys again.
        self._credentials = channel_credentials(self._options, self._target.scheme == "grpcs")
        return GrpcChannel(self._target, self._options, self._credentials)

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
