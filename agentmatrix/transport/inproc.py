"""A host and its callers in one process: the same frames through the same bytes as over gRPC, without a socket.

Both multiplexers of a connection are served by the I/O thread, one message at a time, so that neither side starves the
other. `_lock` guards the table of servers; each transport's own lock guards which connection is the current one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from google.protobuf.message import Message

from agentmatrix.errors import (
    AddressError,
    AgentMatrixError,
    DeadlineExceeded,
    HostError,
    HostLost,
    HostUnreachable,
    ProtocolError,
    Unauthenticated,
)
from agentmatrix.transport.admission import AdmissionControl
from agentmatrix.transport.authentication import Authentication
from agentmatrix.transport.base import ConnectionState, FrameReceiver, FrameStream, Peer, Server, Servicer, Transport
from agentmatrix.transport.headers import request_metadata
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import ConnectionLoss, Multiplexer, unconnected_stream
from agentmatrix.transport.options import ClientOptions, ServerOptions
from agentmatrix.wire.v1.service_pb2 import DescribeReply, ListAgentsReply

__all__ = ["InprocServer", "InprocTransport"]

M = TypeVar("M", bound=Message)

_logger = logging.getLogger(__name__)

_lock = threading.Lock()
_servers: dict[str, InprocServer] = {}
_runs = itertools.count(1)


class InprocServer(Server):
    """A host under a name that is known in this process only."""

    def __init__(self, name: str, servicer: Servicer, options: ServerOptions) -> None:
        if not name or "/" in name:
            raise AddressError(f"{name!r} cannot be the name of a host; write inproc://name")
        self.name = name
        self.servicer = servicer
        self.options = options
        self.admission = AdmissionControl(servicer, options.max_runs)
        self.authentication = Authentication(options)
        self.budget = options.budget()
        self.connections: set[_InprocConnection] = set()
        self.serves = False

    def start(self) -> str:
        with _lock:
            if _servers.setdefault(self.name, self) is not self:
                raise AddressError(f"inproc://{self.name} is in use by another host of this process")
        return f"inproc://{self.name}"

    def ready(self) -> None:
        self.serves = True

    def drain(self) -> None:
        self.serves = False

    def stop(self, grace: float) -> None:
        if _servers.get(self.name) is self:
            io_thread().run(self._stop(grace)).result()

    async def _stop(self, grace: float) -> None:
        await self.admission.drain(grace)
        with _lock:
            _servers.pop(self.name, None)
        for connection in list(self.connections):
            connection.flush()
            connection.end("the host closed the connection")


class InprocTransport(Transport):
    """A caller of a host in this process."""

    def __init__(self, name: str, options: ClientOptions) -> None:
        self.address = f"inproc://{name}"
        self._name = name
        self._options = options
        self._peer = Peer("inproc", metadata={k.lower(): v for k, v in options.headers.items()})
        self._lock = threading.Lock()
        self._connection: _InprocConnection | None = None
        self._closed = False

    def open(self, receiver: FrameReceiver) -> FrameStream:
        run = next(_runs)
        try:
            while (stream := self._live_connection().caller.open(run, receiver)) is None:
                pass  # the connection was lost in this moment: the next one is new
        except AgentMatrixError as error:
            io_thread().call(receiver.lost, error)
            return unconnected_stream(run, receiver)
        return stream

    def describe(self, agent: str, timeout: float) -> Future[DescribeReply]:
        return self._call(lambda server, peer: server.servicer.describe(agent, peer), DescribeReply, timeout)

    def list_agents(self, timeout: float) -> Future[ListAgentsReply]:
        return self._call(lambda server, peer: server.servicer.list_agents(peer), ListAgentsReply, timeout)

    def ping(self, timeout: float) -> Future[float]:
        async def ping() -> float:
            began = time.perf_counter()
            await asyncio.wrap_future(self.list_agents(timeout))
            return time.perf_counter() - began

        return io_thread().run(ping())

    def serves(self, timeout: float) -> Future[bool]:
        async def serves() -> bool:
            return self._find().serves

        return io_thread().run(serves())

    @property
    def connection(self) -> int | None:
        connection = self._connection
        return None if connection is None else connection.caller.number

    @property
    def state(self) -> ConnectionState:
        if self._closed:
            return "closed"
        if self._connection is None:
            return "idle"
        return "connected" if self._connection.alive else "lost"

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connection = self._connection
        if connection is not None:
            io_thread().call(connection.end, "it was closed here")

    def _live_connection(self) -> _InprocConnection:
        with self._lock:
            if self._connection is None or not self._connection.alive or self._closed:
                server = self._find()
                self._connection = _InprocConnection(server, self._admitted(server), self._options.max_frame)
            return self._connection

    def _find(self) -> InprocServer:
        if self._closed:
            raise HostUnreachable(f"the connection to {self.address} has been closed here")
        server = _servers.get(self._name)
        if server is None:
            raise HostUnreachable(f"no host answers at {self.address}: this process has none of that name")
        return server

    def _admitted(self, server: InprocServer) -> Peer:
        try:
            return server.authentication.admit(dict(request_metadata(self._options)), self._peer)
        except Unauthenticated as error:
            raise Unauthenticated(f"the host at {self.address} refuses this caller: {error}") from None

    def _call(self, method: Callable[[InprocServer, Peer], Future[M]], kind: type[M], timeout: float) -> Future[M]:
        async def answer() -> M:
            server = self._find()
            blocks = server.authentication.blocks
            peer = await asyncio.to_thread(self._admitted, server) if blocks else self._admitted(server)
            future = asyncio.wrap_future(method(server, peer))
            done, _ = await asyncio.wait({future}, timeout=timeout)
            if not done:
                future.cancel()
                raise DeadlineExceeded(f"the host at {self.address} did not answer within {timeout:g} seconds")
            if future.cancelled():
                raise HostLost(f"the host at {self.address} failed to answer: it gave up")
            error = future.exception()
            if error is not None and not isinstance(error, HostError):
                _logger.error("the host failed to answer", exc_info=error)
                raise HostLost(f"the host at {self.address} failed to answer: {type(error).__name__}: {error}")
            return kind.FromString(future.result().SerializeToString())

        return io_thread().run(answer())


class _InprocConnection:
    """The multiplexers of both sides, joined on the I/O thread.

    Any thread may make one; all methods run on the I/O thread.
    """

    def __init__(self, server: InprocServer, peer: Peer, limit: int) -> None:
        self.alive = True
        self._io = io_thread()
        self._server = server
        self.caller = Multiplexer(self._wake(True), limit, peer=f"the host at inproc://{server.name}")
        self.host = Multiplexer(
            self._wake(False),
            server.options.max_frame,
            accept=lambda frames: server.admission.accept(frames, peer),
            on_close=server.admission.release,
            peer="the caller",
            budget=server.options.caller_budget(server.budget),
        )
        server.connections.add(self)
        self._io.call(self._pump, True)
        self._io.call(self._pump, False)

    def flush(self) -> None:
        """Carries everything that is queued."""
        while self._carry(True) or self._carry(False):
            pass

    def end(self, why: str) -> None:
        """Tells both sides that the connection is gone. Idempotent."""
        self.alive = False
        self._server.connections.discard(self)
        at = f"inproc://{self._server.name}"
        self.caller.connection_lost(
            ConnectionLoss(
                HostLost(f"the connection to the host at {at} was lost ({why})"),
                HostUnreachable(f"the connection to the host at {at} was lost ({why}) before this run was sent"),
            )
        )
        lost = HostLost(f"the caller in this process is lost: {why}")
        self.host.connection_lost(ConnectionLoss(lost, lost))

    def _wake(self, outward: bool) -> Callable[[], None]:
        return lambda: self._io.call(self._pump, outward)

    def _pump(self, outward: bool) -> None:
        if self._carry(outward):
            self._io.call(self._pump, outward)

    def _carry(self, outward: bool) -> bool:
        source, sink = (self.caller, self.host) if outward else (self.host, self.caller)
        message = source.next_message()
        if message is None:
            return False
        try:
            sink.receive_message(message)
        except ProtocolError as error:
            self.end(str(error))
        return True
