"""The middleware of actors: a message from inside passes it before it is kept, wherever it was sent from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages

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
    if held is None:
        return value  # Nothing is said in it.
    name = split_path(sender)[1] or sender
    try:
        said = [_message(one, name) for one in _several(held)]
    except Exception:
        return value  # What is no message is refused by the actor.
    result = chain.apply(said, lambda _: sender, lambda _: [mailbox.path], mailbox)
    kept = [message for _, message in result.messages]
    if len(kept) == len(said) and all(one is other for one, other in zip(kept, said, strict=True)):
        return value
    if not kept:
        return BLOCKED
    return {**value, "messages": kept} if isinstance(value, Mapping) else kept


def _several(held: Any) -> Sequence[Any]:
    """What `add_messages` takes, one by one: a pair of a role and a text is one message."""
    is_one = not isinstance(held, list) and not (isinstance(held, tuple) and isinstance(held[0], BaseMessage))
    return [held] if is_one else held


def _message(one: Any, name: str) -> BaseMessage:
    if isinstance(one, str):
        return HumanMessage(one, name=name or None)
    return one if isinstance(one, BaseMessage) else convert_to_messages([one])[0]
