"""What members who speak at the same time have taken or made, so that none of them takes or makes it again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Mapping

from agentmatrix.chat.history import Summary

__all__ = ["Claims"]


class Claims:
    """What members who speak at the same time have taken or made. One for each run of a group.

    Args:
        owners: by what is taken, the name of the member that has it.

    Attributes:
        summaries: by what they are made of, the summaries for all members; None where none was due.
        last_summary: the last of them, and the number of events in the log when the turn that made it began.
        is_over: whether the run has ended, and nobody takes what is still being said.
        lock: held while a summary is made, in a sync run.
        alock: the same in an async run.
    """

    def __init__(self, owners: Mapping[Hashable, str] | None = None) -> None:
        self._owners: dict[Hashable, str] = dict(owners or {})
        self.summaries: dict[Hashable, Summary | None] = {}
        self.last_summary: tuple[int, Summary | None] = (-1, None)
        self.is_over = False
        self.lock, self.alock = threading.Lock(), asyncio.Lock()

    def owner(self, taken: Hashable, member: str) -> str:
        """The member that has something: whoever was first, which is `member` if nobody has it yet."""
        return self._owners.setdefault(taken, member)
