"""The interface between a session and what carries its frames: one stream of frames for each run.

A run sends through its `FrameStream` and gets frames by its `FrameReceiver`. Neither knows sockets, threads or gRPC, so
the same session runs over gRPC and inside one process. (The interface follows httpcore's network backends: small, with
a real in-process implementation.)

Threads: streams are sent to from any thread. Receivers and servicers are called on the I/O thread (see `iothread`), and
must return at once: every run of this process waits for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final, Literal, Protocol

from agentmatrix.errors import AgentMatrixError
from agentmatrix.transport.identity import Identity
from agentmatrix.wire.v1.run_pb2 import Frame
from agentmatrix.wire.v1.service_pb2 import DescribeReply, ListAgentsReply

__all__ = [
    "ReceivedFrame",
    "FrameReceiver",
    "FrameStream",
    "Peer",
    "Server",
    "Servicer",
    "ConnectionState",
    "Transport",
]

NO_FIELDS: Final[Mapping[str, Sequence[bytes]]] = {}
ConnectionState = Literal["idle", "connected", "lost", "closed"]


class ReceivedFrame(Protocol):
    """A frame that has arrived, and the memory that it takes.

    Attributes:
        frame: the frame; its large fields are not in it.
    """

    frame: Frame

    def field(self, name: str) -> bytes:
        """A field of bytes of the frame's body, however large; empty where there is none."""

    def pieces(self, name: str) -> Sequence[bytes | BytesIO]:
        """The same in the pieces in which it was sent, one at least. A large one that has come over the wire is in a
        buffer that nobody else has."""

    def release(self) -> None:
        """The frame has been consumed, so that the peer may send more. Idempotent; on any thread.

        A receiver that keeps a frame for later calls this when it has done with it, and bounds its peer by that.
        """


class FrameReceiver(Protocol):
    """Gets the frames of a run. Called on the I/O thread; returns at once and never raises.

    A cut that is mended is not told: frames go on where they stopped.
    """

    def receive(self, received: ReceivedFrame) -> None:
        """Take the next frame of this run; frames come in the order in which the peer sent them."""

    def lost(self, error: AgentMatrixError) -> None:
        """No further frame will come. Called at most once, and not after `FrameStream.close`, unless that was called on
        another thread in the same moment.

        Args:
            error: `HostUnreachable`, `HostBusy` or `Unauthenticated` when it is certain that the peer got no frame of
                this run; `HostLost` when it may have; `ProtocolError` when a rule of the wire was broken.
        """


class FrameStream(Protocol):
    """Sends the frames of one run to the peer.

    Attributes:
        run: the number of the run on its connection.
        connection: the number of the connection in this process.
        bytes_in: of the frames that have come from the peer.
        bytes_out: of the frames that were sent to it.
        goes_elsewhere: says whether the run goes on at another host if it is lost at this one: then it does not wait
            where nobody listens any more. None for no.
    """

    goes_elsewhere: Callable[[], bool] | None
    run: int
    connection: int
    bytes_in: int
    bytes_out: int

    def send(self, frame: Frame, large: Mapping[str, Sequence[bytes]] = NO_FIELDS, *, flush: bool = True) -> None:
        """Send a frame after those sent before.

        Callable from any thread; never blocks. The frame is used up: a large value in it is moved out. Dropped silently
        once the run is lost or closed.

        Args:
            frame: the frame.
            large: fields of its body in pieces, by name, which are not in it: they are not copied.
            flush: whether the connection is to be woken for it. Who passes False calls `flush` soon.

        Raises:
            HostBusy: it is large, and this process holds as many bytes as it may.
        """

    def flush(self) -> None:
        """Wakes the connection for the frames that were sent without."""

    @property
    def room(self) -> int:
        """Bytes that may be sent before the peer has to consume some; negative for those that wait already.

        `send` takes frames beyond it. Who sends without an end waits for room in between.
        """

    @property
    def is_cut(self) -> bool:
        """Whether the connection has no line for the moment. What is sent waits for it, and may be lost with it."""

    def on_cut(self, call: Callable[[], None]) -> None:
        """Has something called once, on any thread, when the line is cut: now, where it is."""

    @property
    def downtime(self) -> float:
        """Seconds that the connection was without a line, in all, until now."""

    @property
    def arriving(self) -> tuple[int, int] | None:
        """Of a large value that is arriving, the bytes that have come and those that were announced."""

    def on_room(self, least: int, call: Callable[[], None]) -> None:
        """Has something called once, on any thread, when there is room for `least` bytes, or never will be since the
        stream is closed."""

    def reset(self, kind: str, reason: str) -> None:
        """Give up the run: nothing more of it goes out but the reason. Kinds as in the wire's `Reset`. Idempotent."""

    def close(self) -> None:
        """Close the stream: frames already sent still go out, frames that arrive are dropped. Idempotent."""


@dataclass(frozen=True)
class Peer:
    """The other end of a connection, as a host sees it.

    Attributes:
        address: where it connects from, `"127.0.0.1:40112"`, `"unix"` or `"inproc"`.
        identity: the names in its verified certificate; empty without mutual TLS.
        metadata: the headers that it sent, without its token.
        encrypted: whether the connection is TLS.
        user: who it is, as the host has found out; None where callers are not told apart.
    """

    address: str
    identity: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    encrypted: bool = False
    user: Identity | None = None


class Transport(ABC):
    """The caller's side: a connection to one host, made when it is first needed, and again after a loss."""

    address: str

    @abstractmethod
    def open(self, receiver: FrameReceiver) -> FrameStream:
        """Open the stream of a new run. Never blocks, raises no network error: failures go to `receiver.lost`."""

    @abstractmethod
    def describe(self, agent: str, timeout: float) -> Future[DescribeReply]:
        """Request an agent's card.

        Args:
            agent: its name on the host.
            timeout: seconds.

        Raises (through the future):
            AgentNotFound: the host has no such agent.
            HostUnreachable, Unauthenticated, HostBusy, DeadlineExceeded: as their names say.
        """

    @abstractmethod
    def list_agents(self, timeout: float) -> Future[ListAgentsReply]:
        """Request the names of the host's agents. Arguments and errors as in `describe`."""

    @abstractmethod
    def ping(self, timeout: float) -> Future[float]:
        """Seconds of one round trip that the host has answered and authorised."""

    @abstractmethod
    def serves(self, timeout: float) -> Future[bool]:
        """Whether the host says that it serves, rather than that it starts or stops. Errors as in `ping`."""

    @property
    @abstractmethod
    def connection(self) -> int | None:
        """The number, in this process, of the connection that a run takes which is opened now; None if it is to be
        made. It may be lost meanwhile, and the run take another one."""

    @property
    @abstractmethod
    def state(self) -> ConnectionState:
        """`"idle"` before the first use, `"connected"`, `"lost"` until the next use, `"closed"`."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; runs still open here are lost. Idempotent, callable from any thread."""


class Servicer(Protocol):
    """The host, as a server calls it: on the I/O thread. Returns at once."""

    def accept(self, frames: FrameStream, peer: Peer) -> FrameReceiver:
        """Take a new run, whose first frame, a `Start`, is received next."""

    def describe(self, agent: str, peer: Peer) -> Future[DescribeReply]:
        """The card of an agent; fails with `AgentNotFound`."""

    def list_agents(self, peer: Peer) -> Future[ListAgentsReply]:
        """The names of the agents that this peer may call."""


class Server(ABC):
    """The host's side: accepts connections and gives each new run to the servicer."""

    @abstractmethod
    def start(self) -> str:
        """Bind and serve.

        Returns:
            The address really bound, `"127.0.0.1:41234"`.

        Raises:
            AddressError: in one sentence why it cannot or may not be bound.
        """

    @abstractmethod
    def ready(self) -> None:
        """Tell whoever asks for the health of the host that it serves; it does not before this is called."""

    @abstractmethod
    def drain(self) -> None:
        """Tell whoever asks for the health of the host that it does not serve any more. Runs go on."""

    @abstractmethod
    def stop(self, grace: float) -> None:
        """Refuse new runs, wait until those running have ended, at most `grace` seconds, then close all connections.

        Blocks. Runs that are still open then are lost on both sides. Idempotent.
        """
