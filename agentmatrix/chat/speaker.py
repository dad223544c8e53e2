"""Speakers: the rules that choose the next member of a chat group.

A speaker is one of these, or any function, sync or async, `(state) -> name | names | None`; None ends the conversation.
A handoff by a member goes before every speaker.
"""

from __future__ import annotations

import inspect
import random as _random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.constants import TAG_NOSTREAM

from agentmatrix.chat.conversation import Conversation
from agentmatrix.chat.transcript import audience_of
from agentmatrix.errors import BuildError, SpeakerError

__all__ = [
    "Speaker",
    "as_speaker",
    "broadcast",
    "free",
    "handoff",
    "mention",
    "random",
    "round_robin",
    "selector",
]

Choice = str | Sequence[str] | None


class Speaker:
    """Chooses the next member.

    Args:
        choose: called with the conversation and the config; returns a name, several names (they speak at once), or
            None, which ends the conversation.
        achoose: the same, async; by default `choose`.
        label: the name of the speaker in stop reasons and errors.
        names: the members that the speaker names, which must be in the group.
        is_free: whether it is free conversation: members speak when they want, and nobody is chosen.
    """

    def __init__(
        self,
        choose: Callable[[Conversation, RunnableConfig], Choice],
        achoose: Callable[[Conversation, RunnableConfig], Any] | None = None,
        label: str = "speaker",
        *,
        names: Iterable[str] = (),
        is_free: bool = False,
    ) -> None:
        self._choose = choose
        self._achoose = achoose
        self.label = label
        self.names = frozenset(names)
        self.is_free = is_free

    def next(self, conversation: Conversation, config: RunnableConfig) -> list[str]:
        """The members that speak next; an empty list ends the conversation."""
        return _checked(self._choose(conversation, config), conversation, self.label)

    async def anext(self, conversation: Conversation, config: RunnableConfig) -> list[str]:
        """The same as `next`, async."""
        if self._achoose is None:
            return self.next(conversation, config)
        return _checked(await self._achoose(conversation, config), conversation, self.label)


def _checked(choice: Any, conversation: Conversation, label: str) -> list[str]:
    members = ", ".join(conversation.members)
    if not (choice is None or isinstance(choice, str | Iterable)):
        raise SpeakerError(f"{label} chose {choice!r}, which is no name: choose of {members}, or None")
    names = [choice] if isinstance(choice, str) else list(choice or ())
    for name in names:
        if name not in conversation.members:
            raise SpeakerError(f"{label} chose {name!r}, who is not in the group: choose of {members}, or None")
    return list(dict.fromkeys(names))


def round_robin(*, keep_floor: bool = False) -> Speaker:
    """The members in order, again and again. After a handoff it goes on behind the member of the last turn.

    Args:
        keep_floor: go on, with a user's next words on the same thread, behind the member that took the last turn;
            otherwise each run begins with the first member.
    """

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        members = conversation.members
        last = conversation.last_turn_by
        if keep_floor and not conversation.turns:
            last, handed_over = conversation.kept_floor
            if handed_over:
                return handed_over
        return members[(members.index(last) + 1) % len(members)] if last in members else members[0]

    return Speaker(choose, label="round_robin")


def random(seed: int | str | None = None, *, repeat: bool = False) -> Speaker:
    """A random member.

    Args:
        seed: makes the sequence the same in every run.
        repeat: whether a member may speak twice in a row.
    """

    def choose(conversation: Conversation, config: RunnableConfig) -> str:
        # Seeded by the number of the turn, so that a resumed run draws the same member again.
        draw = _random.Random(None if seed is None else f"{seed}:{conversation.turns}")
        others = [m for m in conversation.members if repeat or m != conversation.last_turn_by]
        return draw.choice(others or conversation.members)

    return Speaker(choose, label="random")


def handoff(first: str | None = None, *, keep_floor: bool = True) -> Speaker:
    """The member that the last one hands over to, by `Command(goto=)`. Without a handoff the conversation ends; words
    that are said into the run go to the member that has the floor.

    Args:
        first: the member that begins a thread; by default the first member.
        keep_floor: a user's next words on the same thread go to the member that has the floor, as in a swarm; otherwise
            each run begins with `first`. Without a checkpointer nothing is known of the run before.
    """

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        if conversation.turns:
            return conversation.last_turn_by if conversation.has_new_words else None
        by, handed_over = conversation.kept_floor if keep_floor else (None, [])
        return handed_over or by or first or conversation.members[0]

    return Speaker(choose, label="handoff", names=[first] if first else ())


def broadcast() -> Speaker:
    """All members at once, each from the same transcript. Their messages are added in the order of the names."""
    return Speaker(lambda conversation, config: conversation.members, label="broadcast")


def free() -> Speaker:
    """Free conversation: members speak when they want, and no member waits for another.

    All members begin with the transcript. A member that is not running begins another turn as soon as there is a
    message of another member that it has not seen. Members that begin together see the same messages. An answer
    without text is silence. Messages are added in the order in which they are said.

    The conversation ends:

    - with `"silence"`, when no member is running and none has a new message to see;
    - by its stop, which cancels the members that are running;
    - by the group's bound, which here counts the turns of one member.

    An interrupt (`human()`, `interrupt`) lets the running members finish, and pauses the group. A handoff starts a
    member that has no new message to see.
    """
    return Speaker(lambda conversation, config: None, label="free", is_free=True)


def mention(fallback: Any = None) -> Speaker:
    """The members that the last turn mentions as `@name`, in that order. Other names after an `@` are plain text.

    Args:
        fallback: the speaker that chooses where no member is mentioned; by default the conversation ends there.
    """
    fallback_speaker = as_speaker(fallback) if fallback is not None else Speaker(lambda c, config: None)

    def mentioned(conversation: Conversation) -> list[str]:
        # Only the last turn counts, also a silent one: an older mention has been answered.
        said = conversation.last_said if conversation.turns else conversation.messages[-1:]
        longest_first = sorted(conversation.members, key=len, reverse=True)
        names = re.compile(rf"@({'|'.join(map(re.escape, longest_first))})(?![\w-])")
        return [name for message in said for name in names.findall(message.text)]

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        return mentioned(conversation) or fallback_speaker.next(conversation, config)

    async def achoose(conversation: Conversation, config: RunnableConfig) -> Choice:
        return mentioned(conversation) or await fallback_speaker.anext(conversation, config)

    return Speaker(choose, achoose, label="mention", names=fallback_speaker.names)


def selector(
    model: Runnable[Any, Any],
    *,
    prompt: str | None = None,
    descriptions: Mapping[str, str] | None = None,
    retries: int = 2,
    fallback: Any = None,
) -> Speaker:
    """The member that a chat model chooses from the transcript.

    Args:
        model: the chat model.
        prompt: instructions; `{members}` is replaced by the list of members with their descriptions.
        descriptions: for a member, what it is good for.
        retries: how often the model is asked again after an answer that names no member, or several.
        fallback: the speaker that chooses if none of the answers names one member; by default `round_robin()`.
    """
    if not isinstance(model, Runnable):
        raise BuildError(f"selector({model!r}): give a chat model")
    if not isinstance(retries, int) or retries < 0:
        raise BuildError(f"selector(retries={retries!r}): name a number that is not negative")
    fallback_speaker = as_speaker(fallback if fallback is not None else round_robin())
    # The answer is a name, and no message for the reader of a stream.
    unstreamed = model.with_config(tags=[TAG_NOSTREAM])

    def first_question(conversation: Conversation) -> list[BaseMessage]:
        return _question(conversation, prompt or _SELECT, descriptions or {})

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        question = first_question(conversation)
        for _ in range(retries + 1):
            answer = unstreamed.invoke(question, config)
            if name := _named(answer, conversation.members):
                return name
            question = _again(question, answer, conversation.members)
        return fallback_speaker.next(conversation, config)

    async def achoose(conversation: Conversation, config: RunnableConfig) -> Choice:
        question = first_question(conversation)
        for _ in range(retries + 1):
            answer = await unstreamed.ainvoke(question, config)
            if name := _named(answer, conversation.members):
                return name
            question = _again(question, answer, conversation.members)
        return await fallback_speaker.anext(conversation, config)

    return Speaker(choose, achoose, label="selector", names={*(descriptions or ()), *fallback_speaker.names})


_SELECT = """You lead a conversation between these members:
{members}
Read what has been said and choose who speaks next. Answer with one name and nothing else."""


def _question(conversation: Conversation, prompt: str, descriptions: Mapping[str, str]) -> list[BaseMessage]:
    members = "\n".join(f"- {m}: {descriptions[m]}" if m in descriptions else f"- {m}" for m in conversation.members)
    public = [message for message in conversation.messages if audience_of(message) is None]
    transcript = "\n".join(f"{message.name or message.type}: {message.text}" for message in public)
    return [SystemMessage(prompt.replace("{members}", members)), HumanMessage(transcript + "\n\nWho speaks next?")]


def _again(question: list[BaseMessage], answer: Any, members: Sequence[str]) -> list[BaseMessage]:
    said = answer if isinstance(answer, BaseMessage) else HumanMessage(str(answer))
    return [*question, said, HumanMessage(f"Answer with exactly one of these names: {', '.join(members)}")]


def _named(answer: Any, members: Sequence[str]) -> str | None:
    """The member that the answer names, if it names one. Longer names go before shorter ones that they contain."""
    text = answer.text if isinstance(answer, BaseMessage) else str(answer)
    if text.strip() in members:
        return text.strip()
    found: set[str] = set()
    for name in sorted(members, key=len, reverse=True):
        rest = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
        if rest != text:
            found.add(name)
            text = rest
    return found.pop() if len(found) == 1 else None


def as_speaker(speaker: Any) -> Speaker:
    """The speaker itself, or one that calls a function of the state."""
    if isinstance(speaker, Speaker):
        return speaker
    if not callable(speaker):
        raise BuildError(f"speaker={speaker!r} is no speaker: pass round_robin(), or a function (state) -> name")
    label = getattr(speaker, "__name__", type(speaker).__name__)
    if getattr(speaker, "__module__", None) == __name__:
        raise BuildError(f"speaker={label} is what makes a speaker: call it, {label}(...)")

    def choose(conversation: Conversation, config: RunnableConfig) -> Any:
        choice = speaker(conversation.state)
        if inspect.isawaitable(choice):
            if inspect.iscoroutine(choice):
                choice.close()
            raise TypeError(f"the speaker {label} is async: run this group with ainvoke or astream")
        return choice

    async def achoose(conversation: Conversation, config: RunnableConfig) -> Any:
        choice = speaker(conversation.state)
        return await choice if inspect.isawaitable(choice) else choice

    return Speaker(choose, achoose, label=label)
