"""A log that strangers cannot fill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["CALLERS_LOG", "RateLimitedLog"]

CALLERS_LOG: Final = logging.getLogger("agentmatrix.callers")
"""Who connects, who leaves, who is refused."""
CALLERS_LOG.addHandler(logging.NullHandler())  # else Python prints warnings where nobody has configured logging

_MOST: Final = 10
"""Lines in one period."""
_PERIOD_SECONDS: Final = 10.0


class RateLimitedLog:
    """Warnings of one kind; beyond ten in ten seconds they are only counted. On one thread.

    Args:
        logger: takes the lines.
        kind: what the lines are about, in the plural, for their number.
        clock: seconds.
    """

    def __init__(self, logger: logging.Logger, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._kind, self._clock = logger, kind, clock
        self._since, self._lines, self._left_out = clock(), 0, 0

    def warning(self, message: str, *args: object, extra: dict[str, Any] | None = None) -> None:
        """Logs a warning, if there have not been too many."""
        if self._clock() - self._since >= _PERIOD_SECONDS:
            if self._left_out:
                self._logger.warning("%d more %s", self._left_out, self._kind)
            self._since, self._lines, self._left_out = self._clock(), 0, 0
        if self._lines >= _MOST:
            self._left_out += 1
            return
        self._lines += 1
        self._logger.warning(message, *args, extra=extra)
