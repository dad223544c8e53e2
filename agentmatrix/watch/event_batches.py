"""Events on their way from a host: several of one moment go together, since each frame costs more than an event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.token_buffer import TokenBuffer

__all__ = ["EventBatches"]

_SECONDS: Final = 0.03
"""How long an event waits for others; the first after a pause waits for none."""
_MOST: Final = 256
_MOST_CHARACTERS: Final = 500_000
"""Of inputs, outputs and texts: a frame is bounded."""


class EventBatches:
    """Sends events in order, on any thread.

    Args:
        send: sends several, each as the list of its fields.
    """

    def __init__(self, send: Callable[[list[list[Any]]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: list[list[Any]] = []
        self._tokens = TokenBuffer(self._append)
        self._characters = 0
        self._timer: threading.Timer | None = None
        self._sent = 0.0

    def add(self, event: RunEvent) -> None:
        """Send an event, soon."""
        with self._lock:
            if event.kind == "token":
                self._tokens.add(event)
            else:
                # What a message has said so far comes before what ends it.
                self._tokens.flush()
                self._append(event)
            is_full = len(self._waiting) >= _MOST or self._characters >= _MOST_CHARACTERS
            if is_full or time.monotonic() - self._sent > _SECONDS:
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

    def _append(self, event: RunEvent) -> None:
        self._waiting.append(list(event))
        self._characters += event.size

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            self._flush()

    def _flush(self) -> None:
        self._tokens.flush()
        waiting, self._waiting, self._characters = self._waiting, [], 0
        if waiting:
            self._send(waiting)
            self._sent = time.monotonic()
