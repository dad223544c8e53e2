"""The middleware of a group: what a member says passes it before it is in the transcript, and so do words from outside.

A message that takes the place of another one has its id, unless it is one of several; its audience too, unless it names
one. What has been streamed already is withdrawn by a `RemoveMessage` in the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph.message import push_message
from langgraph.types import Command

from agentmatrix.agent import messages_in
from agentmatrix.chat.contribution import public_messages
from agentmatrix.chat.conversation import EVENT_LOG, Conversation, Event
from agentmatrix.chat.transcript import VISIBLE_TO, audience_of, messages_of
from agentmatrix.chat.turn import GroupSettings, Turn, coerce_state
from agentmatrix.middleware import BlockedMessage, MiddlewareResult
from agentmatrix.pregel.callback_handlers import was_streamed
from agentmatrix.pregel.task_config import updates_of

__all__ = ["apassed_turn", "apassed_words", "conversation_of", "passed_turn", "passed_words"]


def passed_turn(update: Any, turn: Turn, member: str, group: GroupSettings, config: RunnableConfig) -> Any:
    """What a turn has come to, with the messages that have passed.

    Args:
        update: the update of the group's state, or a command for a graph further out.
        turn: the turn.
        member: the name of the member.
        group: the settings of the group.
        config: the config of the member's task.
    """
    if group.middleware is None or not (said := _messages_in(update)):
        return update
    about = conversation_of(turn.at.state, group)
    passed = group.middleware.apply(said, lambda _: member, partial(_hearers, member, group), about)
    return _replaced(update, said, passed, turn, member, group, config)


async def apassed_turn(update: Any, turn: Turn, member: str, group: GroupSettings, config: RunnableConfig) -> Any:
    """The same as `passed_turn`, async."""
    if group.middleware is None or not (said := _messages_in(update)):
        return update
    about = conversation_of(turn.at.state, group)
    passed = await group.middleware.aapply(said, lambda _: member, partial(_hearers, member, group), about)
    return _replaced(update, said, passed, turn, member, group, config)


def passed_words(
    words: Sequence[BaseMessage], state: Mapping[str, Any], group: GroupSettings
) -> tuple[list[BaseMessage], Event]:
    """Words from outside that have passed, and the event of them."""
    if group.middleware is None:
        return _heard([(word, word) for word in words], [])
    about = conversation_of(state, group)
    return _heard(*group.middleware.apply(words, lambda word: word.name or "user", lambda _: group.members, about))


async def apassed_words(
    words: Sequence[BaseMessage], state: Mapping[str, Any], group: GroupSettings
) -> tuple[list[BaseMessage], Event]:
    """The same as `passed_words`, async."""
    if group.middleware is None:
        return _heard([(word, word) for word in words], [])
    about = conversation_of(state, group)
    return _heard(
        *await group.middleware.aapply(words, lambda word: word.name or "user", lambda _: group.members, about)
    )


def conversation_of(
    state: Mapping[str, Any], group: GroupSettings, update: Mapping[str, Any] | None = None
) -> Conversation:
    """The conversation of a group.

    Args:
        state: the state of the group.
        group: its settings.
        update: the update of a turn that is not in the state yet.
    """
    values = {key: value for key, value in state.items() if key != EVENT_LOG}
    messages, events = messages_of(state), state.get(EVENT_LOG, [])
    if update is not None:
        values["messages"] = messages = [*messages, *update["messages"]]
        events = [*events, *update[EVENT_LOG]]
    return Conversation(group.members, coerce_state(group.state_schema, values), messages, events)


def _messages_in(update: Any) -> list[BaseMessage]:
    """The messages of a turn, or of a command to a graph further out."""
    values = dict(updates_of(update)) if isinstance(update, Command) else update
    return [message for message in messages_in(values.get("messages", [])) if isinstance(message, BaseMessage)]


def _hearers(sender: str, group: GroupSettings, message: BaseMessage) -> list[str]:
    audience = audience_of(message)
    return [name for name in group.members if name != sender and (audience is None or name in audience)]


def _replaced(
    update: Any,
    said: list[BaseMessage],
    passed: MiddlewareResult,
    turn: Turn,
    member: str,
    group: GroupSettings,
    config: RunnableConfig,
) -> Any:
    """The update with the messages that have passed, and what is kept of the others."""
    kept = _signed(passed, turn, member, group)
    _withdraw(said, kept, config)
    if passed.blocked:
        get_stream_writer()({"member": member, "blocked": passed.blocked})
    if isinstance(update, Command):
        return Command(graph=update.graph, goto=update.goto, update={**dict(updates_of(update)), "messages": kept})
    event = {**update[EVENT_LOG][-1], "message_ids": [str(message.id) for message in kept]}
    if passed.blocked:
        event["blocked"] = passed.blocked
    return {**update, "messages": kept, EVENT_LOG: [*update[EVENT_LOG][:-1], event]}


def _signed(passed: MiddlewareResult, turn: Turn, member: str, group: GroupSettings) -> list[BaseMessage]:
    """The messages, each under the member's name, with an id and an audience."""
    kept: list[BaseMessage] = []
    for original, message in passed.messages:
        if message is original:
            kept.append(message)
            continue
        has_id = any(other.id == original.id for other in kept)
        id = turn.ids.given(None) if has_id else str(original.id)
        if VISIBLE_TO in original.additional_kwargs and audience_of(message) is None:
            audience = {VISIBLE_TO: original.additional_kwargs[VISIBLE_TO]}
            message = message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, **audience}})
        kept += public_messages(
            [message], member, group.members, group.audience_rule, partial(_always, id), is_remembered=turn.remembers
        )
    return kept


def _always(id: str, given: str | None) -> str:
    return id


def _withdraw(said: list[BaseMessage], kept: list[BaseMessage], config: RunnableConfig) -> None:
    """Withdraws what has been streamed and is not kept; what stands in its place under its id is streamed after it."""
    now = {message.id: message for message in kept}
    for message in said:
        replaced = now.get(message.id)
        if replaced != message and was_streamed(config, str(message.id)):
            push_message(RemoveMessage(id=str(message.id)), state_key=None)
            if replaced is not None:
                push_message(replaced, state_key=None)


def _heard(
    passed: list[tuple[BaseMessage, BaseMessage]], blocked: list[BlockedMessage]
) -> tuple[list[BaseMessage], Event]:
    words: list[BaseMessage] = []
    for original, message in passed:
        has_id = any(other.id == original.id for other in words)
        words.append(message if message is original or has_id else message.model_copy(update={"id": original.id}))
    event = Event(heard=[str(message.id) for message in words])
    if blocked:
        event["blocked"] = blocked
    return words, event
