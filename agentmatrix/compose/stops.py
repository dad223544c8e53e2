"""When a chat group has said enough. Stops combine with `|` (any of them) and `&` (all of them)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agentmatrix.compose.conversation import Conversation
from agentmatrix.errors import BuildError

__all__ = ["Stop", "agreed", "as_stop", "max_turns", "says", "when"]


class Stop:
    """Decides before each turn whether the conversation ends.

    Args:
        fires: called with the conversation; returns the reason to stop, True to stop for `label`, else False or None.
        label: the reason, in words.
    """

    def __init__(self, fires: Callable[[Conversation], bool | str | None], label: str) -> None:
        self._fires = fires
        self.label = label

    def reason(self, conversation: Conversation) -> str | None:
        """Why the conversation ends now, or None if it goes on."""
        fired = self._fires(conversation)
        return (fired if isinstance(fired, str) else self.label) if fired else None

    def __or__(self, other: Stop) -> Stop:
        return Stop(lambda c: self.reason(c) or other.reason(c), f"{self} | {other}")

    def __and__(self, other: Stop) -> Stop:
        def both(conversation: Conversation) -> str | None:
            first, second = self.reason(conversation), other.reason(conversation)
            return f"{first} and {second}" if first and second else None

        return Stop(both, f"{self} & {other}")

    def __repr__(self) -> str:
        return self.label


def max_turns(turns: int) -> Stop:
    """Stop after so many turns; 0 lets nobody speak."""
    if turns < 0:
        raise BuildError(f"max_turns({turns}): a number of turns is not negative")
    return Stop(lambda conversation: conversation.turns >= turns, f"max_turns({turns})")


def says(text: str, *, by: str | Sequence[str] | None = None) -> Stop:
    """Stop when a member's last words contain `text`.

    Args:
        text: the text, upper and lower case as written.
        by: only if one of these members says it.
    """
    authors = {by} if isinstance(by, str) else set(by or ())

    def fires(conversation: Conversation) -> bool:
        return any(text in m.text and (not authors or m.name in authors) for m in conversation.last_said)

    return Stop(fires, f"says({text!r})")


def when(condition: Callable[[Any], bool | str | None], label: str | None = None) -> Stop:
    """Stop when `condition(state)` is true. A text that it returns is the reason."""
    name = label or f"when({getattr(condition, '__name__', type(condition).__name__)})"
    return Stop(lambda conversation: condition(conversation.state), name)


def agreed(text: str = "AGREE") -> Stop:
    """Stop when the last words of every member contain `text`."""

    def fires(conversation: Conversation) -> bool:
        last = {message.name: message.text for message in conversation.said}
        return all(text in last.get(member, "") for member in conversation.members)

    return Stop(fires, f"agreed({text!r})")


def as_stop(stop: Any) -> Stop:
    """A stop, or a function of the state as one."""
    if isinstance(stop, Stop):
        return stop
    if callable(stop):
        return when(stop)
    raise BuildError(f"stop={stop!r} is no stop: pass max_turns(12), says('DONE'), or a function of the state")
