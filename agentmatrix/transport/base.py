"""The seam between a conversation and what carries it: lanes of frames, many to a connection.

A run talks to its peer through a `Lane` and is talked to through its `Receiver`. Neither knows sockets, threads or
streams, so the same session runs over gRPC and inside one process. (The seam follows httpcore's network backends: a
small interface with a real in-process twin.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

from agentmatrix.errors import AgentMatrixError
from agentmatrix.wire.v1.run_pb2 import Frame
from agentmatrix.wire.v1.service_pb2 import DescribeReply, ListAgentsReply

__all__ = ["Lane", "Peer", "Receiver", "Server", "Servicer", "State", "Transport"]

State = Literal["idle", "connected", "lost", "closed"]


class Receiver(Protocol):
    """What a run gives to the transport. Called on the transport's I/O thread; returns at once and never raises."""

    def receive(self, frame: Frame) -> None:
        """Take the next frame of this run; frames come in the order in which the peer sent them."""

    def lost(self, error: AgentMatrixError) -> None:
        """Learn that no further frame will come. Called at most once, and not after `Lane.close`, unless that was
        called on another thread in the same moment.

        Args:
            error: `HostUnreachable`, `HostBusy` or `Unauthenticated` when it is certain that the peer got no frame of
                this run; `HostLost` when it may have; `ProtocolError` when a rule of the wire was broken.
        """


class Lane(Protocol):
    """One run's way to the peer."""

    run: int

    def send(self, frame: Frame) -> None:
        """Send a frame after those sent before.

        Callable from any thread; never blocks. The frame is used up: a large value in it is moved out. Dropped silently
        once the run is lost or closed.
        """

    def close(self) -> None:
        """Forget this run: frames already sent still go out, frames that arrive are dropped. Idempotent."""


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a connection, as a host sees it.

    Attributes:
        address: where it connects from, `"127.0.0.1:40112"`, `"unix"` or `"inproc"`.
        identity: the names in its verified certificate; empty without mutual TLS.
        metadata: the headers that it sent, without its token.
    """

    address: str
    identity: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


class Transport(ABC):
    """The caller's side: a connection to one host that is made when it is first needed, and again after a loss."""

    address: str

    @abstractmethod
    def open(self, receiver: Receiver) -> Lane:
        """Begin a run. Never blocks and never raises for the network's sake: failures arrive at `receiver.lost`."""

    @abstractmethod
    def describe(self, agent: str, timeout: float) -> Future[DescribeReply]:
        """Ask for an agent's card.

        Args:
            agent: its name on the host.
            timeout: seconds.

        Raises (through the future):
            AgentNotFound: the host has no such agent.
            HostUnreachable, Unauthenticated, HostBusy, DeadlineExceeded: as their names say.
        """

    @abstractmethod
    def list_agents(self, timeout: float) -> Future[ListAgentsReply]:
        """Ask which agents the host has. Arguments and errors as in `describe`."""

    @abstractmethod
    def ping(self, timeout: float) -> Future[float]:
        """Seconds of one round trip that the host has answered and authorised."""

    @property
    @abstractmethod
    def state(self) -> State:
        """`"idle"` before the first use, `"connected"`, `"lost"` until the next use, `"closed"`."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; runs still open here are lost. Idempotent, callable from any thread."""


class Servicer(Protocol):
    """What a server asks of the host. Called on the I/O thread; returns at once."""

    def accept(self, lane: Lane, peer: Peer) -> Receiver:
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
    def stop(self, grace: float) -> None:
        """Refuse new runs, wait until those running have ended, at most `grace` seconds, then close all connections.

        Blocks. Runs that are still open then are lost on both sides. Idempotent.
        """
