"""The same frames through the same bytes, without a socket: a host and its callers in one process."""

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
from agentmatrix.transport.authentication import Admission, refusal_of_token
from agentmatrix.transport.base import Lane, Peer, Receiver, Server, Servicer, State, Transport
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import Exchange, Loss, OpenLane
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
        self.admission = Admission(servicer, options.max_runs)
        self.pipes: set[_Pipe] = set()

    def start(self) -> str:
        with _lock:
            if _servers.setdefault(self.name, self) is not self:
                raise AddressError(f"inproc://{self.name} is in use by another host of this process")
        return f"inproc://{self.name}"

    def stop(self, grace: float) -> None:
        if _servers.get(self.name) is self:
            io_thread().run(self._stop(grace)).result()

    async def _stop(self, grace: float) -> None:
        await self.admission.drain(grace)
        with _lock:
            _servers.pop(self.name, None)
        for pipe in list(self.pipes):
            pipe.flush()
            pipe.end("the host closed the connection")


class InprocTransport(Transport):
    """A caller of a host in this process."""

    def __init__(self, name: str, options: ClientOptions) -> None:
        self.address = f"inproc://{name}"
        self._name = name
        self._options = options
        self._peer = Peer("inproc", metadata={k.lower(): v for k, v in options.headers.items()})
        self._lock = threading.Lock()
        self._pipe: _Pipe | None = None
        self._closed = False

    def open(self, receiver: Receiver) -> Lane:
        run = next(_runs)
        try:
            while (lane := self._live_pipe().caller.open(run, receiver)) is None:
                pass
        except AgentMatrixError as error:
            io_thread().call(receiver.lost, error)
            return OpenLane(Exchange(lambda: None, 0), run, receiver)
        return lane

    def describe(self, agent: str, timeout: float) -> Future[DescribeReply]:
        return self._ask(lambda server: server.servicer.describe(agent, self._peer), DescribeReply, timeout)

    def list_agents(self, timeout: float) -> Future[ListAgentsReply]:
        return self._ask(lambda server: server.servicer.list_agents(self._peer), ListAgentsReply, timeout)

    def ping(self, timeout: float) -> Future[float]:
        async def ping() -> float:
            began = time.perf_counter()
            await asyncio.wrap_future(self.list_agents(timeout))
            return time.perf_counter() - began

        return io_thread().run(ping())

    @property
    def state(self) -> State:
        if self._closed:
            return "closed"
        if self._pipe is None:
            return "idle"
        return "connected" if self._pipe.alive else "lost"

    def close(self) -> None:
        with self._lock:
            self._closed = True
            pipe = self._pipe
        if pipe is not None:
            io_thread().call(pipe.end, "it was closed here")

    def _live_pipe(self) -> _Pipe:
        with self._lock:
            if self._pipe is None or not self._pipe.alive or self._closed:
                self._pipe = _Pipe(self._find(), self._peer, self._options.max_frame)
            return self._pipe

    def _find(self) -> InprocServer:
        if self._closed:
            raise HostUnreachable(f"the connection to {self.address} has been closed here")
        server = _servers.get(self._name)
        if server is None:
            raise HostUnreachable(f"no host answers at {self.address}: this process has none of that name")
        token = self._options.token
        refused = refusal_of_token(server.options.token, None if token is None else f"Bearer {token}")
        if refused:
            raise Unauthenticated(f"the host at {self.address} refuses this caller: {refused}")
        return server

    def _ask(self, ask: Callable[[InprocServer], Future[M]], kind: type[M], timeout: float) -> Future[M]:
        async def answer() -> M:
            future = asyncio.wrap_future(ask(self._find()))
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


class _Pipe:
    """Two exchanges, joined on the I/O thread, one message at a time and in turns."""

    def __init__(self, server: InprocServer, peer: Peer, limit: int) -> None:
        self.alive = True
        self._io = io_thread()
        self._server = server
        self.caller = Exchange(self._wake(True), limit, peer=f"the host at inproc://{server.name}")
        self.host = Exchange(
            self._wake(False),
            server.options.max_frame,
            accept=lambda lane: server.admission.accept(lane, peer),
            on_forget=server.admission.leave,
            peer="the caller",
        )
        server.pipes.add(self)
        self._io.call(self._pump, True)
        self._io.call(self._pump, False)

    def flush(self) -> None:
        """Carry all that is queued. On the I/O thread, as all below."""
        while self._carry(True) or self._carry(False):
            pass

    def end(self, why: str) -> None:
        """Tell both sides that the connection is gone. Idempotent."""
        self.alive = False
        self._server.pipes.discard(self)
        at = f"inproc://{self._server.name}"
        self.caller.lose(
            Loss(
                HostLost(f"the connection to the host at {at} was lost ({why}); how far this run came is unknown"),
                HostUnreachable(f"the connection to the host at {at} was lost ({why}) before this run was sent"),
            )
        )
        lost = HostLost(f"the caller in this process is lost: {why}")
        self.host.lose(Loss(lost, lost))

    def _wake(self, outward: bool) -> Callable[[], None]:
        return lambda: self._io.call(self._pump, outward)

    def _pump(self, outward: bool) -> None:
        if self._carry(outward):
            self._io.call(self._pump, outward)

    def _carry(self, outward: bool) -> bool:
        source, sink = (self.caller, self.host) if outward else (self.host, self.caller)
        message = source.take()
        if message is None:
            return False
        try:
            sink.feed(message)
        except ProtocolError as error:
            self.end(str(error))
        return True
