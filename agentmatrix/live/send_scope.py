"""Where a send from inside a graph goes: to the innermost graph around it that has such a node."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

__all__ = ["SendScope", "current_send_scope"]


class SendScope(Protocol):
    """What a node, and all that runs in it, sends through."""

    def takes(self, path: str) -> bool:
        """Whether a node or an actor of this graph, or of one around it, has that path."""

    def send(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """Send to a node or an actor. It starts when the node of this scope has ended.

        Args:
            path: `"office"` or `"staff/ann"`.
            value: what it is given.
            namespace: the checkpoint namespace of the task that sends: that of the node, or one below it.
            attempt: which attempt of that task it is, from 1.

        Raises:
            SendError: nobody takes it.
            BoundError: it would hire one too many.
        """

    async def asend(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """The same as `send`, async."""

    def dismiss(self, path: str, namespace: str) -> None:
        """Let an actor take no more messages, from when the node of this scope has ended.

        Raises:
            SendError: there is no such actor.
        """

    async def adismiss(self, path: str, namespace: str) -> None:
        """The same as `dismiss`, async."""


current_send_scope: ContextVar[SendScope | None] = ContextVar("current_send_scope", default=None)
"""That of the node that runs here, or around here."""
