"""The transcript of a chat group as each of its members sees it. No engine, no state of a run.

What a member is given can be sent to any provider: words, pictures, sounds and files, no calls of tools, no thoughts,
no empty messages; a system message at most at the beginning; a user's message first and last, and between two messages
of assistants. `tests/chat/provider_rules.py` has these rules with their sources.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4
from weakref import WeakKeyDictionary

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)

from agentmatrix.agent import messages_in
from agentmatrix.chat.authorship import (
    SAID_BY,
    AgentNameMode,
    author_of,
    provider_name,
    with_inline_name,
    without_inline_name,
)
from agentmatrix.chat.content import Content, as_heard, as_said, is_text, map_text, user_content
from agentmatrix.pregel.message_copy import text_message

__all__ = [
    "BEGIN",
    "GO_ON",
    "VISIBLE_TO",
    "RunTranscripts",
    "Transcript",
    "audience_of",
    "id_in_transcript",
    "is_go_on",
    "messages_of",
    "with_go_on",
    "with_note",
    "with_users_words",
]

VISIBLE_TO: Final = "visible_to"
"""The key in a message's `additional_kwargs` that names the members that may see it."""
BEGIN: Final = "Begin."
"""What a member is told where nobody has said anything that it may see."""
GO_ON: Final = "Go on."
"""What a member is told where nobody else has said anything since its own last words."""

_WORDS = frozenset({AIMessage, HumanMessage})
_SYSTEM = "system"
_HEARD = "heard:"
_GO_ON_IDS = ("after:", "before:", "begin:")


class Transcript:
    """The messages of a group as its members see them: their own as AI messages, others' as named human messages.

    It grows with the conversation. The view that most members share is converted once, so that a turn costs a copy of a
    list. Not thread-safe: `ThreadMemberPool` and `RunTranscripts` use it under their locks.

    In a member's view each message has an id, which is not the one of the transcript where the message was changed: an
    agent that answers with an id of the transcript, as canned and cached answers do, replaces nothing in its state.

    Args:
        messages: the messages of the state.
        names: by member, the name that it has in prompts.

    Attributes:
        positions: by id, the positions of all messages.
    """

    def __init__(self, messages: Sequence[BaseMessage], names: Mapping[str, str]) -> None:
        self.positions: dict[str, int] = {}
        self._names = names
        self._messages: list[BaseMessage] = []
        # By mode, the messages as those see them who have not said them; None for what nobody is given.
        self._heard: dict[AgentNameMode, list[BaseMessage | None]] = {}
        self._positions_by_author: dict[str, list[int]] = {}
        # By author and position, messages of members as their authors see them; and who has said one that is empty.
        self._own: dict[str, dict[int, BaseMessage | None]] = {}
        self._have_empty: set[str] = set()
        # What those see who have said nothing, with its `until` and its mode: in a broadcast that is many.
        self._last_view: tuple[int, AgentNameMode, list[BaseMessage]] | None = None
        # Words of assistants without a name, which stay an assistant's for everybody.
        self._assistants: list[int] = []
        self._has_unheard = False
        # System messages in front of all others.
        self._leading_system = 0
        # Messages with an audience: by position, the members that may see it, its author included.
        self._audiences: dict[int, frozenset[str]] = {}
        # For `has_new_messages`: the last public message, the last one by another author than that one, and for each
        # member the last message with an audience.
        self._last_author: str | None = None
        self._last_public = self._last_public_by_another = -1
        self._last_addressed: dict[str, int] = {}
        self.append(messages)

    def __len__(self) -> int:
        return len(self._messages)

    def id_before(self, position: int) -> str | None:
        """The id of the message before a position, which `has_new_messages` takes; None at the beginning."""
        return self._messages[position - 1].id or f"#{position - 1}" if position else None

    def position_after(self, id: str | None) -> int:
        """The position behind the message that `id_before` has given the id of; the end, if it is there no more."""
        return self.positions[id] + 1 if id in self.positions else len(self)

    def append(self, messages: Sequence[BaseMessage]) -> None:
        """Adds messages at the end."""
        for position, message in enumerate(messages, len(self._messages)):
            author = author_of(message)
            self._messages.append(message)
            self.positions[message.id or f"#{position}"] = position
            self._positions_by_author.setdefault(author, []).append(position)
            if not author and isinstance(message, AIMessage):
                self._assistants.append(position)
            if position == self._leading_system and isinstance(message, SystemMessage):
                self._leading_system += 1
            if (audience := audience_of(message)) is not None:
                self._audiences[position] = audience | {author}
                self._last_addressed.update(dict.fromkeys(audience - {author}, position))
            else:
                if author != self._last_author:
                    self._last_public_by_another, self._last_author = self._last_public, author
                self._last_public = position

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

    def seen_by(
        self,
        member: str | None,
        until: int,
        mode: AgentNameMode = None,
        *,
        remembers: bool = False,
        left_out: Collection[int] = (),
    ) -> list[BaseMessage]:
        """The messages that `member` may see among the first `until`, as this member sees them.

        Args:
            member: the name of the member; None for nobody, who sees what all members see.
            until: the number of messages.
            mode: how it is told who spoke.
            remembers: whether it has a memory of its own: it is not given again what it has said itself.
            left_out: positions of messages that it is not given.
        """
        own = self._own_until(member, until) if member else {}
        if not (own or remembers or left_out or self._audiences):
            return self._seen_by_others(until, mode).copy()
        seen: list[BaseMessage | None] = self._heard_until(until, mode)[:until]
        has_gaps, kept_back = self._has_unheard or member in self._have_empty, set[int]()
        for position, view in own.items():
            seen[position] = view
        if remembers:
            kept_back = {position for position in own if SAID_BY in self._messages[position].additional_kwargs}
            # Where they come to stand in its memory nobody knows.
            for position in range(min(self._leading_system, until)):
                message = self._messages[position]
                seen[position] = _heard(message, position, user_content(message.content), _SYSTEM, mode)
        for position, audience in self._audiences.items():
            if position < until and member not in audience:
                seen[position], has_gaps = None, True
        for position in left_out:
            if position < until:
                seen[position], has_gaps = None, True
        if has_gaps or remembers:
            return with_users_words(seen, kept_back, remembers=remembers)
        return self._with_users_between(seen, [*own, *(p for p in self._assistants if p < until)])  # type: ignore[arg-type]

    def _own_until(self, member: str, until: int) -> Mapping[int, BaseMessage | None]:
        """By position, what a member has said among the first `until` messages, as it sees that itself."""
        positions = self._positions_by_author.get(member)
        if positions is None:
            return {}
        own = self._own.setdefault(member, {})
        for position in positions[len(own) :]:
            own[position] = view = _own(self._messages[position], position, self._names[member])
            if view is None:
                self._have_empty.add(member)
        if positions[-1] < until:
            return own
        return {position: view for position, view in own.items() if position < until}

    def _seen_by_others(self, until: int, mode: AgentNameMode) -> list[BaseMessage]:
        """The messages as all those see them who have said none of them."""
        if self._last_view is None or self._last_view[:2] != (until, mode):
            seen = self._heard_until(until, mode)[:until]
            if self._has_unheard:
                view = with_users_words(seen)
            else:
                view = self._with_users_between(seen, [p for p in self._assistants if p < until])  # type: ignore[arg-type]
            self._last_view = (until, mode, view)
        return self._last_view[2]

    def _with_users_between(self, seen: list[BaseMessage], assistants: list[int]) -> list[BaseMessage]:
        """The same as `with_users_words`, where all messages are seen: only the assistants' are looked at."""
        users_before = {position + 1 for position in assistants} | {self._leading_system}
        added = 0
        for position in sorted(users_before.intersection(assistants)):
            before = seen[position + added - 1] if position > self._leading_system else None
            seen.insert(position + added, _users(before))
            added += 1
        if len(seen) - added in users_before:
            seen.append(_users(seen[-1] if len(seen) > self._leading_system else None))
        return seen

    def has_new_messages(self, member: str, since: str | None) -> bool:
        """Whether `member` may see a message of another author behind the one with the id `since`."""
        last = self._last_public_by_another if member == self._last_author else self._last_public
        return max(last, self._last_addressed.get(member, -1)) > self.positions.get(since or "", -1)

    def has_any_since(self, given: Sequence[BaseMessage], since: str | None) -> bool:
        """Whether one of the messages that a member is given stands behind the one with the id `since`."""
        last = self.positions.get(since or "", -1)
        return any(self.positions.get(id_in_transcript(str(message.id)), -1) > last for message in given)

    def _heard_until(self, until: int, mode: AgentNameMode) -> list[BaseMessage | None]:
        heard = self._heard.setdefault(mode, [])
        for position in range(len(heard), until):
            heard.append(view := self._heard_by_others(self._messages[position], position, mode))
            self._has_unheard |= view is None
        return heard

    def _heard_by_others(self, message: BaseMessage, position: int, mode: AgentNameMode) -> BaseMessage | None:
        if isinstance(message, ToolMessage | FunctionMessage | RemoveMessage):
            return None
        if isinstance(message, AIMessage):
            if not message.name:
                return _own(message, position)
            return _heard(message, position, as_heard(message), self._name_in_prompts(message), mode)
        content = user_content(message.content)
        if isinstance(message, SystemMessage):
            if position < self._leading_system:
                return _without_own_keys(message) if content else None
            return _heard(message, position, content, _SYSTEM, mode)
        name = self._name_in_prompts(message)
        if name is None and mode == "inline" and "<name>" in str(content):
            # A user's words in the form that tells of a member: they are not the member's.
            name = "user_" if "user" in self._names.values() else "user"
        return _heard(message, position, content, name, mode)

    def _name_in_prompts(self, message: BaseMessage) -> str | None:
        if author := self._names.get(author_of(message)):
            return author
        if not message.name:
            return None
        name = provider_name(message.name)
        # Somebody who has a member's name, and is no member.
        return f"{name[:56]}_user" if name in self._names.values() else name


class RunTranscripts:
    """By LangGraph's loop, the transcript that the last turn began with.

    Args:
        names: as of `Transcript`.

    Attributes:
        lock: held while one of them is used.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self.lock = threading.Lock()
        self._transcripts: WeakKeyDictionary[Any, Transcript] = WeakKeyDictionary()

    def of(self, loop: Any, messages: Sequence[BaseMessage]) -> Transcript:
        """The transcript of a run, with all messages of its state."""
        transcript = self._transcripts.get(loop)
        if transcript is None or not transcript.extend_from(messages) or len(transcript) != len(messages):
            transcript = self._transcripts[loop] = Transcript(messages, self._names)
        return transcript


def messages_of(state: Mapping[str, Any]) -> list[BaseMessage]:
    """The messages of a group's state. A reducer of one's own, and an `Overwrite`, may leave texts,
    pairs and dicts as they are."""
    found = state.get("messages")
    messages = found.copy() if type(found) is list else messages_in(found)
    # Few are of other classes than these, and to look for that takes a third of the time.
    if _WORDS.issuperset(map(type, messages)) or all(isinstance(message, BaseMessage) for message in messages):
        return messages
    return convert_to_messages(messages)


def audience_of(message: BaseMessage) -> frozenset[str] | None:
    """The members that may see a message besides its author; None for all members."""
    names = message.additional_kwargs.get(VISIBLE_TO)
    if names is None:
        return None
    return frozenset((names,) if isinstance(names, str) else names)


def with_note(given: list[BaseMessage], note: BaseMessage) -> list[BaseMessage]:
    """The messages that a member is given, and a note to it, which stands for being told to go on."""
    return [*(given[:-1] if given and is_go_on(given[-1]) else given), note]


def with_go_on(given: list[BaseMessage]) -> list[BaseMessage]:
    """The messages that a member is given that remembers all of them, and a new one that has it speak."""
    return with_note(given, HumanMessage(GO_ON, id=f"after:{uuid4()}"))


def is_go_on(message: BaseMessage) -> bool:
    """Whether a message is no user's, but stands where providers want one."""
    return isinstance(message, HumanMessage) and str(message.id or "").startswith(_GO_ON_IDS)


def with_users_words(
    seen: Sequence[BaseMessage | None], kept_back: Collection[int] = (), *, remembers: bool = False
) -> list[BaseMessage]:
    """The messages that are seen, with a user's word where providers want one.

    Args:
        seen: the messages, None for one that is not seen.
        kept_back: the positions of those that the member remembers. It also remembers what stood between them.
        remembers: whether it has a memory of its own, in which an assistant's words may come to stand anywhere.
    """
    sendable: list[BaseMessage] = []
    last: BaseMessage | None = None
    for position, message in enumerate(seen):
        if message is None:
            continue
        if position not in kept_back:
            if isinstance(message, AIMessage) and remembers and not (last and is_go_on(last)):
                sendable.append(HumanMessage(GO_ON, id=f"before:{message.id}"))
            elif isinstance(message, AIMessage) and not isinstance(last, HumanMessage):
                sendable.append(_users(last))
            sendable.append(message)
        if not isinstance(message, SystemMessage):
            last = message
    if not isinstance(last, HumanMessage):
        sendable.append(_users(last))
    return sendable


def _users(before: BaseMessage | None) -> BaseMessage:
    """A user's word behind a message of an assistant, or in front of all."""
    return HumanMessage(GO_ON, id=f"after:{before.id}") if before else HumanMessage(BEGIN, id="begin:")


def _own(message: BaseMessage, position: int, name: str | None = None) -> BaseMessage | None:
    """A message as its author sees it, and one of an assistant without a name as all see it."""
    said = as_said(message)
    return text_message(AIMessage, said, name=name, id=_changed_id(message, position)) if said else None


def _heard(
    message: BaseMessage, position: int, content: Content, name: str | None, mode: AgentNameMode
) -> BaseMessage | None:
    """A message as a user's, under a name."""
    if not content:
        return None
    if name:
        # A group in a group is told of authors in the text: who reads names there is not told so again.
        content = (
            _inline(content, name) if mode == "inline" else map_text(content, lambda t: without_inline_name(t, name))
        )
    if isinstance(message, HumanMessage) and message.name == name and message.content == content and message.id:
        return _without_own_keys(message)
    if isinstance(content, str):
        return text_message(HumanMessage, content, name=name, id=_changed_id(message, position))
    return HumanMessage(content, name=name, id=_changed_id(message, position))


def _inline(content: Content, name: str) -> Content:
    if isinstance(content, str):
        return with_inline_name(content, name)
    words = "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content if is_text(part))
    others = [part for part in content if not is_text(part)]
    return [{"type": "text", "text": with_inline_name(words, name)}, *others]


def _changed_id(message: BaseMessage, position: int) -> str:
    return f"{_HEARD}{message.id or position}"


def id_in_transcript(id: str) -> str:
    """The id in the transcript of a message that a member was given under another one."""
    return id.removeprefix(_HEARD)


def _without_own_keys(message: BaseMessage) -> BaseMessage:
    # The audience is no business of a reader, and a group inside a member would take it for its own.
    kept = {key: value for key, value in message.additional_kwargs.items() if key not in (VISIBLE_TO, SAID_BY)}
    if len(kept) == len(message.additional_kwargs):
        return message
    return message.model_copy(update={"additional_kwargs": kept})
