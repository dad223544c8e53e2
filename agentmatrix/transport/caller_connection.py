"""The connections of calling processes, on the host's side: each outlives the streams that carry it, for a while.

All of it runs on the I/O thread, but `CallerConnection.wake`, which the threads of runs call when they have queued a
frame.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from agentmatrix.errors import HostLost
from agentmatrix.transport.admission import AdmissionControl, caller_of
from agentmatrix.transport.base import FrameReceiver, FrameStream, Peer
from agentmatrix.transport.flow import ByteBudget
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import ConnectionLoss, Multiplexer
from agentmatrix.transport.options import ServerOptions
from agentmatrix.transport.rate_limited_log import CALLERS_LOG

__all__ = ["CallerConnection", "CallerConnections"]


class CarryingStream(Protocol):
    """The stream that carries a connection."""

    def accept(self, frames: FrameStream) -> FrameReceiver:
        """Takes a new run."""

    def wake(self) -> None:
        """There is something to write."""

    def supersede(self) -> None:
        """Another stream carries the connection from here on."""


class CallerConnection:
    """The runs of one calling process.

    Args:
        id: names it to its caller; empty where it ends with its stream.
        peer: who opened it.
        multiplexer: makes its multiplexer.

    Attributes:
        owner: whose it is, by the names of its identity; nobody else may take it up.
        caller: the owner's name, else the address that it was opened from.
        address: where its caller is now.
        stream: carries it now; None after a cut.
        expiry: ends it, unless its caller comes back.
    """

    def __init__(self, id: str, peer: Peer, multiplexer: Callable[[CallerConnection], Multiplexer]) -> None:
        self.id, self.owner, self.caller, self.address = id, _owner(peer), caller_of(peer), peer.address
        self._io = io_thread()
        self.stream: CarryingStream | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.multiplexer = multiplexer(self)

    @property
    def quota(self) -> str:
        """By what lingering connections are counted: the identity, else the machine."""
        return self.caller if self.owner else self.address.rpartition(":")[0]

    def accept(self, frames: FrameStream) -> FrameReceiver:
        """Takes a new run."""
        assert self.stream is not None  # frames come by it
        return self.stream.accept(frames)

    def wake(self) -> None:
        """There is something to write. On any thread."""
        if self._io.is_current:
            self._wake()
        else:
            self._io.call(self._wake)

    def _wake(self) -> None:
        if self.stream is not None:
            self.stream.wake()

    def end(self, why: str) -> None:
        """Loses its runs."""
        lost = HostLost(f"the caller at {self.address} is lost: {why}")
        self.multiplexer.connection_lost(ConnectionLoss(lost, lost))


class CallerConnections:
    """The connections of a host.

    Args:
        admission: takes their runs.
        options: of the host.
        budget: of the host.
    """

    def __init__(self, admission: AdmissionControl, options: ServerOptions, budget: ByteBudget) -> None:
        self._admission, self._options, self._budget = admission, options, budget
        self._resumable: dict[str, CallerConnection] = {}
        self._lingering: dict[CallerConnection, None] = {}
        """Oldest first."""

    @property
    def linger(self) -> float:
        """Seconds that a connection is kept without a stream."""
        return self._options.linger

    def open(self, peer: Peer, *, is_resumable: bool) -> CallerConnection:
        """A new connection."""
        id = secrets.token_urlsafe(24) if is_resumable and self.linger > 0 else ""
        connection = CallerConnection(id, peer, self._multiplexer)
        if id:
            self._resumable[id] = connection
        return connection

    def _multiplexer(self, connection: CallerConnection) -> Multiplexer:
        return Multiplexer(
            connection.wake,
            self._options.max_frame,
            accept=connection.accept,
            on_close=self._admission.release,
            peer=f"the caller at {connection.address}",
            budget=self._options.caller_budget(self._budget),
            is_resumable=bool(connection.id),
        )

    def resume(self, id: str, received: int, peer: Peer) -> CallerConnection | None:
        """A connection whose caller has come back, without a stream; None where this caller has none of that id.

        Args:
            id: of the connection.
            received: bytes of messages that the caller has read in all.
            peer: the caller.

        Raises:
            ProtocolError: it cannot have read so much; the connection stays as it is.
        """
        connection = self._resumable.get(id)
        if connection is None or connection.owner != _owner(peer):
            return None
        down = connection.multiplexer.downtime
        connection.multiplexer.resume(received)
        if connection.stream is not None:  # nothing had told this side that it is dead
            connection.stream.supersede()
            connection.stream = None
        self._lingering.pop(connection, None)
        if connection.expiry is not None:
            connection.expiry.cancel()
            connection.expiry = None
        down = connection.multiplexer.downtime - down
        connection.address = peer.address
        CALLERS_LOG.info("%s is back from %s after %.1f s", connection.caller, peer.address, down)
        return connection

    def leave(self, connection: CallerConnection, why: str, *, for_good: bool) -> None:
        """The stream of a connection has ended: its runs are lost, or go on for a while.

        Args:
            connection: the connection.
            why: why its stream has ended.
            for_good: whether it was ended by intention of one side.
        """
        connection.stream = None
        multiplexer = connection.multiplexer
        # One that has no run is kept too: its caller may have started some that have not arrived.
        if for_good or not connection.id or multiplexer.has_disconnected:
            self._end(connection, why)
            return
        if len(self._lingering) >= self._options.max_streams:
            self._make_room()
        multiplexer.cut()
        self._lingering[connection] = None
        connection.expiry = io_thread().loop.call_later(self.linger, self._expire, connection)
        if len(multiplexer):
            CALLERS_LOG.info(
                "the line to %s is cut: %d runs go on for %g s", connection.caller, len(multiplexer), self.linger
            )

    def close(self) -> None:
        """Ends those that have no stream: the host stops."""
        for connection in list(self._lingering):
            self._end(connection, "the host is stopping")

    def abandon(self) -> None:
        """Drops the runs of all without a word: the interpreter exits."""
        for connection in self._resumable.values():
            connection.multiplexer.abandon()

    def _make_room(self) -> None:
        """Ends the oldest of those whose caller, or whose machine, has most of them."""
        most, _ = Counter(connection.quota for connection in self._lingering).most_common(1)[0]
        oldest = next(connection for connection in self._lingering if connection.quota == most)
        self._end(oldest, "too many callers are cut off (max_streams)")

    def _expire(self, connection: CallerConnection) -> None:
        if runs := len(connection.multiplexer):
            CALLERS_LOG.info("%s has not come back within %g s: %d runs end", connection.caller, self.linger, runs)
        self._end(connection, f"it was cut off, and has not come back within {self.linger:g} s (linger of the host)")

    def _end(self, connection: CallerConnection, why: str) -> None:
        self._resumable.pop(connection.id, None)
        self._lingering.pop(connection, None)
        if connection.expiry is not None:
            connection.expiry.cancel()
        connection.end(why)


def _owner(peer: Peer) -> tuple[str, ...]:
    """Whose a peer's connections are; empty where callers are not told apart: then who knows the id may take it up."""
    return (peer.user.name,) if peer.user else peer.identity
