"""What a caller without a token can cost: large and compressed messages, resets, floods of calls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

from tests.attacks.internals import CONVERSE, DESCRIBE, HEALTH_CHECK
from tests.attacks.kit import Attacks, Figures
from tests.attacks.peers import channel
from tests.attacks.probing import honest_calls
from tests.attacks.processes import HostProcess

attacks = Attacks(__doc__)
_REFUSALS = {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}


def _under(attack: Callable[[HostProcess], Any]) -> Figures:
    """Honest calls go on during the attack."""
    with HostProcess(token="right") as host:
        before = host.rss()
        with honest_calls(host) as calls:
            seen = attack(host)
        alive, grown = host.is_alive(), host.rss() - before
    figures = {"seen": seen, "slowest_honest_s": round(calls.slowest, 2), "honest_error": calls.error}
    return {"holds": alive and calls.error is None and grown <= 64, "grown_mb": grown, **figures}


def _checks(host: HostProcess, data: bytes, times: int) -> dict[str, int]:
    codes = Counter[str]()
    with channel(host.address, compression=grpc.Compression.Gzip) as connection:
        for _ in range(times):
            try:
                connection.unary_unary(HEALTH_CHECK)(data, timeout=60)
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1
    return dict(codes)


@attacks.add("health checks of many compressed zeros", short={"size": 1_000_000})
def zeros(size: int = 15_000_000) -> Figures:
    return _under(lambda host: _checks(host, b"\0" * size, 5))


@attacks.add("health checks of many empty fields", short={"fields": 500_000})
def empty_fields(fields: int = 7_500_000) -> Figures:
    return _under(lambda host: _checks(host, b"\x0a\x00" * fields, 5))


@attacks.add("streams opened and cancelled", short={"seconds": 0.5})
def resets(seconds: float = 5.0) -> Figures:
    def attack(host: HostProcess) -> int:
        count, limit = 0, time.monotonic() + seconds
        with channel(host.address) as connection:
            while time.monotonic() < limit:
                connection.stream_stream(CONVERSE)(iter(())).cancel()
                count += 1
        return count

    return _under(attack)


@attacks.add("a flood of Describe", short={"calls": 200})
def describes(calls: int = 5000) -> Figures:
    def attack(host: HostProcess) -> dict[str, int]:
        with channel(host.address) as connection:
            futures = [connection.unary_unary(DESCRIBE).future(b"", timeout=60) for _ in range(calls)]
            return dict(Counter(future.code().name for future in futures))

    figures = _under(attack)
    return {
        **figures,
        "holds": figures["holds"] and figures["seen"].keys() <= _REFUSALS,
    }


if __name__ == "__main__":
    attacks.main()
