"""Events on their way from a host: several of one moment go together, since each frame costs more than an event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from agentmatrix.watch.run_event import RunEvent

__all__ = ["EventBatches"]

_SECONDS: Final = 0.03
"""How long an event waits for others; the first after a pause waits for none."""
_MOST: Final = 256


class EventBatches:
    """Sends events in order, on any thread.

    Args:
        send: sends several, each as the list of its fields.
    """

    def __init__(self, send: Callable[[list[list[Any]]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: list[list[Any]] = []
        self._timer: threading.Timer | None = None
        self._sent = 0.0

    def add(self, event: RunEvent) -> None:
        """Send an event, soon."""
        with self._lock:
            self._waiting.append(list(event))
            if len(self._waiting) >= _MOST or time.monotonic() - self._sent > _SECONDS:
                self._flush()
            elif self._timer is None:
                self._timer = threading.Timer(_SECONDS, self._on_time)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Send what waits: the run ends."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._flush()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._send(waiting)
            self._sent = time.monotonic()
