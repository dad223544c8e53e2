"""The streams that a host serves, and how many: over all callers, over one connection, and of those that do nothing.

All of it runs on the I/O thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from agentmatrix.errors import HostBusy

__all__ = ["StreamTable"]


class ServedStream(Protocol):
    """A stream of a caller.

    Attributes:
        connection: names the connection that it came over.
        began: whether it has ever started a run.
    """

    connection: str
    began: bool

    def end(self, kind: str, why: str) -> None:
        """Ends the stream with a status: "busy", "late", "broken" or "refused"."""


class StreamTable:
    """The streams at a time.

    Args:
        most: over all callers. A stream that has never started a run makes room for a new one.
        most_of_a_connection: over one connection.
    """

    def __init__(self, most: int, most_of_a_connection: int) -> None:
        self._most, self._most_of_a_connection = most, most_of_a_connection
        self._streams: dict[ServedStream, None] = {}
        self._silent: dict[ServedStream, None] = {}
        self._connections = Counter[str]()

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[ServedStream]:
        return iter(list(self._streams))

    def add(self, stream: ServedStream) -> None:
        """A new stream.

        Raises:
            HostBusy: there is no room for it; says which limit is reached.
        """
        if self._connections[stream.connection] >= self._most_of_a_connection:
            raise HostBusy(
                f"the host serves {self._most_of_a_connection} streams of this connection already; a caller needs one"
            )
        if len(self._streams) >= self._most:
            oldest = next(iter(self._silent), None)
            if oldest is None:
                raise HostBusy(f"the host serves {self._most} callers already, as many as it may (max_streams)")
            self.remove(oldest)
            oldest.end("busy", "it made room for another caller, since it had not started a run")
        self._streams[stream] = self._silent[stream] = None
        self._connections[stream.connection] += 1

    def begin(self, stream: ServedStream) -> None:
        """A stream has started a run."""
        stream.began = True
        self._silent.pop(stream, None)

    def remove(self, stream: ServedStream) -> None:
        """A stream has ended. Idempotent."""
        self._silent.pop(stream, None)
        if stream not in self._streams:
            return
        del self._streams[stream]
        self._connections[stream.connection] -= 1
        if not self._connections[stream.connection]:
            del self._connections[stream.connection]
