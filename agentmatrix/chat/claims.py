"""What members who speak at the same time have taken or made, so that none of them takes or makes it again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any

__all__ = ["Claims"]


class Claims:
    """What members who speak at the same time have taken or made. One for each run of a group.

    Args:
        owners: by what is taken, the name of the member that has it.

    Attributes:
        summaries: the summaries for all members that have been made, by what they are made of.
        lock: held while a summary is made, in a sync run.
        alock: the same in an async run.
    """

    def __init__(self, owners: Mapping[Hashable, str] | None = None) -> None:
        self._owners: dict[Hashable, str] = dict(owners or {})
        self.summaries: dict[Hashable, Any] = {}

    @cached_property
    def lock(self) -> threading.Lock:
        return threading.Lock()

    @cached_property
    def alock(self) -> asyncio.Lock:
        return asyncio.Lock()

    def owner(self, taken: Hashable, member: str) -> str:
        """The member that has something: whoever was first, which is `member` if nobody has it yet."""
        return self._owners.setdefault(taken, member)
