"""What is left of several messages for those around: the reply of a group, and the contribution of a member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage

from agentmatrix.errors import BuildError

__all__ = ["Reply", "check_reply", "replied"]

Reply = Literal["last", "transcript"] | Callable[[list[BaseMessage]], Any]


def check_reply(reply: Any) -> None:
    """Raises a BuildError for a `reply=` that is none."""
    if not (reply in ("last", "transcript") or callable(reply)):
        raise BuildError(f"reply={reply!r} is unknown: choose 'last', 'transcript' or a function of the messages")


def replied(reply: Reply, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages that a reply keeps, or makes, of these: the `"last"`, the whole `"transcript"`, or the result of a
    function of the list, which is a text, a message or messages."""
    if callable(reply):
        made = reply(list(messages))
        return [AIMessage(made)] if isinstance(made, str) else [made] if isinstance(made, BaseMessage) else list(made)
    return list(messages[-1:] if reply == "last" else messages)
