"""How much of the transcript a member is given: `history=` of a group or of a member.

Whatever is left out, system messages in front, the first words of a user and the last ones are kept. A summary is a
message in place of the messages that it sums up. It is kept in the event log, so that each is made once.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import dropwhile, takewhile
from typing import Any, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable
from uuid import uuid4

from langchain_core.messages import (
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable, RunnableConfig

from agentmatrix.chat.transcript import id_in_transcript, is_go_on
from agentmatrix.errors import BuildError, SpeakerError

__all__ = ["History", "HistoryRule", "ShortenedHistory", "Summarizer", "Summary"]


@runtime_checkable
class Summarizer(Protocol):
    """LangChain's `SummarizationMiddleware`, or another middleware that replaces messages in front of a model call."""

    def before_model(self, state: Any, runtime: Any) -> Mapping[str, Any] | None:
        """An update of `messages` that removes all of them and adds what is left; None to leave them."""

    async def abefore_model(self, state: Any, runtime: Any) -> Mapping[str, Any] | None:
        """The same, async."""


HistoryRule = (
    int
    | tuple[Literal["messages", "tokens"], int]
    | Callable[[list[Any]], Sequence[BaseMessage] | Awaitable[Sequence[BaseMessage]]]
    | Runnable[Any, Any]
    | Summarizer
)
"""What `history=` takes; see `ChatGroup`."""


class Summary(TypedDict):
    """A summary, and the last message that it sums up.

    Attributes:
        until: the id of that message.
        messages: the messages that stand for it and for those before it.
    """

    until: str
    messages: list[Any]


class ShortenedHistory(NamedTuple):
    """The messages that are left, and the new summary among them, if one was made."""

    messages: list[BaseMessage]
    summary: Summary | None = None


class History:
    """Shortens the messages that a member is given.

    Args:
        rule: what the user said.
        members: the names of the members: a human message under another name, or none, is of a user.

    Attributes:
        sums_up: whether it makes summaries.

    Raises:
        BuildError: a rule that is none.
    """

    def __init__(self, rule: HistoryRule, members: Sequence[str]) -> None:
        self._rule = rule
        self._members = frozenset(members)
        self.sums_up = isinstance(rule, Summarizer)
        if isinstance(rule, int) and not isinstance(rule, bool):
            rule = ("messages", rule)
        self._limit: tuple[str, int] | None = rule if isinstance(rule, tuple) else None
        if self._limit is None and not (self.sums_up or callable(rule) or isinstance(rule, Runnable)):
            raise BuildError(_unknown(rule))
        if self._limit is not None and not _is_limit(self._limit):
            raise BuildError(_unknown(rule))

    def shorten(
        self,
        seen: list[BaseMessage],
        shared: list[BaseMessage] | None,
        summary: Summary | None,
        config: RunnableConfig,
    ) -> ShortenedHistory:
        """The messages that a member is given.

        Args:
            seen: all messages that it may see, as it sees them.
            shared: the messages that a summary for all members is made of; None if the member has one of its own.
            summary: the last summary.
            config: the config of the turn.
        """
        seen = _without_go_on(seen)
        if isinstance(self._rule, Summarizer):
            source = seen if shared is None else _without_go_on(shared)
            given = self._given(source, summary)
            update = self._rule.before_model({"messages": given}, None) if given else None
            return self._summed_up(seen, source, summary, update)
        if self._limit is not None:
            return ShortenedHistory(self._trimmed(seen))
        if isinstance(self._rule, Runnable):
            return ShortenedHistory(_checked(self._rule.invoke(list(seen), config), seen))
        chosen: Any = self._rule(list(seen))  # type: ignore[operator]
        if inspect.isawaitable(chosen):
            if inspect.iscoroutine(chosen):
                chosen.close()
            raise TypeError("history= is an async function: run this group with ainvoke or astream")
        return ShortenedHistory(_checked(chosen, seen))

    async def ashorten(
        self,
        seen: list[BaseMessage],
        shared: list[BaseMessage] | None,
        summary: Summary | None,
        config: RunnableConfig,
    ) -> ShortenedHistory:
        """The same as `shorten`, async."""
        seen = _without_go_on(seen)
        if isinstance(self._rule, Summarizer):
            source = seen if shared is None else _without_go_on(shared)
            given = self._given(source, summary)
            update = await self._rule.abefore_model({"messages": given}, None) if given else None
            return self._summed_up(seen, source, summary, update)
        if isinstance(self._rule, Runnable):
            return ShortenedHistory(_checked(await self._rule.ainvoke(list(seen), config), seen))
        if self._limit is None and callable(self._rule):
            chosen: Any = self._rule(list(seen))
            return ShortenedHistory(_checked(await chosen if inspect.isawaitable(chosen) else chosen, seen))
        return self.shorten(seen, shared, summary, config)

    def with_summary(
        self, seen: list[BaseMessage], shared: list[BaseMessage], summary: Summary | None
    ) -> ShortenedHistory:
        """The messages that a member is given with a summary for all members that has been made.

        Args:
            seen: as of `shorten`.
            shared: as of `shorten`.
            summary: the summary.
        """
        return self._summed_up(_without_go_on(seen), _without_go_on(shared), summary, None)

    def _trimmed(self, seen: list[BaseMessage]) -> list[BaseMessage]:
        """The last messages within the limit, and those that are kept anyway."""
        assert self._limit is not None
        kind, limit = self._limit
        kept = [*self._front(seen), *self._last_words_of_a_user(seen)]
        ids = {id(message) for message in kept}
        rest = [message for message in seen if id(message) not in ids]
        if kind == "messages":
            last = rest[-limit:]
        else:
            left = limit - count_tokens_approximately(kept)
            last = trim_messages(rest, max_tokens=left, token_counter=count_tokens_approximately) if left > 0 else []
        # A tool result without its call can be sent to no provider. And a limit never leaves nothing to answer.
        last = list(dropwhile(lambda message: isinstance(message, ToolMessage), last))
        ids |= {id(message) for message in (*last, *seen[-1:])}
        return [message for message in seen if id(message) in ids]

    def _front(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """System messages in front, and the first words of a user."""
        front = list(takewhile(lambda message: isinstance(message, SystemMessage), messages))
        first = next((message for message in messages if self._is_of_a_user(message)), None)
        return front if first is None else [*front, first]

    def _last_words_of_a_user(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        return [message for message in reversed(messages) if self._is_of_a_user(message)][:1]

    def _is_of_a_user(self, message: BaseMessage) -> bool:
        return isinstance(message, HumanMessage) and message.name not in self._members

    def _given(self, source: Sequence[BaseMessage], summary: Summary | None) -> list[BaseMessage]:
        """What a new summary is made of: the last one, and what came since."""
        covered = _last_covered(source, summary)
        front = {id(message) for message in self._front(source)}
        rest = [message for message in source[covered + 1 :] if id(message) not in front]
        return [*summary["messages"], *rest] if summary and covered >= 0 else rest

    def _summed_up(
        self,
        seen: list[BaseMessage],
        source: Sequence[BaseMessage],
        summary: Summary | None,
        update: Mapping[str, Any] | None,
    ) -> ShortenedHistory:
        """The messages with a summary in place of what it sums up.

        Args:
            seen: as of `shorten`.
            source: the messages that the summary is made of.
            summary: the last summary.
            update: what the middleware made of `_given`.
        """
        new: Summary | None = None
        if update is not None:
            left = [message for message in update["messages"] if not isinstance(message, RemoveMessage)]
            given, left_ids = self._given(source, summary), {message.id for message in left}
            known = {message.id for message in source}
            gone = [id_in_transcript(str(message.id)) for message in given if message.id in known - left_ids]
            words = [message for message in left if message.id not in known]
            if gone and words:
                words = [m if m.id else m.model_copy(update={"id": str(uuid4())}) for m in words]
                new = summary = Summary(until=gone[-1], messages=words)
        covered = {id_in_transcript(str(message.id)) for message in source[: _last_covered(source, summary) + 1]}
        if summary is None or not covered:
            return ShortenedHistory(seen)
        front = {message.id for message in self._front(seen)}
        kept = {message.id for message in self._last_words_of_a_user(seen)}
        left_out = {m.id for m in seen if id_in_transcript(str(m.id)) in covered} - kept | front
        rest = [message for message in seen if message.id not in left_out]
        return ShortenedHistory([*(m for m in seen if m.id in front), *summary["messages"], *rest], new)


def _without_go_on(messages: list[BaseMessage]) -> list[BaseMessage]:
    """The messages that are in the transcript; what a provider wants in between is put there again afterwards."""
    return [message for message in messages if not is_go_on(message)]


def _last_covered(messages: Sequence[BaseMessage], summary: Summary | None) -> int:
    """The index of the last message that a summary sums up; -1 if there is none."""
    until = summary["until"] if summary else ""
    return next((index for index, message in enumerate(messages) if id_in_transcript(str(message.id)) == until), -1)


def _checked(chosen: Any, seen: list[BaseMessage]) -> list[BaseMessage]:
    """What a function of the messages has chosen; the last message if that is nothing."""
    if isinstance(chosen, str | Mapping) or not isinstance(chosen, Sequence):
        raise SpeakerError(f"history= gives a {type(chosen).__name__}: return a list of messages")
    if wrong := [message for message in chosen if not isinstance(message, BaseMessage)]:
        raise SpeakerError(f"history= gives {wrong[0]!r} among the messages: return a list of messages")
    return list(chosen) or seen[-1:]


def _is_limit(limit: tuple[Any, ...]) -> bool:
    if len(limit) != 2 or limit[0] not in ("messages", "tokens"):
        return False
    return isinstance(limit[1], int) and not isinstance(limit[1], bool) and limit[1] >= 1


def _unknown(rule: object) -> str:
    return (
        f"history={rule!r} is unknown: give a number of messages of at least 1, ('messages', n), ('tokens', n), a "
        "function of the messages, or LangChain's SummarizationMiddleware"
    )
