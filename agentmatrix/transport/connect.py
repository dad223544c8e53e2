"""Makes the transport to a target, and the server for an address."""

from __future__ import annotations

import os

from agentmatrix.transport.base import Server, Servicer, Transport
from agentmatrix.transport.options import ClientOptions, ServerOptions
from agentmatrix.transport.target import Target

__all__ = ["connect", "listen"]

# gRPC's core writes handshake failures and the like to stderr; what a user needs of them is in our own errors. It reads
# this when it is imported, which both functions do late.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def connect(target: Target, options: ClientOptions | None = None) -> Transport:
    """A transport to the host at `target`. Touches no network.

    Transports to one address with equal options share a connection in this process, which lives until the last of them
    is closed.

    Raises:
        AddressError: a token would cross a network in the clear, a certificate cannot be read.
    """
    if target.scheme == "inproc":
        from agentmatrix.transport.inproc import InprocTransport

        return InprocTransport(target.address, options or ClientOptions())
    from agentmatrix.transport.grpc_client import GrpcTransport

    return GrpcTransport(target, options or ClientOptions())


def listen(address: str, servicer: Servicer, options: ServerOptions | None = None) -> Server:
    """A server for `address`, not yet started: `"127.0.0.1:50051"` (port 0: any free one), `"unix:/run/x.sock"` or
    `"inproc://name"`.

    Raises:
        AddressError: the address cannot be understood.
    """
    if address.startswith("inproc:"):
        from agentmatrix.transport.inproc import InprocServer

        return InprocServer(address.removeprefix("inproc:").lstrip("/"), servicer, options or ServerOptions())
    from agentmatrix.transport.grpc_server import GrpcServer

    return GrpcServer(address, servicer, options or ServerOptions())
