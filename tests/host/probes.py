"""What probes and tools of operators ask a host, by gRPC alone."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

__all__ = ["health_of", "watched"]

_STATUS = {1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def health_of(address: str, timeout: float = 60.0) -> str:
    """What `grpc.health.v1` says of a host."""
    with grpc.insecure_channel(address) as channel:
        answer: bytes = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=timeout)
    return _STATUS[answer[1]]


def watched(channel: grpc.Channel) -> Iterator[str]:
    """Each change of it."""
    for answer in channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=100):
        yield _STATUS[answer[1]]
