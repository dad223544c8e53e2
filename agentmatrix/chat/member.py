"""A member of a chat group: an agent, and what one turn of it means for the group.

A `Member` has no state of its own. Turns of different members may run at the same time, on any thread.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.errors import InvalidUpdateError, ParentCommand
from langgraph.graph import END
from langgraph.types import Command, Send
from pydantic import BaseModel

from agentmatrix.agent import as_agent, messages_in
from agentmatrix.chat.authorship import AgentNameMode
from agentmatrix.chat.contribution import AudienceRule, new_messages, public_messages
from agentmatrix.chat.conversation import EVENT_LOG, Event, interrupted_members
from agentmatrix.chat.transcript import Transcript, messages_of
from agentmatrix.chat.usage import UsageCounter
from agentmatrix.errors import SpeakerError
from agentmatrix.pregel.compiled_graph import PregelProtocol
from agentmatrix.pregel.handoffs import handoff_of
from agentmatrix.pregel.runnables import node_runnable
from agentmatrix.pregel.task_config import command_for_node, intercept_writes, updates_of
from agentmatrix.pregel.virtual_tasks import LoopHandle, reraise_interrupt

__all__ = ["Claims", "GroupSettings", "Member", "Turn", "coerce_state"]


@dataclass(frozen=True)
class GroupSettings:
    """The settings of a group that each member needs.

    Attributes:
        members: the names of the members.
        state_schema: the schema of the group's state.
        keys: the keys of that schema.
        audience_rule: gives the audience of a message that does not name one.
        counts_usage: whether tokens, calls and seconds are counted.
        names: by member, the name that it has in prompts.
        modes: by member, how it is told who spoke; for others as their kind wants it.
        plain_keys: the keys without a reducer, which take one value a step.
        is_free: whether it is free conversation.
    """

    members: tuple[str, ...]
    state_schema: Any
    keys: frozenset[str]
    audience_rule: AudienceRule
    counts_usage: bool
    names: Mapping[str, str]
    modes: Mapping[str, AgentNameMode]
    plain_keys: frozenset[str]
    is_free: bool


Claims = dict[Hashable, str]


class Turn(NamedTuple):
    """A turn of a member, as it begins.

    Attributes:
        input: the input of the agent.
        given: the messages that it is given.
        known_ids: the ids of the messages in the transcript.
        claims: what those who speak at the same time have taken: an id, or a key without a reducer.
        seen_message: the id of the last message of the transcript.
        seen_events: the number of events in the log.
        usage: the counter of the turn, if usage is counted.
    """

    input: Any
    given: list[BaseMessage]
    known_ids: Container[str]
    claims: Claims
    seen_message: str | None
    seen_events: int
    usage: UsageCounter | None


class Member:
    """An agent in a group: shows it the transcript, and makes an update of the group's state from its answer.

    Args:
        name: the name of the member.
        agent: whatever `as_agent` takes.
        settings: the settings of the group.

    Attributes:
        graphs: the agent, if it is a graph.
        is_model: whether the agent is a bare chat model.
    """

    def __init__(self, name: str, agent: Any, settings: GroupSettings) -> None:
        self.name = name
        self._settings = settings
        runnable = as_agent(agent, name=name)
        self.graphs = [runnable] if isinstance(runnable, PregelProtocol) else []
        self.is_model = isinstance(agent, BaseChatModel)
        # A bare model is called without an adapter: it takes messages and returns one, and a broadcast calls many.
        self._agent: Runnable[Any, Any]
        if self.is_model:
            self._agent = agent
        else:
            self._agent = runnable if isinstance(runnable, Runnable) else node_runnable(runnable, name)
        # A function reads names itself; in whatever else there may be a model.
        has_model = isinstance(runnable, Runnable | PregelProtocol) and not isinstance(agent, RunnableLambda)
        self._mode: AgentNameMode = settings.modes.get(name, "inline" if has_model else None)

    def speak_in_task(self, state: dict[str, Any], config: RunnableConfig, claims: Claims | None = None) -> Any:
        """Take a turn in a LangGraph task of the member's own. The turn may resume one that was interrupted.

        Args:
            state: the state of the group.
            config: the config of the task.
            claims: as of `Turn`, where others speak at the same time.
        """
        config = self._resuming(state, config)
        return self.speak(self._begin_in_task(state, config, claims), config)

    async def aspeak_in_task(self, state: dict[str, Any], config: RunnableConfig, claims: Claims | None = None) -> Any:
        """The same as `speak_in_task`, async."""
        config = self._resuming(state, config)
        return await self.aspeak(self._begin_in_task(state, config, claims), config)

    def _begin_in_task(self, state: dict[str, Any], config: RunnableConfig, claims: Claims | None) -> Turn:
        transcript = Transcript(messages_of(state), self._settings.names)
        has_checkpointer = bool(self.graphs) and LoopHandle(config).has_checkpointer
        return self.begin_turn(state, transcript, len(transcript), {} if claims is None else claims, has_checkpointer)

    def begin_turn(
        self,
        state: Mapping[str, Any],
        transcript: Transcript,
        until: int,
        claims: Claims,
        has_checkpointer: bool,
    ) -> Turn:
        """A turn from the first `until` messages of the transcript.

        Args:
            state: the state of the group.
            transcript: the transcript.
            until: the number of messages.
            claims: as of `Turn`.
            has_checkpointer: whether the run has a checkpointer; without one no member has a memory of its own.
        """
        remembers = has_checkpointer and any(getattr(graph, "checkpointer", None) is True for graph in self.graphs)
        given = transcript.seen_by(self.name, until, self._mode, remembers=remembers)
        usage = UsageCounter() if self._settings.counts_usage else None
        agent_input = given if self.is_model else self._state_for_agent(state, given)
        seen_events = len(state.get(EVENT_LOG, ()))
        return Turn(agent_input, given, transcript.positions, claims, transcript.id_before(until), seen_events, usage)

    def speak(self, turn: Turn, config: RunnableConfig) -> Any:
        """Take a turn.

        Returns:
            An update of the group's state with one event, or a command for a graph further out.
        """
        config, pushed = self._prepare(turn, config)
        try:
            answer = self._agent.invoke(turn.input, config)
        except ParentCommand as error:
            answer = self._handoff(error, config)
        return self._update(answer, turn, pushed)

    async def aspeak(self, turn: Turn, config: RunnableConfig) -> Any:
        """The same as `speak`, async."""
        config, pushed = self._prepare(turn, config)
        try:
            answer = await self._agent.ainvoke(turn.input, config)
        except ParentCommand as error:
            answer = self._handoff(error, config)
        return self._update(answer, turn, pushed)

    def _prepare(self, turn: Turn, config: RunnableConfig) -> tuple[RunnableConfig, list[Any]]:
        """The config to ask the agent under, and the messages that it pushes, by `push_message`."""
        config = turn.usage.attach(config) if turn.usage else config
        return (config, []) if self.is_model or self.graphs else intercept_writes(config, "messages")

    def _resuming(self, state: dict[str, Any], config: RunnableConfig) -> RunnableConfig:
        """The config to resume an interrupted turn of the member with; the config itself if there is none.

        Raises:
            GraphInterrupt: the interrupt has no answer yet.
        """
        interrupts = interrupted_members(state.get(EVENT_LOG, ())).get(self.name)
        if not interrupts:
            return config
        return reraise_interrupt(config, interrupts["ns"], interrupts["values"], inside=bool(self.graphs))

    def _state_for_agent(self, state: Mapping[str, Any], seen: list[BaseMessage]) -> Any:
        shared = {key: value for key, value in state.items() if key in self._settings.keys}
        shared["messages"] = seen
        return shared if self.graphs else coerce_state(self._settings.state_schema, shared)

    def _handoff(self, error: ParentCommand, config: RunnableConfig) -> Command[Any]:
        """The handoff that a graph inside the member has sent, with what was said beside it; several in one answer are
        one to several. A command for a graph further out is raised again."""
        if command_for_node(error, config) is None:
            raise error
        commands, words = handoff_of(error)
        goto: list[Any] = []
        update: dict[str, Any] = {}
        messages: list[Any] = []
        for command in commands:
            goto += [command.goto] if isinstance(command.goto, str | Send) else command.goto
            values = dict(updates_of(command))
            messages += messages_in(values.pop("messages", None))
            update |= values
        # A tool may pass on the history, words beside the call included.
        passed_on = {getattr(message, "id", None) for message in messages}
        beside = [message for message in words if message.id not in passed_on]
        return Command(goto=goto, update={**update, "messages": [*beside, *messages]})

    def _update(self, answer: Any, turn: Turn, pushed: list[Any]) -> Any:
        if isinstance(answer, BaseMessage):
            return {"messages": (said := self._public([answer], turn)), EVENT_LOG: [self._event(turn, said)]}
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
        is_state = bool(self.graphs) and not isinstance(answer, Command)
        added = new_messages(_messages(update), turn.given, is_state=is_state)
        # A message that is pushed once more, or returned after all, replaces the one that was pushed.
        answered = {message.id or id(message): message for message in (*pushed, *added)} if pushed else {}
        said = self._public(list(answered.values()) or added, turn)
        event = self._event(turn, said)
        # A value that the agent hands back as it got it is no update: a reducer would add it once more.
        given = turn.input if isinstance(turn.input, Mapping) else getattr(turn.input, "__dict__", {})
        keys = self._settings.keys - {"messages"}
        changed = {k: v for k, v in update.items() if k in keys and not _is_same_value(v, given.get(k))}
        for key in self._settings.plain_keys & changed.keys():
            writer = turn.claims.setdefault((turn.seen_events, key), self.name)
            if writer != self.name and not self._settings.is_free:
                raise _two_writers(key, writer, self.name)
        return {**changed, "messages": said, EVENT_LOG: [self._with_handoff(event, goto)]}

    def _public(self, answered: list[Any], turn: Turn) -> list[BaseMessage]:
        group = self._settings
        taken: set[str] = set()

        def claim_id(id: str) -> bool:
            if id in taken or id in turn.known_ids or turn.claims.setdefault(id, self.name) != self.name:
                return False
            taken.add(id)
            return True

        return public_messages(answered, self.name, group.members, group.audience_rule, claim_id)

    def _event(self, turn: Turn, said: list[BaseMessage]) -> Event:
        event = Event(
            by=self.name,
            message_ids=[str(message.id) for message in said],
            seen_message=turn.seen_message,
            seen_events=turn.seen_events,
        )
        if turn.usage:
            event.update(turn.usage.usage())
        return event

    def _with_handoff(self, event: Event, goto: Any) -> Event:
        targets = [goto] if isinstance(goto, str | Send) else list(goto)
        for target in targets:
            if target != END and target not in self._settings.members:
                raise SpeakerError(
                    f"the member {self.name!r} hands over to {target!r}, who is not in the group: "
                    f"go to one of {', '.join(self._settings.members)}, or to END"
                )
        if END in targets:
            return {**event, "stop_reason": f"{self.name} ended it"}
        return {**event, "goto": [str(target) for target in targets]} if targets else event


def _two_writers(key: str, first: str, second: str) -> InvalidUpdateError:
    """The error for two members who speak at the same time and both write a key that takes one value a step."""
    return InvalidUpdateError(
        f"the members {first!r} and {second!r} wrote the key {key!r} in one turn: give it a reducer, as in "
        f"Annotated[list, operator.add], or let only one of them write it"
    )


def coerce_state(schema: Any, values: dict[str, Any]) -> Any:
    """The state as its schema has it: an object for a pydantic model or a dataclass, otherwise the dict."""
    is_object = isinstance(schema, type) and (issubclass(schema, BaseModel) or is_dataclass(schema))
    return schema(**values) if is_object else values


def _messages(update: Mapping[str, Any]) -> list[Any]:
    answered = messages_in(update.get("messages", []))
    return [message if isinstance(message, BaseMessage) else convert_to_messages([message])[0] for message in answered]


def _is_same_value(returned: Any, given: Any) -> bool:
    """Whether an agent handed back the very value that it was given, also where it was copied on the way."""
    if returned is given:
        return True
    if type(returned) is not type(given):
        return False
    try:
        return bool(returned == given)
    except Exception:  # an array, or any type whose == is no yes or no
        return False
