"""The stream from one calling process over gRPC, on the host's side: it reads, writes and ends.

Everything here runs on the I/O thread.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import grpc
import grpc.aio

from agentmatrix.errors import ProtocolError, Unauthenticated
from agentmatrix.transport.admission import AdmissionControl, caller_of
from agentmatrix.transport.authentication import REAUTHENTICATE_SECONDS, AdmittedCaller
from agentmatrix.transport.base import FrameReceiver, FrameStream
from agentmatrix.transport.caller_connection import CallerConnection, CallerConnections
from agentmatrix.transport.caller_streams import StreamTable
from agentmatrix.transport.framing import DISCONNECT, encoded_received
from agentmatrix.transport.grpc_options import ACCEPTED
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import RunRejected
from agentmatrix.transport.options import ServerOptions
from agentmatrix.transport.resumption import ConnectionGrant

__all__ = ["FLUSH_SECONDS", "CallerStream", "Context"]

_logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
"""How long a stopping host may go on writing what is queued for a caller."""
SWEEP_SECONDS: Final = 5.0
"""How often a stream is looked at: frames that do not come, tokens that were revoked."""
_CODES: Final = {
    "refused": grpc.StatusCode.UNAUTHENTICATED,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "late": grpc.StatusCode.DEADLINE_EXCEEDED,
    "broken": grpc.StatusCode.INVALID_ARGUMENT,
}

Context = grpc.aio.ServicerContext[bytes, bytes]


class CallerStream:
    """The stream from one calling process: it carries one of the caller's connections, as long as no other does.

    Args:
        context: of the call.
        admitted: the caller.
        options: of the host.
        admission: takes its runs.
        table: the streams of the host, this one among them while it is served.
        connections: of the host.

    Attributes:
        connection: names the network connection that it came over.
        began: whether it has ever started a run.
    """

    def __init__(
        self,
        context: Context,
        admitted: AdmittedCaller,
        options: ServerOptions,
        admission: AdmissionControl,
        table: StreamTable,
        connections: CallerConnections,
    ) -> None:
        self._io = io_thread()
        self._context, self._admission, self._table, self._connections = context, admission, table, connections
        self._admitted, self._peer = admitted, admitted.peer
        self.connection, self.began = f"{context.peer()}", False
        self._start_timeout = options.start_timeout
        self._ask_by_function = options.authenticate is not None
        self._has_output = asyncio.Event()
        self._closing = self._has_left = False
        self._ended: tuple[str, str] | None = None
        self._carried: CallerConnection | None = None
        self._writing: asyncio.Task[None] | None = None
        self._handler = asyncio.current_task()

    @property
    def names(self) -> tuple[str, str]:
        """Who calls, and from where."""
        return caller_of(self._peer), self._peer.address

    def accept(self, frames: FrameStream) -> FrameReceiver:
        """Takes a new run.

        Raises:
            RunRejected: says why not.
        """
        self._check_admitted()
        if not self.began:
            self._table.begin(self)
        return self._admission.accept(frames, self._peer)

    def _check_admitted(self) -> None:
        """Refuses a new run of a caller that would not be admitted now; a token that was revoked ends all its runs.

        Raises:
            RunRejected: says why.
        """
        try:
            self._admitted.check_certificate()
            try:
                self._admitted.check_token()
            except Unauthenticated as error:
                self.end("refused", str(error))
                raise
        except Unauthenticated as error:
            raise RunRejected("refused", str(error)) from None

    def end(self, kind: str, why: str) -> None:
        """Ends the stream with a status: "busy", "late", "broken" or "refused"."""
        if self._ended is None:
            self._ended = kind, why
            if self._handler:
                self._handler.cancel()

    def _end_if_silent(self) -> None:
        if not self.began:
            self.end("late", f"no run was started within {self._start_timeout:g} seconds")

    async def serve(self, connection: CallerConnection) -> None:
        """Carries a connection until the caller or the host ends the stream, or another stream carries it.

        Returns, whatever happens: an exception that escapes a handler of gRPC leaves the caller waiting for ever.
        """
        self._carried = connection
        connection.stream, multiplexer = self, connection.multiplexer
        if multiplexer.outbox.received:
            self._table.begin(self)
        grant = ConnectionGrant(connection.id, self._connections.linger, multiplexer.outbox.received)
        silent = self._io.loop.call_later(self._start_timeout, self._end_if_silent)
        sweeping = self._io.task(self._sweep(connection))
        why = "its connection is gone"
        try:
            await self._context.send_initial_metadata((ACCEPTED, *grant.headers))
            self._writing = self._io.task(self._write(connection))
            while isinstance(message := await self._context.read(), bytes) and connection.stream is self:
                if not self._has_left:
                    multiplexer.receive_message(message)
        except asyncio.CancelledError:
            why = "the host is stopping" if self._closing else why
        except ProtocolError as error:
            self._ended = "broken", str(error)
        except grpc.aio.BaseError:
            pass
        except Exception as error:
            _logger.exception("a caller's stream failed")
            self._ended = "broken", f"{type(error).__name__}: {error}"
        silent.cancel()
        sweeping.cancel()
        if self._writing:
            self._writing.cancel()
        if self._ended is not None:
            kind, why = self._ended
            self._context.set_code(_CODES[kind])
            self._context.set_details(why)
        if connection.stream is self:
            self._connections.leave(connection, why, for_good=self._ended is not None or self._closing)

    async def _sweep(self, connection: CallerConnection) -> None:
        asked = self._io.loop.time()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            connection.multiplexer.give_up_stalled()
            try:
                if not self._ask_by_function:
                    self._admitted.check_token()
                elif self._io.loop.time() - asked >= REAUTHENTICATE_SECONDS:
                    await asyncio.to_thread(self._admitted.ask_again)
                    asked = self._io.loop.time()
            except Unauthenticated as error:
                self.end("refused", str(error))
                return

    def wake(self) -> None:
        """There is something to write."""
        self._has_output.set()

    def supersede(self) -> None:
        """Another stream carries the connection from here on: nothing more is read or written by this one."""
        if self._writing:
            self._writing.cancel()
        if self._handler:
            self._handler.cancel()

    def abandon(self) -> None:
        """Drops the runs without a word: the interpreter exits."""
        if self._carried is not None:
            self._carried.multiplexer.abandon()

    async def close(self) -> None:
        """Writes what is queued, then ends the stream."""
        self._closing = True
        self._has_output.set()
        if self._writing:
            await asyncio.wait({self._writing}, timeout=FLUSH_SECONDS)
        if self._handler:
            self._handler.cancel()

    async def _write(self, connection: CallerConnection) -> None:
        try:
            while True:
                message = connection.multiplexer.next_message()
                if message is not None:
                    await self._context.write(message)
                elif self._closing and (outbox := connection.multiplexer.outbox).empty:
                    self._has_left = True  # nothing more is read: so the caller knows which of its runs have come
                    await self._context.write(DISCONNECT + encoded_received(outbox.received))
                    return
                else:
                    await self._has_output.wait()
                    self._has_output.clear()
        except (grpc.aio.BaseError, grpc.aio.UsageError, asyncio.InvalidStateError):
            pass  # the reader learns of it too
