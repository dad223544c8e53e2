"""The middleware of actors: a message from inside passes it before it is kept, wherever it was sent from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage, HumanMessage

from agentmatrix.middleware import Mailbox, MiddlewareChain
from agentmatrix.scheduling.actors import split_path

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
    several: Sequence[Any] = held if isinstance(held, list | tuple) else [held]
    name = split_path(sender)[1] or sender
    said: list[Any] = [HumanMessage(one, name=name or None) if isinstance(one, str) else one for one in several]
    if not (said and all(isinstance(one, BaseMessage) for one in said)):
        return value  # Nothing is said in it; what is no message at all is refused by the actor.
    result = chain.apply(said, lambda _: sender, lambda _: [mailbox.path], mailbox)
    kept = [message for _, message in result.messages]
    if len(kept) == len(said) and all(one is other for one, other in zip(kept, said, strict=True)):
        return value
    if not kept:
        return BLOCKED
    return {**value, "messages": kept} if isinstance(value, Mapping) else kept
