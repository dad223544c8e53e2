"""The transcript of a chat group as each of its members sees it. No engine, no state of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

__all__ = ["VISIBLE_TO", "Transcript", "audience_of"]

VISIBLE_TO: Final = "visible_to"
"""The key in a message's `additional_kwargs` that names the members that may see it."""


class Transcript:
    """The messages of a group as its members see them: their own as AI messages, others' as named human messages.

    It grows with the conversation. The view that most members share is converted once, so that a turn costs a copy of a
    list. Not thread-safe: `ThreadMemberPool` uses it under its lock.

    Args:
        messages: the messages of the state.

    Attributes:
        message_ids: the ids of all messages.
    """

    def __init__(self, messages: Sequence[BaseMessage]) -> None:
        self.message_ids: set[str | None] = set()
        self._messages: list[BaseMessage] = []
        self._as_seen_by_others: list[BaseMessage] = []
        self._indexes_by_author: dict[str, list[int]] = {}
        # Messages with an audience: by index, the members that may see it, its author included.
        self._audiences: dict[int, frozenset[str]] = {}
        # For `has_new_messages`: the last public message, the last one by another author than that one, and for each
        # member the last message with an audience.
        self._last_author: str | None = None
        self._last_public = self._last_public_by_another = -1
        self._last_addressed: dict[str, int] = {}
        self.append(messages)

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, messages: Sequence[BaseMessage]) -> None:
        """Adds messages at the end."""
        for index, message in enumerate(messages, len(self._messages)):
            author = message.name or ""
            self._as_seen_by_others.append(_as_seen_by_others(message))
            self._indexes_by_author.setdefault(author, []).append(index)
            if (audience := audience_of(message)) is not None:
                self._audiences[index] = audience | {author}
                self._last_addressed.update(dict.fromkeys(audience - {author}, index))
            else:
                if author != self._last_author:
                    self._last_public_by_another, self._last_author = self._last_public, author
                self._last_public = index
        self._messages.extend(messages)
        self.message_ids.update(message.id for message in messages)

    def extend_from(self, messages: Sequence[BaseMessage]) -> bool:
        """Appends the messages that it lacks, if one of the two is a prefix of the other.

        Args:
            messages: the messages of the state, all of them.

        Returns:
            Whether that was so; if not, nothing has changed.
        """
        common = min(len(messages), len(self))
        if messages[:common] != self._messages[:common]:
            return False
        self.append(messages[common:])
        return True

    def seen_by(self, member: str, until: int) -> list[BaseMessage]:
        """The messages that `member` may see among the first `until`, as this member sees them."""
        seen = self._as_seen_by_others[:until]
        for index in self._indexes_by_author.get(member, ()):
            if index < until:
                seen[index] = _as_seen_by_author(self._messages[index])
        if not self._audiences:
            return seen
        return [message for index, message in enumerate(seen) if member in self._audiences.get(index, (member,))]

    def has_new_messages(self, member: str, since: int) -> bool:
        """Whether `member` may see a message of another author behind the first `since` messages."""
        last = self._last_public_by_another if member == self._last_author else self._last_public
        return max(last, self._last_addressed.get(member, -1)) >= since


def audience_of(message: BaseMessage) -> frozenset[str] | None:
    """The members that may see a message besides its author; None for all members."""
    names = message.additional_kwargs.get(VISIBLE_TO)
    if names is None:
        return None
    return frozenset((names,) if isinstance(names, str) else names)


def _as_seen_by_others(message: BaseMessage) -> BaseMessage:
    if isinstance(message, AIMessage):
        return HumanMessage(content=message.content, name=message.name, id=message.id)
    return _without_audience(message)


def _as_seen_by_author(message: BaseMessage) -> BaseMessage:
    if not isinstance(message, AIMessage | SystemMessage):
        return AIMessage(content=message.content, name=message.name, id=message.id)
    return _without_audience(message)


def _without_audience(message: BaseMessage) -> BaseMessage:
    # The audience is no business of a reader, and a group inside a member would take it for its own.
    if VISIBLE_TO not in message.additional_kwargs:
        return message
    kept = {key: value for key, value in message.additional_kwargs.items() if key != VISIBLE_TO}
    return message.model_copy(update={"additional_kwargs": kept})
