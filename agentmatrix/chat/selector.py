"""Speakers that read: `selector`, where a chat model chooses, and `mention`, where the last words do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, FunctionMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.constants import TAG_NOSTREAM
from pydantic import Field, ValidationError, create_model

from agentmatrix.chat.authorship import author_of, without_inline_name
from agentmatrix.chat.content import as_said
from agentmatrix.chat.conversation import Conversation
from agentmatrix.chat.history import History, HistoryRule
from agentmatrix.chat.mentions import mentioned_names, names_in
from agentmatrix.chat.speaker import Choice, Fallback, Speaker, as_speaker, round_robin
from agentmatrix.chat.transcript import audience_of
from agentmatrix.errors import BuildError, SpeakerError

__all__ = ["mention", "selector"]

_log = logging.getLogger(__name__)

Candidates = Iterable[str] | Callable[[Any], Iterable[str]]


def mention(fallback: Any = None) -> Speaker:
    """The members that the last turn, and words from outside since then, mention as `@name`, in that order and in any
    case. Other names after an `@` are plain text, and so are mail addresses and paths.

    Args:
        fallback: the speaker that chooses where no member is mentioned; by default the conversation ends there.
    """
    fallback_speaker = as_speaker(fallback) if fallback is not None else Speaker(lambda c, config: None, is_pure=True)

    def mentioned(conversation: Conversation) -> list[str]:
        # Only the last turn counts, also a silent one, and what was said from outside: an older mention was answered.
        return [
            name
            for message in conversation.new_messages
            for name in mentioned_names(message.text, conversation.members)
        ]

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        return mentioned(conversation) or fallback_speaker.next(conversation, config).names

    async def achoose(conversation: Conversation, config: RunnableConfig) -> Choice:
        return mentioned(conversation) or (await fallback_speaker.anext(conversation, config)).names

    names, is_pure = fallback_speaker.names, fallback_speaker.is_pure
    return Speaker(choose, achoose, label="mention", names=names, is_pure=is_pure)


def selector(
    model: Runnable[Any, Any],
    *,
    prompt: str | None = None,
    descriptions: Mapping[str, str] | None = None,
    candidates: Candidates | None = None,
    allow_repeat: bool = True,
    several: bool = False,
    structured: bool | None = None,
    retries: int = 2,
    fallback: Any = None,
    history: HistoryRule | None = None,
) -> Speaker:
    """The member that a chat model chooses from the transcript.

    A name counts in any case, with Markdown, quotes or thoughts around it. Where the fallback has to choose, the
    group's log, its stream of mode `custom` and the logger of this module say so.

    Args:
        model: the chat model.
        prompt: instructions; `{members}` is replaced by the list of members with their descriptions.
        descriptions: for a member, what it is good for.
        candidates: the members to choose from, or a function of the state that returns them; by default all. Of nobody
            the conversation ends, and one alone is not asked for.
        allow_repeat: whether the member that took the last turn may be chosen.
        several: whether the model may choose several, who then speak at once.
        structured: whether to have the model answer by a schema; by default if its profile says that it can.
        retries: how often the model is asked again after an answer that names no member, or several.
        fallback: the speaker that chooses if none of the answers names one member; by default `round_robin()`.
        history: how much of the transcript the model is given, in a form of `history=` of a group; no summary.
    """
    if not isinstance(model, Runnable):
        raise BuildError(f"selector({model!r}): give a chat model")
    if not isinstance(retries, int) or retries < 0:
        raise BuildError(f"selector(retries={retries!r}): name a number that is not negative")
    fallback_speaker = as_speaker(fallback if fallback is not None else round_robin())
    is_structured = _has_structured_output(model) if structured is None else structured
    if is_structured and not isinstance(model, BaseChatModel):
        raise BuildError(f"selector(structured=True): {model!r} is no chat model, which could answer by a schema")
    names = candidates if candidates is not None and not callable(candidates) else ()
    fixed = (names,) if isinstance(names, str) else tuple(names)
    instructions = prompt or (_SELECT_SEVERAL if several else _SELECT)
    if history is not None and History(history, ()).sums_up:
        raise BuildError("selector(history=) makes no summaries: give a limit or a function")

    def question_of(conversation: Conversation, names: Sequence[str], config: RunnableConfig) -> list[BaseMessage]:
        messages = list(conversation.messages)
        if history is not None:
            messages = History(history, conversation.members).shorten(messages, None, None, config).messages
        return _question(messages, conversation.members, names, instructions, descriptions)

    async def aquestion_of(
        conversation: Conversation, names: Sequence[str], config: RunnableConfig
    ) -> list[BaseMessage]:
        messages = list(conversation.messages)
        if history is not None:
            short = await History(history, conversation.members).ashorten(messages, None, None, config)
            messages = short.messages
        return _question(messages, conversation.members, names, instructions, descriptions)

    def open_to(conversation: Conversation) -> list[str]:
        chosen = candidates(conversation.state) if callable(candidates) else fixed or conversation.members
        chosen = [chosen] if isinstance(chosen, str) else list(chosen)
        if wrong := [name for name in chosen if name not in conversation.members]:
            raise SpeakerError(
                f"selector(candidates=) gives {wrong[0]!r}, who is not in the group: "
                f"name some of {', '.join(conversation.members)}"
            )
        return [name for name in chosen if allow_repeat or name != conversation.last_turn_by]

    def asked(names: Sequence[str]) -> Runnable[Any, Any]:
        # The answer is a name, and no message for the reader of a stream.
        asked = model.with_structured_output(_schema(names, several)) if is_structured else model  # type: ignore[attr-defined]
        return asked.with_config(tags=[TAG_NOSTREAM])

    def read(answer: Any, names: Sequence[str]) -> list[str]:
        found = names_in(_words(answer), names)
        return found if several or len(found) == 1 else []

    def fall_back(names: Sequence[str], answers: Sequence[Any]) -> str:
        words = "; ".join(repr(_words(answer)[:60]) for answer in answers)
        reason = f"the model named no member of {', '.join(names)} ({words}): {fallback_speaker.label} chose"
        _log.warning("selector: %s", reason)
        return reason

    def choose(conversation: Conversation, config: RunnableConfig) -> Choice:
        names = open_to(conversation)
        if len(names) < 2:
            return names
        chosen_by, question, answers = asked(names), question_of(conversation, names, config), []
        for _ in range(retries + 1):
            try:
                answer = chosen_by.invoke(question, config)
            except (OutputParserException, ValidationError) as error:
                answer = _Unreadable(error)
            if found := read(answer, names):
                return found
            answers.append(answer)
            question = _again(question, answer, names, several)
        choice = fallback_speaker.next(replace(conversation, members=tuple(names)), config).names
        return Fallback(choice, fall_back(names, answers))

    async def achoose(conversation: Conversation, config: RunnableConfig) -> Choice:
        names = open_to(conversation)
        if len(names) < 2:
            return names
        chosen_by, question, answers = asked(names), await aquestion_of(conversation, names, config), []
        for _ in range(retries + 1):
            try:
                answer = await chosen_by.ainvoke(question, config)
            except (OutputParserException, ValidationError) as error:
                answer = _Unreadable(error)
            if found := read(answer, names):
                return found
            answers.append(answer)
            question = _again(question, answer, names, several)
        choice = (await fallback_speaker.anext(replace(conversation, members=tuple(names)), config)).names
        return Fallback(choice, fall_back(names, answers))

    return Speaker(choose, achoose, label="selector", names={*(descriptions or ()), *fixed, *fallback_speaker.names})


_SELECT = """You lead a conversation between these members:
{members}
Read what has been said and choose who speaks next. Answer with one name and nothing else."""

_SELECT_SEVERAL = """You lead a conversation between these members:
{members}
Read what has been said and choose who speaks next, one or several at once. Answer with their names and nothing else."""


class _Unreadable:
    """An answer that does not keep to the schema."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __str__(self) -> str:
        return ""


def _has_structured_output(model: Any) -> bool:
    profile = getattr(model, "profile", None) if isinstance(model, BaseChatModel) else None
    return bool(isinstance(profile, Mapping) and profile.get("structured_output"))


def _schema(names: Sequence[str], several: bool) -> Any:
    one: Any = Literal[tuple(names)]
    kind: Any = list[one] if several else one
    return create_model("NextSpeaker", next=(kind, Field(description="Who speaks next.")))


def _words(answer: Any) -> str:
    """What an answer says: a model's words, or the names in an answer by the schema."""
    if isinstance(answer, BaseMessage):
        return as_said(answer)
    chosen = answer.get("next") if isinstance(answer, Mapping) else getattr(answer, "next", answer)
    return ", ".join(map(str, chosen)) if isinstance(chosen, list | tuple) else str(chosen)


def _question(
    messages: Sequence[BaseMessage],
    all_members: Sequence[str],
    names: Sequence[str],
    prompt: str,
    descriptions: Mapping[str, str] | None,
) -> list[BaseMessage]:
    told = descriptions or {}
    members = "\n".join(f"- {name}: {told[name]}" if name in told else f"- {name}" for name in names)
    transcript = "\n".join(filter(None, (_line(message, all_members) for message in messages)))
    return [SystemMessage(prompt.replace("{members}", members)), HumanMessage(f"{transcript}\n\nWho speaks next?")]


def _line(message: BaseMessage, members: Sequence[str]) -> str:
    """A message as the selector is shown it: what everybody hears."""
    if isinstance(message, ToolMessage | FunctionMessage) or audience_of(message) is not None:
        return ""
    author = message.name or {"human": "user", "ai": "assistant"}.get(message.type, message.type)
    if author in members and not author_of(message):
        author = f"{author}_user"
    words = without_inline_name(as_said(message), message.name)
    return f"{author}: {words}" if words else ""


def _again(question: list[BaseMessage], answer: Any, names: Sequence[str], several: bool) -> list[BaseMessage]:
    """The question once more. An answer without words, such as a tool call, could not be sent back."""
    said = _words(answer)
    many = "one or several" if several else "exactly one"
    once_more = HumanMessage(f"Answer with {many} of these names: {', '.join(names)}")
    return [*question, AIMessage(said), once_more] if said.strip() else [*question, once_more]
