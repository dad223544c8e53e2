"""The stream from one calling process over gRPC, on the host's side: it reads, writes and ends.

Everything here runs on the I/O thread, but `CallerStream._wake`, which the threads of runs call when they have queued a
frame.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import grpc
import grpc.aio

from agentmatrix.errors import HostLost, ProtocolError, Unauthenticated
from agentmatrix.transport.admission import AdmissionControl, caller_of
from agentmatrix.transport.authentication import REAUTHENTICATE_SECONDS, AdmittedCaller
from agentmatrix.transport.base import FrameReceiver, FrameStream
from agentmatrix.transport.caller_streams import StreamTable
from agentmatrix.transport.flow import ByteBudget
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import ConnectionLoss, Multiplexer, RunRejected
from agentmatrix.transport.options import ServerOptions

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
    """The stream from one calling process.

    Args:
        context: of the call.
        admitted: the caller.
        options: of the host.
        admission: takes its runs.
        table: the streams of the host, this one among them while it is served.
        budget: of the host.

    Attributes:
        connection: names the connection that it came over.
        began: whether it has ever started a run.
    """

    def __init__(
        self,
        context: Context,
        admitted: AdmittedCaller,
        options: ServerOptions,
        admission: AdmissionControl,
        table: StreamTable,
        budget: ByteBudget,
    ) -> None:
        self._io = io_thread()
        self._context, self._admission, self._table = context, admission, table
        self._admitted, self._peer = admitted, admitted.peer
        self.connection, self.began = f"{context.peer()}", False
        self._start_timeout = options.start_timeout
        self._ask_by_function = options.authenticate is not None
        self._has_output = asyncio.Event()
        self._closing = False
        self._ended: tuple[str, str] | None = None
        self._multiplexer = Multiplexer(
            self._wake,
            options.max_frame,
            accept=self._accept,
            on_close=admission.release,
            peer=f"the caller at {self._peer.address}",
            budget=options.caller_budget(budget),
        )
        self._handler = asyncio.current_task()

    @property
    def names(self) -> tuple[str, str]:
        """Who calls, and from where."""
        return caller_of(self._peer), self._peer.address

    def _accept(self, frames: FrameStream) -> FrameReceiver:
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

    async def serve(self) -> None:
        """Reads until the caller or the host ends the stream.

        Returns, whatever happens: an exception that escapes a handler of gRPC leaves the caller waiting for ever.
        """
        self._writing = self._io.task(self._write())
        silent = self._io.loop.call_later(self._start_timeout, self._end_if_silent)
        sweeping = self._io.task(self._sweep())
        why = "its connection is gone"
        try:
            while isinstance(message := await self._context.read(), bytes):
                self._multiplexer.receive_message(message)
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
        self._writing.cancel()
        if self._ended is not None:
            kind, why = self._ended
            self._context.set_code(_CODES[kind])
            self._context.set_details(why)
        lost = HostLost(f"the caller at {self._peer.address} is lost: {why}")
        self._multiplexer.connection_lost(ConnectionLoss(lost, lost))

    async def _sweep(self) -> None:
        asked = self._io.loop.time()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._multiplexer.give_up_stalled()
            try:
                if not self._ask_by_function:
                    self._admitted.check_token()
                elif self._io.loop.time() - asked >= REAUTHENTICATE_SECONDS:
                    await asyncio.to_thread(self._admitted.ask_again)
                    asked = self._io.loop.time()
            except Unauthenticated as error:
                self.end("refused", str(error))
                return

    def _wake(self) -> None:
        if self._io.is_current:
            self._has_output.set()
        else:
            self._io.call(self._has_output.set)

    def abandon(self) -> None:
        """Drops the runs without a word: the interpreter exits."""
        self._multiplexer.abandon()

    async def close(self) -> None:
        """Writes what is queued, then ends the stream."""
        self._closing = True
        self._has_output.set()
        await asyncio.wait({self._writing}, timeout=FLUSH_SECONDS)
        if self._handler:
            self._handler.cancel()

    async def _write(self) -> None:
        try:
            while True:
                message = self._multiplexer.next_message()
                if message is not None:
                    await self._context.write(message)
                elif self._closing and self._multiplexer.outbox.empty:
                    return
                else:
                    await self._has_output.wait()
                    self._has_output.clear()
        except (grpc.aio.BaseError, grpc.aio.UsageError, asyncio.InvalidStateError):
            pass  # the reader learns of it too
