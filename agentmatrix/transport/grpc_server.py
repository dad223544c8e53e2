"""The host's side over gRPC: one stream from each calling process carries all of its runs.

Everything here runs on the I/O thread, but `start` and `stop`, which any thread may call and which wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import urllib.parse
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.protobuf.message import Message

from agentmatrix.errors import AddressError, HostBusy, HostError, ProtocolError, Unauthenticated
from agentmatrix.transport import health, reflection
from agentmatrix.transport.admission import AdmissionControl
from agentmatrix.transport.authentication import AdmittedCaller, Authentication
from agentmatrix.transport.base import Peer, Server, Servicer
from agentmatrix.transport.binding import binding_error, check_exposure, socket_lock, split_address
from agentmatrix.transport.caller_connection import CallerConnection, CallerConnections
from agentmatrix.transport.caller_streams import StreamTable
from agentmatrix.transport.certificate_expiry import watch_certificate
from agentmatrix.transport.grpc_errors import status_code
from agentmatrix.transport.grpc_options import (
    SERVICE,
    require_fast_protobuf,
    server_credentials,
    server_options,
)
from agentmatrix.transport.grpc_stream import FLUSH_SECONDS, CallerStream, Context
from agentmatrix.transport.iothread import AFTER_FORK, forked, io_thread
from agentmatrix.transport.options import ServerOptions
from agentmatrix.transport.rate_limited_log import CALLERS_LOG, RateLimitedLog
from agentmatrix.transport.resumption import HEADERS, ConnectionRequest
from agentmatrix.transport.watched_file import read_pem
from agentmatrix.wire.v1.service_pb2 import DescribeRequest

__all__ = ["GrpcServer"]

M = TypeVar("M", bound=Message)

_logger = logging.getLogger(__name__)

_NOT_KEPT = (
    "it does not keep this connection any more: it was restarted, or the line was cut for longer than its --linger"
)
_MAX_DETAILS = 2000
"""Characters of an error's text: gRPC sends it as a header, whose size is limited."""


class GrpcServer(Server):
    """Serves one address.

    Raises:
        AddressError: the address cannot be understood, or a certificate cannot be read.
    """

    def __init__(self, address: str, servicer: Servicer, options: ServerOptions) -> None:
        require_fast_protobuf()
        self._bind_to = split_address(address)
        self._servicer = servicer
        self._options = options
        self._credentials = server_credentials(options)
        self._io = io_thread()
        self._resources = ExitStack()
        self._server: grpc.aio.Server | None = None
        self._streams = StreamTable(options.max_streams, options.max_caller_streams)
        self._watches = 0
        self._certificate: asyncio.Task[None] | None = None
        self._admission = AdmissionControl(servicer, options.max_runs)
        self._connections = CallerConnections(self._admission, options, options.budget())
        self._authentication = Authentication(options)
        self._refusals = RateLimitedLog(CALLERS_LOG, "callers were refused")
        self._stopped = asyncio.Event()
        self._serving = health.ServingState()

    def start(self) -> str:
        if self._server or self._stopped.is_set():
            raise RuntimeError("a server is started once; make a new one")
        if forked():
            raise AddressError(f"a host cannot serve here: {AFTER_FORK}")
        if isinstance(self._bind_to, tuple):
            check_exposure(self._bind_to[0], self._options)
        else:
            self._resources.enter_context(socket_lock(self._bind_to))
        try:
            return self._io.run(self._serve()).result()
        except BaseException:
            self._resources.close()
            raise

    def ready(self) -> None:
        self._io.call(self._serving.set, health.ServingStatus.SERVING)

    def drain(self) -> None:
        self._io.call(self._serving.set, health.ServingStatus.NOT_SERVING)

    def stop(self, grace: float) -> None:
        if self._server is None:
            return
        self._io.run(self._stop(grace)).result()
        self._resources.close()

    async def _serve(self) -> str:
        server = grpc.aio.server(
            options=server_options(self._options),
            # Every kind of call has a limit of its own; this one is for what is refused before it is any.
            maximum_concurrent_rpcs=4 * self._options.max_streams + self._options.max_watches,
        )
        server.add_generic_rpc_handlers(self._handlers())
        address = self._bind(server)
        await server.start()
        self._server = server
        self._unregister_exit = self._io.at_exit(self._exit)
        if (certificate := self._options.certificate) is not None:
            self._certificate = self._io.task(watch_certificate(lambda: read_pem("certificate file", certificate)))
        return address

    def _bind(self, server: grpc.aio.Server) -> str:
        if isinstance(self._bind_to, tuple):
            host, port = self._bind_to
            name = f"[{host}]" if ":" in host else host
        else:
            name, port = f"unix:{self._bind_to}", 0
        before = os.umask(0o177) if isinstance(self._bind_to, str) else None  # of the socket that bind makes
        try:
            text = f"{name}:{port}" if isinstance(self._bind_to, tuple) else name
            if self._credentials is None:
                bound = server.add_insecure_port(text)
            else:
                bound = server.add_secure_port(text, self._credentials)
        except RuntimeError:
            raise binding_error(self._bind_to, tls=self._credentials is not None) from None
        finally:
            if before is not None:
                os.umask(before)
        return f"{name}:{bound}" if isinstance(self._bind_to, tuple) else name

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        admitted = grpc.stream_stream_rpc_method_handler
        return (
            grpc.method_handlers_generic_handler(
                SERVICE,
                {
                    "Converse": admitted(self._converse),
                    "Describe": admitted(self._describe),
                    "ListAgents": admitted(self._list_agents),
                },
            ),
            grpc.method_handlers_generic_handler(
                health.SERVICE, {"Check": unary(self._check), "Watch": stream(self._watch)}
            ),
            *(
                grpc.method_handlers_generic_handler(name, {reflection.METHOD: admitted(self._reflect)})
                for name in reflection.SERVICES
            ),
            _Unknown(admitted(self._unknown)),
        )

    async def _admitted(self, context: Context) -> AdmittedCaller:
        """The caller of a call, admitted. Nothing of the request has been read: so each of these is a stream here."""
        metadata = {name: value for name, value in _headers(context).items() if name not in HEADERS}
        try:
            if self._authentication.blocks:
                return await asyncio.to_thread(AdmittedCaller, self._authentication, metadata, _peer(context))
            return AdmittedCaller(self._authentication, metadata, _peer(context))
        except Unauthenticated as error:
            self._refusals.warning("the caller at %s was refused: %s", _peer(context).address, error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            raise AssertionError("abort raises") from error

    async def _converse(self, _: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        admitted = await self._admitted(context)
        caller = CallerStream(context, admitted, self._options, self._admission, self._streams, self._connections)
        try:
            self._streams.add(caller)
        except HostBusy as busy:
            self._refusals.warning("the caller at %s was refused: %s", _peer(context).address, busy)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(busy))
        try:
            connection = self._connection(context, admitted.peer)
            if connection is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, _NOT_KEPT)
            CALLERS_LOG.info("%s has connected from %s", *caller.names)
            await caller.serve(connection)
            CALLERS_LOG.info("%s has disconnected from %s", *caller.names)
        finally:
            self._streams.remove(caller)
        return
        yield b""  # It writes by itself; interceptors, such as OpenTelemetry's, iterate over what a handler returns.

    def _connection(self, context: Context, peer: Peer) -> CallerConnection | None:
        """The connection that a new stream is to carry; None where it is to go on with one that is not there."""
        request = ConnectionRequest.read(_headers(context))
        if request is None or not request.id:
            return self._connections.open(peer, is_resumable=request is not None)
        try:
            return self._connections.resume(request.id, request.received, peer)
        except ProtocolError as error:
            self._refusals.warning("the caller at %s cannot go on: %s", peer.address, error)
            return None

    async def _describe(self, _: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        peer, data = (await self._admitted(context)).peer, await context.read()
        try:
            agent = DescribeRequest.FromString(data if isinstance(data, bytes) else b"").agent
        except ProtobufDecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a DescribeRequest")
        yield await _answer(context, lambda: self._servicer.describe(agent, peer))

    async def _list_agents(self, _: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        peer = (await self._admitted(context)).peer
        yield await _answer(context, lambda: self._servicer.list_agents(peer))

    async def _reflect(self, _: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        await self._admitted(context)
        while isinstance(data := await context.read(), bytes):
            yield reflection.answer(data)

    async def _unknown(self, _: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        await self._admitted(context)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the host has no such method")
        yield b""

    async def _check(self, data: bytes, context: Context) -> bytes:
        status = self._status(data)
        if status is health.ServingStatus.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health.encode_response(status)

    async def _watch(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        if self._watches >= self._options.max_watches:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._watches} callers watch the health of this host already, as many as may; use Check",
            )
        self._watches += 1
        try:
            while True:
                changed = self._serving.changed
                yield health.encode_response(self._status(data))
                await changed.wait()
        finally:
            self._watches -= 1

    def _status(self, data: bytes) -> health.ServingStatus:
        try:
            service = health.decode_request(data)
        except ProtocolError:
            return health.ServingStatus.SERVICE_UNKNOWN
        if service not in ("", SERVICE):
            return health.ServingStatus.SERVICE_UNKNOWN
        return self._serving.status

    async def _stop(self, grace: float) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._stopped.set()
        if self._certificate is not None:
            self._certificate.cancel()
        self._serving.set(health.ServingStatus.NOT_SERVING)
        await self._admission.drain(grace)
        await asyncio.gather(*(caller.close() for caller in self._callers()))
        self._connections.close()
        await server.stop(FLUSH_SECONDS)
        self._unregister_exit()

    async def _exit(self) -> None:
        for caller in self._callers():
            caller.abandon()
        self._connections.abandon()
        await self._stop(0)

    def _callers(self) -> list[CallerStream]:
        return [stream for stream in self._streams if isinstance(stream, CallerStream)]


class _Unknown(grpc.GenericRpcHandler):
    """Handles calls of methods that do not exist, so that a stranger learns no more of them than of others."""

    def __init__(self, handler: grpc.RpcMethodHandler[bytes, bytes]) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._handler


async def _answer(context: Context, method: Callable[[], Future[M]]) -> bytes:
    try:
        answer = asyncio.wrap_future(method())
        await asyncio.wait({answer})
        if answer.cancelled():
            raise RuntimeError("the host gave up")
        return answer.result().SerializeToString()
    except HostError as error:
        code, text = status_code(error), str(error)
    except Exception as error:
        _logger.exception("the host failed to answer")
        code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
    await context.abort(code, text[:_MAX_DETAILS])
    raise AssertionError("abort raises")


def _headers(context: Context) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def _peer(context: Context) -> Peer:
    secrets = {"authorization", *HEADERS}
    metadata = {name: value for name, value in _headers(context).items() if name not in secrets}
    known = context.auth_context() or {}
    names = [*known.get("x509_subject_alternative_name", ()), *known.get("x509_common_name", ())]
    scheme, _, where = urllib.parse.unquote(context.peer() or "").partition(":")
    return Peer(
        address="unix" if scheme == "unix" else where,
        identity=tuple(dict.fromkeys(n.decode("utf-8", "replace") for n in names)),
        metadata=metadata,
        encrypted=bool(known.get("transport_security_type")),
    )
