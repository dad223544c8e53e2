"""A member of a chat group: an agent behind the group's etiquette."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import InvalidUpdateError, ParentCommand
from langgraph.graph import END, StateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel

from agentmatrix.agent import as_agent, messages_in
from agentmatrix.compose.conversation import Event, contribution, perspective
from agentmatrix.compose.folding import unchanged
from agentmatrix.errors import SpeakerError
from agentmatrix.pregel_channels import PregelProtocol, command_for_node, node_runnable, stand_in, updates_of

__all__ = ["Member", "coerced"]


class Member:
    """One turn of one member: shows it the transcript, takes its words and its handoff, keeps the rest private."""

    def __init__(self, name: str, agent: Any, group: tuple[str, ...], builder: StateGraph[Any, Any, Any, Any]) -> None:
        self.name = name
        self.group = group
        self._schema = builder.state_schema
        self._keys = set(builder.schemas[builder.state_schema])
        agent = as_agent(agent, name=name)
        self.graphs = [agent] if isinstance(agent, PregelProtocol) else []
        self._agent = agent if isinstance(agent, Runnable) else node_runnable(agent, name)

    def runnable(self) -> Runnable[Any, Any]:
        """What stands in the group's graph."""

        def call(state: dict[str, Any], config: RunnableConfig) -> Any:
            given = self._given(state)
            try:
                answer = self._agent.invoke(given, config)
            except ParentCommand as error:
                answer = self._sent(error, config)
            return self._turn(answer, given)

        async def acall(state: dict[str, Any], config: RunnableConfig) -> Any:
            given = self._given(state)
            try:
                answer = await self._agent.ainvoke(given, config)
            except ParentCommand as error:
                answer = self._sent(error, config)
            return self._turn(answer, given)

        return stand_in(self._agent, call, acall, name=self.name)

    def _given(self, state: dict[str, Any]) -> Any:
        shared = {key: value for key, value in state.items() if key in self._keys}
        shared["messages"] = perspective(state.get("messages", []), self.name)
        return shared if self.graphs else coerced(self._schema, shared)

    def _sent(self, error: ParentCommand, config: RunnableConfig) -> Command[Any]:
        """A command out of a graph inside the member is a handoff, unless it is meant for a graph further out."""
        command = command_for_node(error, config)
        if command is None:
            raise error
        return Command(goto=command.goto, update=command.update)

    def _turn(self, answer: Any, given: Any) -> Any:
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
        said = contribution(_messages(update), messages_in(given), self.name)
        event = Event(by=self.name, said=[str(message.id) for message in said])
        known = given if isinstance(given, Mapping) else vars(given)
        changed = {k: v for k, v in update.items() if k in self._keys and not unchanged(v, known.get(k))}
        return {**changed, "messages": said, "conversation": [self._handed(event, goto)]}

    def _handed(self, event: Event, goto: Any) -> Event:
        targets = [goto] if isinstance(goto, str | Send) else list(goto)
        for target in targets:
            if target != END and target not in self.group:
                raise SpeakerError(
                    f"the member {self.name!r} hands over to {target!r}, who is not in the group: "
                    f"go to one of {', '.join(self.group)}, or to END"
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
