"""How an honest caller fares while a host is under attack."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.attacks.kit import brief, within
from tests.attacks.processes import HostProcess

__all__ = ["HonestCalls", "honest_calls", "probe"]

SLOWEST_S, GROWN_MB = 0.25, 64
"""How much one hostile peer may delay the call of another, in seconds, and how much memory it may cost."""


class HonestCalls:
    """Calls made one after the other.

    Attributes:
        slowest: how long one of them took at most, in seconds.
        error: why one of them failed, or None.
    """

    def __init__(self) -> None:
        self.slowest = 0.0
        self.error: str | None = None
        self.count = 0


@contextlib.contextmanager
def honest_calls(host: HostProcess) -> Iterator[HonestCalls]:
    """Calls a quick agent again and again until the end of the `with`, from a connection of its own."""
    calls, ended = HonestCalls(), threading.Event()
    remote = host.remote("quick", timeout=60)
    remote.invoke({})

    def repeat() -> None:
        while not (ended.is_set() and calls.count) and calls.error is None:
            outcome = within(90, lambda: remote.invoke({}))
            calls.count += 1
            calls.slowest = max(calls.slowest, outcome.seconds)
            calls.error = None if outcome.is_value else str(outcome)
            time.sleep(0.02)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield calls
    finally:
        ended.set()
        thread.join(120)


def probe(host: HostProcess, timeout: float = 60.0) -> dict[str, Any]:
    """Whether the host is alive, and one honest call."""
    outcome = within(timeout + 5, lambda: host.remote("quick", timeout=timeout).invoke({}))
    honest = "ok" if outcome.is_value else brief(outcome.value)
    return {"alive": host.is_alive(), "honest": honest, "honest_s": round(outcome.seconds, 2), "rss_mb": host.rss()}
