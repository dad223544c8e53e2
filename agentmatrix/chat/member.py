"""A member of a chat group: an agent behind the group's etiquette."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import InvalidUpdateError, ParentCommand
from langgraph.graph import END
from langgraph.types import Command, Send
from pydantic import BaseModel

from agentmatrix.agent import as_agent, messages_in
from agentmatrix.chat.conversation import Audience, Event, Transcript, contribution, waiting_in
from agentmatrix.chat.usage import Meter
from agentmatrix.compose.folding import unchanged
from agentmatrix.errors import SpeakerError
from agentmatrix.pregel.compiled_graph import PregelProtocol
from agentmatrix.pregel.runnables import is_native_async, node_runnable
from agentmatrix.pregel.task_config import command_for_node, updates_of
from agentmatrix.pregel.virtual_tasks import reraise_interrupt

__all__ = ["LOG", "Etiquette", "Member", "Turn", "coerced"]

LOG = "conversation"


@dataclass(frozen=True)
class Etiquette:
    """What all members of a group have in common.

    Attributes:
        names: the names of the members.
        schema: the schema of the group's state.
        keys: its keys.
        audience: who may hear a message that does not say so itself.
        metered: whether tokens, calls and seconds are counted.
    """

    names: tuple[str, ...]
    schema: Any
    keys: frozenset[str]
    audience: Audience
    metered: bool


class Turn(NamedTuple):
    """A turn of a member as it begins: what it is given, of how many messages, and after how many events."""

    given: Any
    known: Collection[str | None]
    heard: int
    since: int
    meter: Meter | None


class Member:
    """One turn of one member: shows it the transcript, takes its words and its handoff, keeps the rest private."""

    def __init__(self, name: str, agent: Any, etiquette: Etiquette) -> None:
        self.name = name
        self._group = etiquette
        runnable = as_agent(agent, name=name)
        self.graphs = [runnable] if isinstance(runnable, PregelProtocol) else []
        self.agent = runnable if isinstance(runnable, Runnable) else node_runnable(runnable, name)
        self.is_async = bool(self.graphs) or is_native_async(self.agent)
        # A bare model is asked without detours: it takes messages, and its answer is one.
        self.is_model = isinstance(agent, BaseChatModel)
        self._asked: Runnable[Any, Any] = agent if self.is_model else self.agent

    def speak_alone(self, state: dict[str, Any], config: RunnableConfig) -> Any:
        """A turn in a task of its own, which may go on after a question to a person."""
        config = self._goes_on(state, config)
        transcript = Transcript(state.get("messages", []))
        return self.speak(self.turn(state, transcript, len(transcript)), config)

    async def aspeak_alone(self, state: dict[str, Any], config: RunnableConfig) -> Any:
        """The same as `speak_alone`, async."""
        config = self._goes_on(state, config)
        transcript = Transcript(state.get("messages", []))
        return await self.aspeak(self.turn(state, transcript, len(transcript)), config)

    def turn(self, state: Mapping[str, Any], transcript: Transcript, heard: int) -> Turn:
        """A turn that begins when so many messages have been heard."""
        seen: Any = transcript.seen_by(self.name, heard)
        meter = Meter() if self._group.metered else None
        given = seen if self.is_model else self._shared(state, seen)
        return Turn(given, transcript.ids, heard, len(state.get(LOG, ())), meter)

    def speak(self, turn: Turn, config: RunnableConfig) -> Any:
        """Take a turn: the update of the group's state, or a command for a graph further out."""
        config = turn.meter.into(config) if turn.meter else config
        try:
            answer = self._asked.invoke(turn.given, config)
        except ParentCommand as error:
            answer = self._sent(error, config)
        return self._answered(answer, turn)

    async def aspeak(self, turn: Turn, config: RunnableConfig) -> Any:
        """The same as `speak`, async."""
        config = turn.meter.into(config) if turn.meter else config
        try:
            answer = await self._asked.ainvoke(turn.given, config)
        except ParentCommand as error:
            answer = self._sent(error, config)
        return self._answered(answer, turn)

    def _goes_on(self, state: dict[str, Any], config: RunnableConfig) -> RunnableConfig:
        asked = waiting_in(state.get(LOG, ())).get(self.name)
        return reraise_interrupt(config, asked["ns"], asked["values"], inside=bool(self.graphs)) if asked else config

    def _shared(self, state: Mapping[str, Any], seen: list[BaseMessage]) -> Any:
        shared = {key: value for key, value in state.items() if key in self._group.keys}
        shared["messages"] = seen
        return shared if self.graphs else coerced(self._group.schema, shared)

    def _sent(self, error: ParentCommand, config: RunnableConfig) -> Command[Any]:
        """A command out of a graph inside the member is a handoff, unless it is meant for a graph further out."""
        command = command_for_node(error, config)
        if command is None:
            raise error
        return Command(goto=command.goto, update=command.update)

    def _answered(self, answer: Any, turn: Turn) -> Any:
        if isinstance(answer, BaseMessage):
            return {"messages": (said := self._said([answer], turn)), LOG: [self._event(turn, said)]}
        if isinstance(answer, Command):
            if answer.graph == Command.PARENT:
                return answer
            update, goto = dict(updates_of(answer)), answer.goto
        else:
            update, goto = answer or {}, ()
        if not isinstance(update, Mapping):
            raise InvalidUpdateError(
                f"the member {self.name!r} answered with a {type(update).__name__}: "
                "return a text, a message, a list of messages, a dict or a Command"
            )
        said = self._said(_messages(update), turn)
        event = self._event(turn, said)
        known = turn.given if isinstance(turn.given, Mapping) else getattr(turn.given, "__dict__", {})
        keys = self._group.keys
        changed = {k: v for k, v in update.items() if k in keys - {"messages"} and not unchanged(v, known.get(k))}
        return {**changed, "messages": said, LOG: [self._handed(event, goto)]}

    def _said(self, answered: list[Any], turn: Turn) -> list[BaseMessage]:
        return contribution(answered, turn.known, self.name, self._group.names, self._group.audience)

    def _event(self, turn: Turn, said: list[BaseMessage]) -> Event:
        event = Event(by=self.name, said=[str(message.id) for message in said], heard=turn.heard, since=turn.since)
        if turn.meter:
            event.update(turn.meter.reading())
        return event

    def _handed(self, event: Event, goto: Any) -> Event:
        targets = [goto] if isinstance(goto, str | Send) else list(goto)
        for target in targets:
            if target != END and target not in self._group.names:
                raise SpeakerError(
                    f"the member {self.name!r} hands over to {target!r}, who is not in the group: "
                    f"go to one of {', '.join(self._group.names)}, or to END"
                )
        if END in targets:
            return {**event, "ends": f"{self.name} ended it"}
        return {**event, "goto": [str(target) for target in targets]} if targets else event


def coerced(schema: Any, values: dict[str, Any]) -> Any:
    """The state as its schema has it: an object for a pydantic model or a dataclass, else the dict."""
    made = isinstance(schema, type) and (issubclass(schema, BaseModel) or is_dataclass(schema))
    return schema(**values) if made else values


def _messages(update: Mapping[str, Any]) -> list[Any]:
    answered = messages_in(update.get("messages", []))
    return [message if isinstance(message, BaseMessage) else convert_to_messages([message])[0] for message in answered]
