"""A member of a chat group: an agent behind the group's etiquette."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import InvalidUpdateError, ParentCommand
from langgraph.graph import END
from langgraph.types import Command, Send
from pydantic import BaseModel

from agentmatrix.agent import as_agent, messages_in
from agentmatrix.compose.conversation import Audience, Event, Transcript, contribution, waiting_in
from agentmatrix.compose.folding import unchanged
from agentmatrix.compose.meter import Meter
from agentmatrix.errors import SpeakerError
from agentmatrix.pregel_channels import (
    PregelProtocol,
    asked_again,
    command_for_node,
    is_native_async,
    node_runnable,
    stand_in,
    updates_of,
)

__all__ = ["LOG", "Etiquette", "Member", "coerced"]

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


class Member:
    """One turn of one member: shows it the transcript, takes its words and its handoff, keeps the rest private."""

    def __init__(self, name: str, agent: Any, etiquette: Etiquette) -> None:
        self.name = name
        self._group = etiquette
        agent = as_agent(agent, name=name)
        self.graphs = [agent] if isinstance(agent, PregelProtocol) else []
        self._agent = agent if isinstance(agent, Runnable) else node_runnable(agent, name)
        self.is_async = bool(self.graphs) or is_native_async(self._agent)

    def runnable(self) -> Runnable[Any, Any]:
        """What stands in the group's graph."""

        def call(state: dict[str, Any], config: RunnableConfig) -> Any:
            return self.speak(state, Transcript(state.get("messages", []), {}), self._goes_on(state, config))

        async def acall(state: dict[str, Any], config: RunnableConfig) -> Any:
            return await self.aspeak(state, Transcript(state.get("messages", []), {}), self._goes_on(state, config))

        return stand_in(self._agent, call, acall, name=self.name)

    def speak(self, state: Mapping[str, Any], transcript: Transcript, config: RunnableConfig) -> Any:
        """One turn: the update of the group's state, or a command for a graph further out."""
        given, meter = self._given(state, transcript), Meter() if self._group.metered else None
        config = meter.into(config) if meter else config
        try:
            answer = self._agent.invoke(given, config)
        except ParentCommand as error:
            answer = self._sent(error, config)
        return self._turn(answer, given, transcript, Event(since=len(state.get(LOG, ()))), meter)

    async def aspeak(self, state: Mapping[str, Any], transcript: Transcript, config: RunnableConfig) -> Any:
        """The same as `speak`, async."""
        given, meter = self._given(state, transcript), Meter() if self._group.metered else None
        config = meter.into(config) if meter else config
        try:
            answer = await self._agent.ainvoke(given, config)
        except ParentCommand as error:
            answer = self._sent(error, config)
        return self._turn(answer, given, transcript, Event(since=len(state.get(LOG, ()))), meter)

    def _goes_on(self, state: dict[str, Any], config: RunnableConfig) -> RunnableConfig:
        asked = waiting_in(state.get(LOG, ())).get(self.name)
        return asked_again(config, asked["ns"], asked["values"], inside=bool(self.graphs)) if asked else config

    def _given(self, state: Mapping[str, Any], transcript: Transcript) -> Any:
        shared = {key: value for key, value in state.items() if key in self._group.keys}
        shared["messages"] = transcript.seen_by(self.name)
        return shared if self.graphs else coerced(self._group.schema, shared)

    def _sent(self, error: ParentCommand, config: RunnableConfig) -> Command[Any]:
        """A command out of a graph inside the member is a handoff, unless it is meant for a graph further out."""
        command = command_for_node(error, config)
        if command is None:
            raise error
        return Command(goto=command.goto, update=command.update)

    def _turn(self, answer: Any, given: Any, transcript: Transcript, event: Event, meter: Meter | None) -> Any:
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
        group = self._group
        said = contribution(_messages(update), transcript.ids, self.name, group.names, group.audience)
        event |= Event(by=self.name, said=[str(message.id) for message in said], heard=len(transcript))
        if meter:
            event.update(meter.reading())
        known = given if isinstance(given, Mapping) else vars(given)
        changed = {k: v for k, v in update.items() if k in group.keys - {"messages"} and not unchanged(v, known.get(k))}
        return {**changed, "messages": said, LOG: [self._handed(event, goto)]}

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
