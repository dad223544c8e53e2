"""Stops: the conditions that end a chat group. They combine with `|` (any of them) and `&` (all of them).

A stop is asked before each turn, the first one included; in free conversation, each time that a member has spoken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentmatrix.chat.conversation import Conversation
from agentmatrix.errors import BuildError

__all__ = ["Stop", "agreed", "as_stop", "budget", "max_turns", "says", "silence", "when"]

SecondsLeft = Callable[[Conversation], float | None]


class Stop:
    """Decides before each turn whether the conversation ends.

    Args:
        fires: called with the conversation; returns the reason to stop, or True for `label`, otherwise False or None.
        label: the reason.
        metered: whether the stop needs tokens, calls and seconds to be counted.
        names: the members that the stop names, which must be in the group.
        left: called with the conversation; returns the seconds until the stop fires by the passing of time, or None.
        is_pure: whether it neither asks a model nor calls a function of the user: to ask it once more costs nothing.
    """

    def __init__(
        self,
        fires: Callable[[Conversation], bool | str | None],
        label: str,
        *,
        metered: bool = False,
        names: Iterable[str] = (),
        left: SecondsLeft | None = None,
        is_pure: bool = False,
    ) -> None:
        self._fires = fires
        self.label = label
        self.metered = metered
        self.names = frozenset(names)
        self.left: SecondsLeft = left or _never
        self.is_pure = is_pure

    def reason(self, conversation: Conversation) -> str | None:
        """The reason to end the conversation now; None if it goes on."""
        fired = self._fires(conversation)
        return (fired if isinstance(fired, str) else self.label) if fired else None

    def __or__(self, other: Stop) -> Stop:
        def left(conversation: Conversation) -> float | None:
            return min(_timed(conversation, self, other), default=None)

        return self._with(other, lambda c: self.reason(c) or other.reason(c), "|", left)

    def __and__(self, other: Stop) -> Stop:
        def both(conversation: Conversation) -> str | None:
            first, second = self.reason(conversation), other.reason(conversation)
            return f"{first} and {second}" if first and second else None

        def left(conversation: Conversation) -> float | None:
            return max(_timed(conversation, self, other), default=None)

        return self._with(other, both, "&", left)

    def _with(self, other: Stop, fires: Callable[[Conversation], str | None], sign: str, left: SecondsLeft) -> Stop:
        metered, names = self.metered or other.metered, self.names | other.names
        is_pure = self.is_pure and other.is_pure
        return Stop(fires, f"{self} {sign} {other}", metered=metered, names=names, left=left, is_pure=is_pure)

    def __repr__(self) -> str:
        return self.label


def _never(conversation: Conversation) -> None:
    return None


def _timed(conversation: Conversation, *stops: Stop) -> list[float]:
    """The seconds until each of the stops fires, for stops that have not fired and that time brings about."""
    times = (stop.left(conversation) for stop in stops if not stop.reason(conversation))
    return [seconds for seconds in times if seconds is not None]


def _is_count(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def max_turns(turns: int) -> Stop:
    """Stop after so many turns; after 0, no member speaks. In free conversation: after so many turns of one member."""
    if not _is_count(turns, 0):
        raise BuildError(f"max_turns({turns!r}): name a number of turns, not negative")
    return Stop(lambda conversation: conversation.turns >= turns, f"max_turns({turns})", is_pure=True)


def says(text: str, *, by: str | Sequence[str] | None = None) -> Stop:
    """Stop when a message of the last turn contains `text`.

    Args:
        text: the text; case matters.
        by: the members whose messages count; by default all.
    """
    if not isinstance(text, str):
        raise BuildError(f"says({text!r}): name a text")
    authors = {by} if isinstance(by, str) else set(by or ())

    def fires(conversation: Conversation) -> bool:
        return any(text in m.text and (not authors or m.name in authors) for m in conversation.last_said)

    return Stop(fires, f"says({text!r})", names=authors, is_pure=True)


def when(condition: Callable[[Any], bool | str | None], label: str | None = None) -> Stop:
    """Stop when `condition(state)` is true. If it returns a text, that is the reason."""
    if not callable(condition):
        raise BuildError(f"when({condition!r}): give a function of the state")
    name = label or f"when({getattr(condition, '__name__', type(condition).__name__)})"
    return Stop(lambda conversation: condition(conversation.state), name)


def agreed(text: str = "AGREE") -> Stop:
    """Stop when the last message of every member contains `text`."""

    def fires(conversation: Conversation) -> bool:
        last = {message.name: message.text for message in conversation.said}
        return all(text in last.get(member, "") for member in conversation.members)

    return Stop(fires, f"agreed({text!r})", is_pure=True)


def silence(turns: int | None = None) -> Stop:
    """Stop when the members keep silent.

    Args:
        turns: the number of silent turns in a row; by default, when each member has taken a turn since the last
            message.
    """
    if turns is not None and not _is_count(turns, 1):
        raise BuildError(f"silence({turns!r}): name a number of turns of at least 1, or none")

    def fires(conversation: Conversation) -> bool:
        silent: set[str] = set()
        rounds = 0
        for event in reversed(conversation.events):
            if event.get("message_ids") or "heard" in event:
                break
            silent |= {event["by"]} if "by" in event else set()
            rounds += bool(event.get("speakers"))
        return silent >= set(conversation.members) if turns is None else rounds >= turns

    return Stop(fires, "silence" if turns is None else f"silence({turns})", is_pure=True)


def budget(
    *, tokens: int | None = None, seconds: float | None = None, calls: int | None = None, **unknown: Any
) -> Stop:
    """Stop when this run of the group has used up a budget. Members count, with all that runs inside them, and so does
    a model that selects the next one.

    A turn that has begun is finished, so that a budget is exceeded by one turn at most. Free conversation is cut off
    when its seconds are over.

    Args:
        tokens: tokens of chat models, input and output, as the models report them; one for every four characters if a
            model reports none.
        seconds: seconds of work; a pause does not count.
        calls: calls of chat models.

    Raises:
        BuildError: no budget, an unknown one, or one that is not positive.
    """
    limits = {"tokens": tokens, "seconds": seconds, "calls": calls}
    given = {key: value for key, value in limits.items() if value is not None}
    if unknown or not given:
        named = f"{', '.join(unknown)} is unknown" if unknown else "names none"
        raise BuildError(f"budget(): {named}: give tokens=, seconds= or calls=")
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise BuildError(f"budget({key}={value!r}): a budget is a positive number")

    def fires(conversation: Conversation) -> str | None:
        used = {"seconds": conversation.seconds}
        used |= {key: sum(event.get(key, 0) for event in conversation.events) for key in ("tokens", "calls")}  # type: ignore[misc]
        return next((f"budget({key}={limit})" for key, limit in given.items() if used[key] >= limit), None)

    def left(conversation: Conversation) -> float | None:
        return None if seconds is None else max(0.0, seconds - conversation.seconds)

    label = f"budget({', '.join(f'{key}={limit}' for key, limit in given.items())})"
    return Stop(fires, label, metered=True, left=left, is_pure=True)


def as_stop(stop: Any) -> Stop:
    """The stop itself, or one that calls a function of the state."""
    if isinstance(stop, Stop):
        return stop
    if callable(stop):
        return when(stop)
    raise BuildError(f"stop={stop!r} is no stop: pass max_turns(12), says('DONE'), or a function of the state")
