"""Moves frames between a caller and a host, over gRPC or inside one process. Knows nothing of agents."""

from __future__ import annotations

from agentmatrix.transport.base import (
    ConnectionState,
    FrameReceiver,
    FrameStream,
    Peer,
    ReceivedFrame,
    Server,
    Servicer,
    Transport,
)
from agentmatrix.transport.connect import connect, listen
from agentmatrix.transport.options import ClientOptions, ServerOptions
from agentmatrix.transport.target import Target, parse_target

__all__ = [
    "ClientOptions",
    "ReceivedFrame",
    "FrameReceiver",
    "FrameStream",
    "Peer",
    "Server",
    "ServerOptions",
    "Servicer",
    "ConnectionState",
    "Target",
    "Transport",
    "connect",
    "listen",
    "parse_target",
]
