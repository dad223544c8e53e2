"""The two messages of `grpc.health.v1`, so that the usual probes work without a further dependency."""

from __future__ import annotations

import asyncio
from enum import IntEnum

from agentmatrix.errors import ProtocolError

__all__ = ["SERVICE", "ServingState", "ServingStatus", "decode_request", "encode_response"]

SERVICE = "grpc.health.v1.Health"


class ServingStatus(IntEnum):
    """`HealthCheckResponse.ServingStatus`."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class ServingState:
    """Whether a server serves: not before it is ready, and not while it drains. On the I/O thread.

    Attributes:
        status: now.
        changed: is set when that is not the status any more; then another takes its place.
    """

    def __init__(self) -> None:
        self.status = ServingStatus.NOT_SERVING
        self.changed = asyncio.Event()

    def set(self, status: ServingStatus) -> None:
        """Changes the status, and wakes who waits for that."""
        if status is not self.status:
            self.status = status
            changed, self.changed = self.changed, asyncio.Event()
            changed.set()


def decode_request(data: bytes) -> str:
    """The service that a `HealthCheckRequest` asks for; empty means the server as a whole.

    Raises:
        ProtocolError: no such message. Names of 128 bytes and more, which no server here has, count as such.
    """
    if not data:
        return ""
    if len(data) < 2 or data[0] != 0x0A or data[1] != len(data) - 2:
        raise ProtocolError("not a health check request")
    return data[2:].decode("utf-8", "replace")


def encode_response(status: ServingStatus) -> bytes:
    """A `HealthCheckResponse`."""
    return bytes((0x08, status))
