"""How a connection is taken up again after a cut: the headers of both sides, and when to try again.

See `Converse` in protos/agentmatrix/wire/v1/service.proto. Free of I/O.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

__all__ = ["HEADERS", "ConnectionGrant", "ConnectionRequest", "ReconnectBackoff"]

Headers = tuple[tuple[str, str], ...]

_CONNECTION: Final = "agentmatrix-connection"
_RECEIVED: Final = "agentmatrix-received"
_LINGER: Final = "agentmatrix-linger"
HEADERS: Final = frozenset({_CONNECTION, _RECEIVED, _LINGER})
"""What these headers are called: they are no business of whoever authenticates a caller."""

_NEW: Final = "new"
_LONGEST_LINGER: Final = 1e6

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_MOST_REFUSALS: Final = 3
"""So many attempts in a row that are refused, in about 0.4 s, say that the host's process is gone."""


@dataclass(frozen=True)
class ConnectionRequest:
    """What a caller asks for when it opens a stream.

    Attributes:
        id: of the connection to take up again; empty for a new one.
        received: bytes of messages that it has read.
    """

    id: str = ""
    received: int = 0

    @property
    def headers(self) -> Headers:
        """It, as headers."""
        return ((_CONNECTION, self.id), (_RECEIVED, str(self.received))) if self.id else ((_CONNECTION, _NEW),)

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> Self | None:
        """The request in the headers of a caller; None where the connection is to end with its stream."""
        id = metadata.get(_CONNECTION, "")
        if id in ("", _NEW):
            return cls() if id else None
        return cls(id, _number(metadata.get(_RECEIVED)))


@dataclass(frozen=True)
class ConnectionGrant:
    """What a host answers.

    Attributes:
        id: of the connection; empty where it ends with its stream.
        linger: seconds that the host keeps it without a stream.
        received: bytes of messages that the host has read.
    """

    id: str = ""
    linger: float = 0.0
    received: int = 0

    @property
    def headers(self) -> Headers:
        """It, as headers."""
        if not self.id:
            return ()
        return (_CONNECTION, self.id), (_LINGER, f"{self.linger:g}"), (_RECEIVED, str(self.received))

    @classmethod
    def read(cls, metadata: Iterable[tuple[str, Any]]) -> Self:
        """The grant in the initial metadata of a host."""
        found = {name: value for name, value in metadata if isinstance(value, str)}
        try:
            linger = float(found.get(_LINGER, "0"))
        except ValueError:
            linger = 0.0
        linger = min(linger, _LONGEST_LINGER) if math.isfinite(linger) and linger > 0 else 0.0
        return cls(found.get(_CONNECTION, "") if linger else "", linger, _number(found.get(_RECEIVED)))


def _number(text: str | None) -> int:
    """A number that a peer has sent; -1, which no peer can have read, where it is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 20 else -1


class ReconnectBackoff:
    """When to try again to reach a host, and when no more.

    Args:
        why: why the line was cut.
        seconds: for how long to try.
        is_patient: go on also where the host's machine says that nobody listens there.
        clock: seconds.

    Attributes:
        why: why the line was cut, and what the last attempt has met.
    """

    def __init__(
        self, why: str, seconds: float, *, is_patient: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cut, self.why = why, why
        self._until, self._is_patient, self._clock = clock() + seconds, is_patient, clock
        self._pause = 0.0
        self._refusals = 0

    def failed(self, error: Exception, *, refused: bool) -> None:
        """An attempt has failed. `refused`: nobody listens there."""
        self._refusals = self._refusals + 1 if refused else 0
        self.why = f"{self._cut}; then {error}"

    @property
    def is_refused(self) -> bool:
        """Whether the host's process seems to be gone."""
        return self._refusals >= _MOST_REFUSALS

    def next_pause(self) -> float | None:
        """Seconds until the next attempt; None when there is none any more. The first comes nearly at once."""
        left = self._until - self._clock()
        if left <= 0 or (self.is_refused and not self._is_patient):
            return None
        pause, self._pause = self._pause, min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        # At random, since all callers of a host are cut at the same time.
        return min(left, random.uniform(pause / 2, pause) if pause else random.uniform(0, _FIRST_PAUSE / 5))
