"""Logs the callers that a host does not admit, without letting them fill the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

__all__ = ["RefusalLog"]

_MOST: Final = 10
"""Lines in one period."""
_PERIOD_SECONDS: Final = 10.0


class RefusalLog:
    """A line for each refusal; beyond ten in ten seconds they are only counted. On one thread.

    Args:
        logger: takes the lines.
        clock: seconds.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._clock = logger, clock
        self._since, self._lines, self._left_out = clock(), 0, 0

    def refused(self, address: str, reason: object) -> None:
        """A caller was refused.

        Args:
            address: where it calls from.
            reason: why, in a sentence without secrets.
        """
        if self._clock() - self._since >= _PERIOD_SECONDS:
            if self._left_out:
                self._logger.warning("%d more callers were refused", self._left_out)
            self._since, self._lines, self._left_out = self._clock(), 0, 0
        if self._lines >= _MOST:
            self._left_out += 1
            return
        self._lines += 1
        self._logger.warning("the caller at %s was refused: %s", address, reason)
