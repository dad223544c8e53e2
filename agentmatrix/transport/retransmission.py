"""What was written to a connection and may have to be written again, free of I/O.

A message is numbered by the bytes of all messages up to its end, as TCP numbers what it carries; the peer acknowledges
by saying how many bytes it has read. After a cut both sides say so once more, and each writes again what is missing: so
a message that was read is not read again, and none is left out. (Eternal Terminal and XMPP's stream management,
XEP-0198, resume a session in this way.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from agentmatrix.errors import ProtocolError

__all__ = ["RetransmissionBuffer"]


@dataclass(frozen=True, slots=True)
class _WrittenMessage:
    """A message that was written.

    Attributes:
        data: its bytes.
        end: the bytes of all messages up to its end.
        budgeted: bytes of it that a budget counts.
    """

    data: bytes
    end: int
    budgeted: int


class RetransmissionBuffer:
    """The messages that the peer has not acknowledged, oldest first. Not thread-safe: its outbox has a lock.

    How much it holds is bounded by who writes: by the bytes that may be under way.

    Attributes:
        written: bytes of all messages.
        acknowledged: those of them that the peer has read.
    """

    __slots__ = ("_again", "_unacknowledged", "acknowledged", "written")

    def __init__(self) -> None:
        self.written = self.acknowledged = 0
        self._unacknowledged: deque[_WrittenMessage] = deque()
        self._again: deque[_WrittenMessage] = deque()
        """Those that are to be written again; they come after the others."""

    def __len__(self) -> int:
        return len(self._unacknowledged) + len(self._again)

    @property
    def must_repeat(self) -> bool:
        """Whether a message is to be written again, before any new one."""
        return bool(self._again)

    def write(self, message: bytes, budgeted: int = 0) -> None:
        """A new message is written."""
        self.written += len(message)
        self._unacknowledged.append(_WrittenMessage(message, self.written, budgeted))

    def repeat(self) -> bytes:
        """The next message to write again."""
        message = self._again.popleft()
        self._unacknowledged.append(message)
        return message.data

    def acknowledge(self, received: int) -> int:
        """The peer has read so many bytes in all. Returns how many bytes a budget need count no more."""
        budgeted = 0
        while self._unacknowledged and self._unacknowledged[0].end <= received:
            message = self._unacknowledged.popleft()
            self.acknowledged = message.end
            budgeted += message.budgeted
        return budgeted

    def resume(self, received: int) -> int:
        """The line is back; the peer has read so many bytes in all. Returns as `acknowledge` does.

        Raises:
            ProtocolError: it cannot have: nothing has changed then.
        """
        ends = {self.acknowledged, *(message.end for message in (*self._unacknowledged, *self._again))}
        if received not in ends:
            raise ProtocolError(
                f"it says that it has read {received:,} bytes; it had {self.acknowledged:,} of {self.written:,} before"
            )
        self._unacknowledged.extend(self._again)
        self._again.clear()
        budgeted = self.acknowledge(received)
        self._again, self._unacknowledged = self._unacknowledged, self._again
        return budgeted

    def clear(self) -> int:
        """Nothing will be written again. Returns as `acknowledge` does."""
        budgeted = sum(message.budgeted for message in (*self._unacknowledged, *self._again))
        self._unacknowledged.clear()
        self._again.clear()
        return budgeted
