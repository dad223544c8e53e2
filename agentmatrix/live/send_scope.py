"""Where a send from inside a graph goes: to the innermost graph around it that has such a node."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig

from agentmatrix.pregel.checkpoint_order import loops_of
from agentmatrix.pregel.task_config import attempt_of, namespace_of

__all__ = ["SendScope", "Sender", "current_send_scope"]


@dataclass(frozen=True, slots=True)
class Sender:
    """The task that sends.

    Attributes:
        namespace: its checkpoint namespace: that of the node whose scope it sends through, or one below it.
        attempt: which attempt of it it is, from 1.
        loops: LangGraph's loops that it runs in, its own one first; none where it runs on another host.
    """

    namespace: str
    attempt: int
    loops: tuple[Any, ...] = ()

    @classmethod
    def of(cls, config: RunnableConfig) -> Sender:
        """That of a task in this process."""
        return cls(namespace_of(config), attempt_of(config), tuple(loops_of(config)))


class SendScope(Protocol):
    """What a node, and all that runs in it, sends through."""

    def takes(self, path: str) -> bool:
        """Whether a node or an actor of this graph, or of one around it, has that path."""

    def send(self, path: str, value: Any, sender: Sender) -> None:
        """Send to a node or an actor. It starts when the node of this scope has ended.

        What the sender's graph keeps afterwards is kept after it: in this process without waiting.

        Args:
            path: `"office"` or `"staff/ann"`.
            value: what it is given.
            sender: who sends.

        Raises:
            SendError: nobody takes it.
            BoundError: it would hire one too many.
        """

    async def asend(self, path: str, value: Any, sender: Sender) -> None:
        """The same as `send`, async."""

    def dismiss(self, path: str, sender: Sender) -> None:
        """Let an actor take no more messages, from when the node of this scope has ended.

        Raises:
            SendError: there is no such actor.
        """

    async def adismiss(self, path: str, sender: Sender) -> None:
        """The same as `dismiss`, async."""


current_send_scope: ContextVar[SendScope | None] = ContextVar("current_send_scope", default=None)
"""That of the node that runs here, or around here."""
