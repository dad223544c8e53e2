"""Who may call what: a table of identities and agents, or a function of the user's."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from agentmatrix.errors import PermissionDenied
from agentmatrix.session.verb_names import sync_verb
from agentmatrix.transport.identity import Identity

__all__ = ["Authorization", "Authorize", "public_verb"]

Authorize = Callable[[Identity | None, str, str], bool] | Mapping[str, str | Collection[str]]
"""A function of identity, agent and verb that says whether the call is allowed; or the agents that each identity may
call, by its name. In a table `"*"` stands for every identity, and for every agent."""

_logger = logging.getLogger(__name__)
_ALL: Final = "*"
_PUBLIC: Final = {"bulk_update_state": "update_state", "saver": "checkpointer"}


def public_verb(verb: str) -> str:
    """The name of a verb as an `authorize` function gets it: of the sync twin, as users know it."""
    sync = sync_verb(verb)
    return _PUBLIC.get(sync, sync)


class Authorization:
    """Decides who may call what.

    Args:
        rule: see `Authorize`; None allows everything to everyone whom the host admits.

    Raises:
        TypeError: the function is an async one.
    """

    def __init__(self, rule: Authorize | None = None) -> None:
        if inspect.iscoroutinefunction(rule):
            raise TypeError("authorize= takes a plain function, or a table: it is asked where nothing can be awaited")
        self._table = _table(rule) if isinstance(rule, Mapping) else None
        self._function = rule if not isinstance(rule, Mapping) else None

    @property
    def blocks(self) -> bool:
        """Whether `allows` runs code of the user's, and so must not run on the I/O thread."""
        return self._function is not None

    def allows(self, user: Identity | None, agent: str, verb: str) -> bool:
        """Whether a call is allowed.

        Args:
            user: who calls; None where callers are not told apart.
            agent: its name on the host.
            verb: "invoke", "stream", "get_state", ..., "describe".
        """
        if self._table is not None:
            allowed = self._table.get(_ALL, frozenset()) | self._table.get(user.name if user else "", frozenset())
            return _ALL in allowed or agent in allowed
        if self._function is None:
            return True
        try:
            # True and nothing else: the coroutine of an async function would count as true.
            return self._function(user, agent, verb) is True
        except Exception:
            _logger.exception("authorize() failed; the call is refused")
            return False

    def check(self, user: Identity | None, agent: str, verb: str) -> None:
        """Refuses a call that is not allowed.

        Raises:
            PermissionDenied: names identity, agent and verb.
        """
        if not self.allows(user, agent, verb):
            who = f"{user.name!r}" if user else "this caller"
            raise PermissionDenied(f"{who} may not {verb} the agent {agent!r} on this host")


def _table(rule: Mapping[str, str | Collection[str]]) -> Mapping[str, frozenset[str]]:
    return {name: frozenset([agents] if isinstance(agents, str) else agents) for name, agents in rule.items()}
