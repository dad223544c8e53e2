"""The ids of the runs that a host has started: a run that is sent twice runs once. On the I/O thread."""

from __future__ import annotations

from typing import Final

from agentmatrix.errors import ProtocolError
from agentmatrix.transport.identity import Identity

__all__ = ["StartedRuns"]

_MOST: Final = 20_000
"""How many are remembered."""
_LONGEST_ID: Final = 200


class StartedRuns:
    """The ids of the runs that were started last, each with the caller whose it is: others may use the same.

    A caller whose line was cut does not start its runs again, it takes them up. What comes here twice was copied on the
    way, or sent again by a caller that did not know what has become of it.
    """

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], None] = {}
        """Oldest first."""

    def check(self, user: Identity | None, id: str) -> None:
        """Raises ProtocolError where this caller has started a run of that id. An empty id is none."""
        if len(id) > _LONGEST_ID:
            raise ProtocolError(f"the id of a run has {_LONGEST_ID} characters at most")
        if id and self._key(user, id) in self._ids:
            raise ProtocolError(f"the run {id!r} was started here already, and is not started again")

    def add(self, user: Identity | None, id: str) -> None:
        """A run is started."""
        if id:
            self._ids[self._key(user, id)] = None
            if len(self._ids) > _MOST:
                del self._ids[next(iter(self._ids))]

    @staticmethod
    def _key(user: Identity | None, id: str) -> tuple[str, str]:
        return ("" if user is None else user.name, id)
