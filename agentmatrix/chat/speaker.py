"""Who speaks next in a chat group.

A speaker is one of these, or any function, sync or async, `(state) -> name | names | None`; None ends the conversation.
What a member hands over to by itself comes first under every speaker.
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

from agentmatrix.chat.conversation import Conversation, audience_of
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
    """Chooses who speaks next.

    Args:
        choose: called with the conversation; returns a name, several names (they speak at once), or None: nobody.
        achoose: the same, async; by default `choose`.
        label: what the choice is called where a conversation ends because nobody was chosen.
        names: the members that it names, which must be in the group.
        is_free: whether members speak when they want, and nobody chooses.
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
        """The names of those who speak next; none ends the conversation."""
        return _checked(self._choose(conversation, config), conversation, self.label)

    async def anext(self, conversation: Conversation, config: RunnableConfig) -> list[str]:
        """The names of those who speak next; none ends the conversation."""
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


def round_robin() -> Speaker:
    """The members in their order, again and again; after a handoff it goes on behind whoever spoke last."""

    def choose(conversation: Conversation, config: RunnableConfig) -> str:
        members = conversation.members
        last = conversation.last_floor
        return members[(members.index(last) + 1) % len(members)] if last in members else members[0]

    return Speaker(choose, label="round_robin")


def random(seed: int | str | None = None, *, repeat: bool = False) -> Speaker:
    """Anybody.

    Args:
        seed: makes the sequence the same in every run.
        repeat: let a member speak twice in a row.
    """

    def choose(conversation: Conversation, config: RunnableConfig) -> str:
        # Drawn from the turn's own number, so that a resumed run draws the same again.
        draw = _random.Random(None if seed is None else f"{seed}:{conversation.turns}")
        others = [m for m in conversation.members if repeat or m != conversation.last_floor]
        return draw.choice(others or conversation.members)

    return Speaker(choose, label="random")


def handoff(first: str | None = None) -> Speaker:
    """Whoever the last speaker hands over to, by `Command(goto=)`; without a handoff the conversation ends.

    Args:
        first: who begins; by default the first member.
    """

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        return None if conversation.turns else first or conversation.members[0]

    return Speaker(choose, label="handoff", names=[first] if first else ())


def broadcast() -> Speaker:
    """All members at once, each from the same transcript. What they say stands in the order of their names."""
    return Speaker(lambda conversation, config: conversation.members, label="broadcast")


def free() -> Speaker:
    """Everybody speaks when they want: no turns, and nobody waits for anybody.

    All members hear the transcript at the beginning. Whoever is not at work begins again when somebody else has said
    something, and hears all that is new; an answer without words is silence. Those who begin together hear the same.
    What is said stands in the order in which it was. The conversation ends in `"silence"` when nobody is at work and
    nobody has anything new to hear, by its stop, which cuts off whoever is still at work, or by the group's bound,
    which here is of the turns of one member. A question to a person (`human()`, `interrupt`) lets those who are at work
    finish and pauses the group; a handoff calls a member who has nothing new to hear.
    """
    return Speaker(lambda conversation, config: None, label="free", is_free=True)


def mention(fallback: Any = None) -> Speaker:
    """Whoever is named as `@name` in what was said last, in the order of the mentions. Names of nobody are just text.

    Args:
        fallback: the speaker that chooses where nobody is mentioned; by default the conversation ends there.
    """
    otherwise = as_speaker(fallback) if fallback is not None else Speaker(lambda c, config: None)

    def mentioned(conversation: Conversation) -> list[str]:
        # Only what was said in the last turn counts: after a silent one, an older mention is used up.
        said = conversation.last_said if conversation.turns else conversation.messages[-1:]
        longest_first = sorted(conversation.members, key=len, reverse=True)
        names = re.compile(rf"@({'|'.join(map(re.escape, longest_first))})(?![\w-])")
        return [name for message in said for name in names.findall(message.text)]

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        return mentioned(conversation) or otherwise.next(conversation, config)

    async def achoose(conversation: Conversation, config: RunnableConfig) -> Choice:
        return mentioned(conversation) or await otherwise.anext(conversation, config)

    return Speaker(choose, achoose, label="mention", names=otherwise.names)


def selector(
    model: Runnable[Any, Any],
    *,
    prompt: str | None = None,
    descriptions: Mapping[str, str] | None = None,
    retries: int = 2,
    fallback: Any = None,
) -> Speaker:
    """A chat model reads the transcript and names who speaks next.

    Args:
        model: the chat model.
        prompt: instructions; `{members}` stands for the list of members with their descriptions.
        descriptions: what each member is good for.
        retries: how often the model is asked again after an answer that names nobody, or several.
        fallback: the speaker that chooses when the model keeps failing to; by default `round_robin()`.
    """
    if not isinstance(model, Runnable):
        raise BuildError(f"selector({model!r}): give a chat model")
    if not isinstance(retries, int) or retries < 0:
        raise BuildError(f"selector(retries={retries!r}): name a number that is not negative")
    otherwise = as_speaker(fallback if fallback is not None else round_robin())
    # Its answer is a name for us, not a contribution that a reader of the stream should see.
    quiet = model.with_config(tags=[TAG_NOSTREAM])

    def asked(conversation: Conversation) -> list[BaseMessage]:
        return _question(conversation, prompt or _SELECT, descriptions or {})

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        question = asked(conversation)
        for _ in range(retries + 1):
            answer = quiet.invoke(question, config)
            if name := _named(answer, conversation.members):
                return name
            question = _again(question, answer, conversation.members)
        return otherwise.next(conversation, config)

    async def achoose(conversation: Conversation, config: RunnableConfig) -> Choice:
        question = asked(conversation)
        for _ in range(retries + 1):
            answer = await quiet.ainvoke(question, config)
            if name := _named(answer, conversation.members):
                return name
            question = _again(question, answer, conversation.members)
        return await otherwise.anext(conversation, config)

    return Speaker(choose, achoose, label="selector", names={*(descriptions or ()), *otherwise.names})


_SELECT = """You lead a conversation between these members:
{members}
Read what has been said and choose who speaks next. Answer with one name and nothing else."""


def _question(conversation: Conversation, prompt: str, descriptions: Mapping[str, str]) -> list[BaseMessage]:
    members = "\n".join(f"- {m}: {descriptions[m]}" if m in descriptions else f"- {m}" for m in conversation.members)
    heard = [message for message in conversation.messages if audience_of(message) is None]
    transcript = "\n".join(f"{message.name or message.type}: {message.text}" for message in heard)
    return [SystemMessage(prompt.replace("{members}", members)), HumanMessage(transcript + "\n\nWho speaks next?")]


def _again(question: list[BaseMessage], answer: Any, members: Sequence[str]) -> list[BaseMessage]:
    said = answer if isinstance(answer, BaseMessage) else HumanMessage(str(answer))
    return [*question, said, HumanMessage(f"Answer with exactly one of these names: {', '.join(members)}")]


def _named(answer: Any, members: Sequence[str]) -> str | None:
    """The one member that the answer names, longer names before those that they contain."""
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
    """A speaker, or a function of the state as one."""
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
