"""The middleware of actors: a message from inside passes it before it is kept, wherever it was sent from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentmatrix.engine.actor_messages import as_messages
from agentmatrix.middleware import Mailbox, MiddlewareChain

__all__ = ["BLOCKED", "passed_message"]

BLOCKED: Final = object()
"""In place of a message that is not sent."""


def passed_message(chain: MiddlewareChain, value: Any, sender: str, mailbox: Mailbox) -> Any:
    """A message for an actor as it is kept; `BLOCKED` for none.

    Args:
        chain: the middleware.
        value: a text, a message, several, or a dict of the actor's state, whose `messages` are what passes.
        sender: the path of whoever has sent it.
        mailbox: of the actor.
    """
    held = value.get("messages") if isinstance(value, Mapping) else value
    if held is None:
        return value  # Nothing is said in it.
    try:
        said = as_messages(held, sender)
    except Exception:
        return value  # What is no message is refused by the actor.
    result = chain.apply(said, lambda _: sender, lambda _: [mailbox.path], mailbox)
    kept = [message for _, message in result.messages]
    if len(kept) == len(said) and all(one is other for one, other in zip(kept, said, strict=True)):
        return value
    if not kept:
        return BLOCKED
    return {**value, "messages": kept} if isinstance(value, Mapping) else kept
