"""Logs the callers that a host does not admit, without letting them fill the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

__all__ = ["CALLERS_LOG", "RefusalLog"]

CALLERS_LOG: Final = logging.getLogger("agentmatrix.callers")
"""Who connects, who leaves, who is refused."""
CALLERS_LOG.addHandler(logging.NullHandler())  # else Python prints warnings where nobody has configured logging

_MOST: Final = 10
"""Lines in one period."""
_PERIOD_SECONDS: Final = 10.0


class RefusalLog:
    """A line for each refusal; beyond ten in ten seconds they are only counted. On one thread.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since, self._lines, self._left_out = clock(), 0, 0

    def refused(self, address: str, reason: object) -> None:
        """A caller was refused.

        Args:
            address: where it calls from.
            reason: why, in a sentence without secrets.
        """
        if self._clock() - self._since >= _PERIOD_SECONDS:
            if self._left_out:
                CALLERS_LOG.warning("%d more callers were refused", self._left_out)
            self._since, self._lines, self._left_out = self._clock(), 0, 0
        if self._lines >= _MOST:
            self._left_out += 1
            return
        self._lines += 1
        CALLERS_LOG.warning("the caller at %s was refused: %s", address, reason)
