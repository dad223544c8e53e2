"""The places of a host: how many runs it takes at a time, of all callers and of each.

A run may call the host again, through a remote agent in one of its nodes, and that run the next. Such a tree of runs
holds the place that its first run was given, and its other runs need none: else trees that have taken all places would
wait for each other. A run belongs to a tree if its caller shows the tree's ticket, which the host gives to nothing but
the code of the tree's runs, and which travels with every call that this code makes.

Threads: runs are admitted on the I/O thread and leave on any thread. `_lock` guards the counts and the table of trees.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final

from agentmatrix.errors import HostBusy

__all__ = ["TICKETS", "RunSlot", "RunLimiter"]

TICKETS: ContextVar[tuple[str, ...]] = ContextVar("agentmatrix_tickets", default=())
"""The tickets of the runs that the code of this context runs in, outermost first."""

_NESTED: Final = 8
"""How many runs the trees of a host may have in all, in places of the host."""
_MOST_TICKETS: Final = 64


class RunSlot:
    """The place of a run, alone or with the other runs of its tree.

    Args:
        places: gave it.
        caller: holds it.
        ticket: of the tree.
        is_root: whether the run has the tree's place, rather than being nested in it.
    """

    __slots__ = ("_caller", "_is_root", "_left", "_places", "ticket")

    def __init__(self, places: RunLimiter, caller: str, ticket: str, *, is_root: bool) -> None:
        self._places, self._caller, self.ticket, self._is_root = places, caller, ticket, is_root
        self._left = False

    def tickets(self, shown: Iterable[str]) -> tuple[str, ...]:
        """The tickets for the code of the run, whose caller has shown these."""
        return (*(ticket for ticket in shown if ticket != self.ticket), self.ticket)[-_MOST_TICKETS:]

    def leave(self) -> None:
        """The run has ended. Idempotent."""
        if not self._left:
            self._left = True
            self._places._leave(self._caller, self.ticket, self._is_root)


class RunLimiter:
    """Gives places to runs.

    Args:
        most: runs at a time.
        most_of_a_caller: runs of one caller at a time; None for as many as the host takes.
    """

    def __init__(self, most: int, most_of_a_caller: int | None = None) -> None:
        self.most, self.most_of_a_caller = most, most if most_of_a_caller is None else most_of_a_caller
        self._lock = threading.Lock()
        self._callers = Counter[str]()
        self._trees: set[str] = set()
        self._nested = 0

    @property
    def most_of_all(self) -> int:
        """Runs at a time with those that are nested in others."""
        return self.most * (1 + _NESTED)

    def enter(self, caller: str, shown: Iterable[str] = ()) -> RunSlot:
        """The place for a new run.

        Args:
            caller: who begins it.
            shown: the tickets that the caller shows.

        Raises:
            HostBusy: there is none; says which limit is reached.
        """
        with self._lock:
            for ticket in shown:
                if ticket in self._trees:
                    self._enter_tree()
                    return RunSlot(self, caller, ticket, is_root=False)
            if len(self._trees) >= self.most:
                raise HostBusy(f"the host runs {self.most} runs already, as many as it may; see --max-runs")
            if self._callers[caller] >= self.most_of_a_caller:
                raise HostBusy(
                    f"the host runs {self.most_of_a_caller} runs of this caller already, as many as one may have; "
                    "see --max-caller-runs"
                )
            self._callers[caller] += 1
            ticket = secrets.token_hex(16)
            self._trees.add(ticket)
        return RunSlot(self, caller, ticket, is_root=True)

    def _enter_tree(self) -> None:
        if self._nested >= self.most * _NESTED:
            raise HostBusy(
                f"the host runs {self._nested} runs that are nested in others already, {_NESTED} times --max-runs"
            )
        self._nested += 1

    def _leave(self, caller: str, ticket: str, is_root: bool) -> None:
        with self._lock:
            if not is_root:
                self._nested -= 1
                return
            self._trees.discard(ticket)
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
