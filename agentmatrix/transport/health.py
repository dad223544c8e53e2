"""The two messages of `grpc.health.v1`, so that the usual probes work without a further dependency."""

from __future__ import annotations

from enum import IntEnum

from agentmatrix.errors import ProtocolError

__all__ = ["SERVICE", "ServingStatus", "decode_request", "encode_response"]

SERVICE = "grpc.health.v1.Health"


class ServingStatus(IntEnum):
    """`HealthCheckResponse.ServingStatus`."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


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
