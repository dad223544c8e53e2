"""Speakers: the rules that choose the next member of a chat group.

A speaker is one of these, or any function, sync or async, `(state) -> name | names | None`; None ends the conversation.
A handoff by a member goes before every speaker.
"""

from __future__ import annotations

import inspect
import random as _random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig

from agentmatrix.chat.conversation import Conversation
from agentmatrix.errors import BuildError, SpeakerError

__all__ = [
    "Choice",
    "Fallback",
    "Selection",
    "Speaker",
    "as_speaker",
    "broadcast",
    "free",
    "handoff",
    "random",
    "round_robin",
]


class Fallback(NamedTuple):
    """What a speaker returns that could not choose by itself.

    Attributes:
        choice: a name, several, or None.
        reason: why it could not, and who has chosen.
    """

    choice: Any
    reason: str


Choice = str | Sequence[str] | Fallback | None


class Selection(NamedTuple):
    """The members that speak next.

    Attributes:
        names: the members; nobody ends the conversation.
        fallback: why the speaker could not choose by itself; None if it could.
    """

    names: list[str]
    fallback: str | None = None


class Speaker:
    """Chooses the next member.

    Args:
        choose: called with the conversation and the config; returns a name, several names (they speak at once), or
            None, which ends the conversation; in a `Fallback`, if another speaker has chosen in its place.
        achoose: the same, async; by default `choose`.
        label: the name of the speaker in stop reasons and errors.
        names: the members that the speaker names, which must be in the group.
        is_free: whether it is free conversation: members speak when they want, and nobody is chosen.
        is_pure: whether it neither asks a model nor calls a function of the user: to ask it once more costs nothing.
    """

    def __init__(
        self,
        choose: Callable[[Conversation, RunnableConfig], Choice],
        achoose: Callable[[Conversation, RunnableConfig], Any] | None = None,
        label: str = "speaker",
        *,
        names: Iterable[str] = (),
        is_free: bool = False,
        is_pure: bool = False,
    ) -> None:
        self._choose = choose
        self._achoose = achoose
        self.label = label
        self.names = frozenset(names)
        self.is_free, self.is_pure = is_free, is_pure

    def next(self, conversation: Conversation, config: RunnableConfig) -> Selection:
        """The members that speak next."""
        return _checked(self._choose(conversation, config), conversation, self.label)

    async def anext(self, conversation: Conversation, config: RunnableConfig) -> Selection:
        """The same as `next`, async."""
        if self._achoose is None:
            return self.next(conversation, config)
        return _checked(await self._achoose(conversation, config), conversation, self.label)


def _checked(choice: Any, conversation: Conversation, label: str) -> Selection:
    fallback = None
    if isinstance(choice, Fallback):
        choice, fallback = choice
    if not (choice is None or isinstance(choice, str | Iterable)):
        raise SpeakerError(
            f"{label} chose {choice!r}, which is no name: choose of {', '.join(conversation.members)}, or None"
        )
    names = [choice] if isinstance(choice, str) else list(choice or ())
    members = conversation.members if len(names) < 2 else frozenset(conversation.members)
    for name in names:
        if name not in members:
            raise SpeakerError(
                f"{label} chose {name!r}, who is not in the group: choose of {', '.join(conversation.members)}, or None"
            )
    return Selection(list(dict.fromkeys(names)), fallback)


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

    return Speaker(choose, label="round_robin", is_pure=True)


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

    return Speaker(choose, label="random", is_pure=True)


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

    return Speaker(choose, label="handoff", names=[first] if first else (), is_pure=True)


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


def as_speaker(speaker: Any) -> Speaker:
    """The speaker itself, or one that calls a function of the state."""
    if isinstance(speaker, Speaker):
        return speaker
    if not callable(speaker):
        raise BuildError(f"speaker={speaker!r} is no speaker: pass round_robin(), or a function (state) -> name")
    label = getattr(speaker, "__name__", type(speaker).__name__)
    if str(getattr(speaker, "__module__", "")).startswith(f"{__package__}."):
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
