"""The events of watched runs, numbered, in bounded memory."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from agentmatrix.watch.run_event import RunEvent

__all__ = ["KEPT_EVENTS", "EventLog"]

KEPT_EVENTS: Final = 200_000
_KEPT_CHARACTERS: Final = 64_000_000
"""Of inputs, outputs and what was said."""


class EventLog:
    """Keeps the newest events.

    Args:
        keep: how many.
        characters: how many of texts, inputs and outputs, all together.

    Attributes:
        count: how many events there have been; the number of the newest one.
    """

    def __init__(self, keep: int = KEPT_EVENTS, characters: int = _KEPT_CHARACTERS) -> None:
        self._keep, self._most, self._characters = keep, characters, 0
        self._events: deque[RunEvent] = deque()
        self.count = 0

    def add(self, event: RunEvent) -> None:
        """Keep an event, and drop the oldest ones that there is no room for."""
        self._events.append(event)
        self.count += 1
        self._characters += event.size
        while len(self._events) > self._keep or (self._characters > self._most and len(self._events) > 1):
            self._characters -= self._events.popleft().size

    def after(self, number: int) -> list[RunEvent]:
        """The events that came after the first `number`, as far as they are kept."""
        dropped = self.count - len(self._events)
        return list(islice(self._events, max(number - dropped, 0), None))

    def values_of(self, run: str, namespace: str, path: str, begun: float) -> tuple[str | None, str | None]:
        """The input and the output of an activation, as JSON text."""
        given = None
        is_found = False
        for event in self._events:
            if (event.run, event.namespace, event.path) != (run, namespace, path):
                continue
            if event.kind == "begin":
                if is_found:
                    break  # It was tried again: that is another activation.
                if event.at == begun:
                    is_found, given = True, event.data.get("input")
            elif is_found and event.kind == "end":
                return given, event.data.get("output")
        return given, None
