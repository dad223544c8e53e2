"""The tokens of messages that are being said, merged until somebody looks: there are many."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from agentmatrix.watch.run_event import RunEvent

__all__ = ["TokenBuffer"]

_MOST_CHARACTERS: Final = 4_000
"""Of a message, that wait."""


class TokenBuffer:
    """Keeps the newest tokens of each message. It is filled and emptied on any thread.

    Args:
        sink: takes the merged events, in order for each message.
    """

    def __init__(self, sink: Callable[[RunEvent], None]) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str, str], RunEvent] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, event: RunEvent) -> None:
        """Keep a `token` event, merged with those of the same message."""
        key = (event.run, event.namespace, event.data["id"])
        with self._lock:
            if (before := self._waiting.get(key)) is not None:
                event = event._replace(data={**event.data, "text": before.data["text"] + event.data["text"]})
            self._waiting[key] = event
            if len(event.data["text"]) >= _MOST_CHARACTERS:
                # The sink is called under the lock: another thread may bring the next token of the message.
                self._sink(self._waiting.pop(key))

    def flush(self) -> None:
        """Give all that waits to the sink."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            for event in waiting.values():
                self._sink(event)
