"""What one run has still to send. Not thread-safe: its outbox has a lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from agentmatrix.transport.flow import RUN_CREDIT
from agentmatrix.transport.framing import EncodedFrame

__all__ = ["SendQueue"]


class SendQueue:
    """The frames that one run has still to send.

    Attributes:
        run: its number.
        frames: encoded frames that need credit, and control frames of a run that has not begun, in order.
        urgent: control frames, which need no credit.
        slices: what is left of the large fields of the frame before.
        sent: bytes that were sent and needed credit.
        limit: the peer's credit.
        queued: bytes in `frames` and `slices`.
        budgeted: those of them that a budget counts.
        credit: this side's credit to tell the peer; 0 when there is nothing to tell.
        listed: whether it is in one of the lines of its `Outbox`.
        closed: whether it goes when it is empty.
        waiting: what to call when there is so much room.
    """

    __slots__ = (
        *("budgeted", "closed", "credit", "frames", "limit", "listed", "queued"),
        *("run", "sent", "slices", "urgent", "waiting"),
    )

    def __init__(self, run: int) -> None:
        self.run = run
        self.frames: deque[EncodedFrame] = deque()
        self.urgent: deque[bytes] = deque()
        self.slices: deque[memoryview] = deque()
        self.sent, self.limit, self.queued, self.credit, self.budgeted = 0, RUN_CREDIT, 0, 0, 0
        self.listed = self.closed = False
        self.waiting: list[tuple[int, Callable[[], None]]] = []

    @property
    def room(self) -> int:
        return self.limit - self.sent - self.queued

    @property
    def empty(self) -> bool:
        """Whether it has nothing to send."""
        return not (self.frames or self.urgent or self.slices or self.credit)

    @property
    def may_send(self) -> bool:
        if self.urgent or self.credit:
            return True
        if not self.slices and not (self.frames and self.frames[0].counted):
            return bool(self.frames)
        return self.sent < self.limit
