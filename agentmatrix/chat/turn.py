"""What a turn of a member begins with, and the settings of the group that it needs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from agentmatrix.chat.authorship import AgentNameMode
from agentmatrix.chat.claims import Claims
from agentmatrix.chat.contribution import AudienceRule
from agentmatrix.chat.conversation import EVENT_LOG, Event, LogReader
from agentmatrix.chat.history import History
from agentmatrix.chat.message_ids import MessageIds
from agentmatrix.chat.transcript import RunTranscripts, Transcript
from agentmatrix.chat.usage import UsageCounter
from agentmatrix.middleware import MiddlewareChain

__all__ = ["GroupSettings", "Turn", "TurnStart", "coerce_state"]


@dataclass(frozen=True)
class GroupSettings:
    """The settings of a group that each member needs.

    Attributes:
        members: the names of the members.
        state_schema: the schema of the group's state.
        keys: the keys of that schema.
        audience_rule: gives the audience of a message that does not name one.
        counts_usage: whether tokens, calls and seconds are counted.
        history: how much of the transcript a member is given that has no rule of its own; None for all of it.
        names: by member, the name that it has in prompts.
        modes: by member, how it is told who spoke; for others as their kind wants it.
        plain_keys: the keys without a reducer, which take one value a step.
        appends_messages: whether the reducer of messages is LangGraph's own, which puts new messages at the end.
        is_free: whether it is free conversation.
        middleware: what messages pass before they are kept and heard; None for nothing.
        holds: whether words are streamed when they have passed, and not while they are made.
        log: reads the log for the members.
    """

    members: tuple[str, ...]
    state_schema: Any
    keys: frozenset[str]
    audience_rule: AudienceRule
    counts_usage: bool
    history: History | None
    names: Mapping[str, str]
    modes: Mapping[str, AgentNameMode]
    plain_keys: frozenset[str]
    appends_messages: bool
    is_free: bool
    middleware: MiddlewareChain | None
    holds: bool
    log: LogReader = field(default_factory=LogReader, compare=False)

    @cached_property
    def transcripts(self) -> RunTranscripts:
        """The transcripts of turns in tasks of the members' own."""
        return RunTranscripts(self.names)


class TurnStart:
    """The point of a conversation at which members are asked, the same for all who are asked at once. They hear what
    has been said by then, however long they wait for a thread.

    Args:
        state: the state of the group.
        transcript: the transcript.
        until: how many of its messages have been said.
        claims: what those who speak at the same time have taken: ids, and keys without a reducer.
        has_checkpointer: whether the run has a checkpointer; without one no member has a memory of its own.

    Attributes:
        events: the event log.
        seen_message: the id of the last message of the transcript.
    """

    def __init__(
        self, state: Mapping[str, Any], transcript: Transcript, until: int, claims: Claims, has_checkpointer: bool
    ) -> None:
        self.state, self.transcript, self.until = state, transcript, until
        self.claims, self.has_checkpointer = claims, has_checkpointer
        self.events: Sequence[Event] = state.get(EVENT_LOG, ())
        self.seen_message = transcript.id_before(until)

    def after(self, heard: str | None) -> TurnStart:
        """The point behind the message with the id `heard`, for a turn that begins again with what it had heard."""
        if heard == self.seen_message:
            return self
        until = self.transcript.position_after(heard)
        return TurnStart(self.state, self.transcript, until, self.claims, self.has_checkpointer)


class Turn(NamedTuple):
    """A turn of a member, as it begins.

    Attributes:
        input: the input of the agent.
        given: the messages that it is given.
        ids: the ids of its messages.
        at: the point at which it was asked.
        usage: the counter of the turn, if usage is counted.
        shared: what a summary for all members is made of, if it is to be one.
        summary: the last summary.
        remembers: whether the member has a memory of its own.
        unknown: how often in a row the member has handed over to somebody who is not there.
    """

    input: Any
    given: list[BaseMessage]
    ids: MessageIds
    at: TurnStart
    usage: UsageCounter | None
    shared: list[BaseMessage] | None
    summary: Any
    remembers: bool
    unknown: int

    @property
    def summary_key(self) -> Hashable:
        """What a summary for all members is made of: of all turns that begin alike it is the same."""
        return self.at.seen_message, self.summary and self.summary["until"]


def coerce_state(schema: Any, values: dict[str, Any]) -> Any:
    """The state as its schema has it: an object for a pydantic model or a dataclass, otherwise the dict."""
    is_object = isinstance(schema, type) and (issubclass(schema, BaseModel) or is_dataclass(schema))
    return schema(**values) if is_object else values
