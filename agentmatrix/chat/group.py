"""Chat groups: agents that take turns in one conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph, add_messages
from langgraph.types import Checkpointer, Command

from agentmatrix.chat.conversation import Audience, Conversation, Event, audience_of, floor_of, told
from agentmatrix.chat.member import LOG, Etiquette, Member, coerced
from agentmatrix.chat.parallel import Crowd
from agentmatrix.chat.speaker import Speaker, as_speaker, round_robin
from agentmatrix.chat.stop import as_stop, max_turns
from agentmatrix.chat.usage import Meter
from agentmatrix.compose.builder import ComposedGraph, check_name, did_you_mean, name_of
from agentmatrix.errors import BuildError
from agentmatrix.pregel.compiled_graph import (
    add_hidden_node,
    as_class,
    hide_node,
    set_stream_channels,
    set_subgraphs,
    write_channel,
)
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.state_graph import keys_of_schema
from agentmatrix.pregel.task_config import parent_node_of
from agentmatrix.pregel.virtual_tasks import LoopHandle

__all__ = ["DEFAULT_TURNS", "ChatGroup", "CompiledChatGroup", "GroupReply"]

DEFAULT_TURNS = 50
_TURN = "next_turn"
_TOGETHER = "together"
_OWN = (_TURN, _TOGETHER)

VisibleTo = Mapping[str, Sequence[str] | str] | Audience
Reply = Literal["last", "transcript"] | Callable[[list[BaseMessage]], Any]


class GroupReply(TypedDict):
    """What a group answers: its reply, why it stopped, and who spoke last."""

    messages: Annotated[list[AnyMessage], add_messages]
    stop_reason: str
    last_speaker: str | None


class CompiledChatGroup(ComposedGraph):
    """A compiled `ChatGroup`."""


class ChatGroup:
    """Agents in conversation.

    A member starts each turn from the transcript, sees its own turns as AI messages and those of others as human
    messages with a name, and contributes the messages that it added, under its name. Tool calls, tool messages and
    whatever else it keeps stay its own. A member may hand over: by a `Command(goto="name")` that it returns, or that
    a graph or a tool inside it sends to its parent.

    Args:
        members: the agents, in order; or a mapping of their names to them.
        speaker: who speaks next: one of `agentmatrix.speakers`, or a function `(state) -> name | names | None`.
        stop: when the conversation ends: one of `agentmatrix.stops`, combined by `|` and `&`, or a function of the
            state. It is asked before each turn, the first one included.
        name: the author of the group's reply, where the node that the group stands in does not say otherwise.
        state_schema: the state of the group; it has `messages`. Members read all of it.
        context_schema: as in LangGraph.
        reply: what the group contributes to the conversation around it: its "last" message, the whole "transcript"
            of the run, or what a function makes of the list of messages said.
        max_turns: the bound; a conversation that reaches it ends with the stop_reason `"max_turns bound (50)"`.
        visible_to: who hears what: a mapping of members to those who hear them, or a function of a message that
            returns names, or None for everybody. A message can say so itself, in
            `additional_kwargs["visible_to"]`. Nobody else is given it, and it is no part of the group's reply.

    The reply's `response_metadata` has `stop_reason` and `last_speaker`, and so has the group's output.
    """

    def __init__(
        self,
        members: Iterable[Any] | Mapping[str, Any],
        *,
        speaker: Speaker | Callable[[Any], Any] | None = None,
        stop: Any = None,
        name: str | None = None,
        state_schema: Any = MessagesState,
        context_schema: Any = None,
        reply: Reply = "last",
        max_turns: int = DEFAULT_TURNS,
        visible_to: VisibleTo | None = None,
    ) -> None:
        if not isinstance(max_turns, int):
            raise BuildError(f"max_turns={max_turns!r} is no number of turns")
        if max_turns < 1:
            raise BuildError(f"max_turns={max_turns!r} lets nobody speak: to allow for that use stop=max_turns(0)")
        if not (reply in ("last", "transcript") or callable(reply)):
            raise BuildError(f"reply={reply!r} is unknown: choose 'last', 'transcript' or a function of the messages")
        named = members.items() if isinstance(members, Mapping) else [(name_of(agent), agent) for agent in members]
        self.members: dict[str, Any] = {}
        for member, agent in named:
            check_name(member, {*self.members, *_OWN})
            self.members[member] = agent
        if not self.members:
            raise BuildError("a ChatGroup needs at least one member: ChatGroup([agent, ...])")
        self.speaker = as_speaker(speaker if speaker is not None else round_robin())
        self.stop = as_stop(stop) if stop is not None else None
        self.name = name
        self.state_schema = state_schema
        self.context_schema = context_schema
        self.reply = reply
        self.max_turns = max_turns
        self.visible_to = visible_to

    def add_node(self, name: str, agent: Any) -> ChatGroup:
        """Add a member."""
        check_name(name, {*self.members, *_OWN})
        self.members[name] = agent
        return self

    def compile(
        self,
        checkpointer: Checkpointer = None,
        *,
        name: str | None = None,
        interrupt_before: Any = None,
        interrupt_after: Any = None,
        barriers: bool = True,
        **options: Any,
    ) -> CompiledChatGroup:
        """Compile to a LangGraph graph whose nodes are the members.

        Args:
            checkpointer: as in LangGraph.
            name: the name of the graph; by default the group's.
            interrupt_before: members to pause before.
            interrupt_after: members to pause after.
            barriers: supersteps; turns follow each other anyway.
            options: cache, store, debug, transformers, as in LangGraph.

        Raises:
            BuildError: what cannot work; the message names the member and the mend.
            NotAnAgentError: a member that is no agent.
        """
        self._check(interrupt_before, interrupt_after)
        schema = _with_log(self.state_schema)
        builder = StateGraph(self.state_schema, self.context_schema, output_schema=GroupReply)
        members = self._etiquette(frozenset(keys_of_schema(builder, self.state_schema)))
        crowd = self._crowd(members)
        builder.add_node(_TURN, self._turn(crowd), input_schema=schema, destinations=(*self.members, END))
        builder.add_edge(START, _TURN)
        for key, member in members.items():
            builder.add_node(key, crowd.alone(member), input_schema=schema)
            builder.add_edge(key, _TURN)
        breakpoints = {"interrupt_before": interrupt_before, "interrupt_after": interrupt_after}
        label = name or self.name or "ChatGroup"
        native = builder.compile(checkpointer, name=label, **breakpoints, **options)
        for key, member in members.items():
            if [inner for inner in member.graphs if getattr(inner, "checkpointer", None) is not False]:
                set_subgraphs(native, key, member.graphs)
        graph = as_class(native, CompiledChatGroup)
        graph._drawing = native
        hide_node(graph, _TURN)
        add_hidden_node(graph, _TOGETHER, self._together(crowd), schema)
        write_channel(graph, START, LOG, [Event(begins=True)])
        set_stream_channels(graph, [key for key in builder.channels if key != LOG])
        return graph

    def _check(self, *breakpoints: Any) -> None:
        """Raise a BuildError for names that are not in the group."""
        named: dict[str, Iterable[str]] = {"speaker": self.speaker.names}
        named["stop"] = self.stop.names if self.stop else ()
        if isinstance(self.visible_to, Mapping):
            audiences = ((names,) if isinstance(names, str) else names for names in self.visible_to.values())
            named["visible_to"] = {*self.visible_to, *(name for names in audiences for name in names)}
        for where, names in named.items():
            for member in sorted(set(names) - self.members.keys()):
                raise BuildError(
                    f"{where}= names {member!r}, who is not in the group{did_you_mean(member, self.members)}"
                )
        if self.speaker.is_free and any(breakpoints):
            raise BuildError("members who speak freely have no turns: leave out interrupt_before= and interrupt_after=")

    def _etiquette(self, keys: frozenset[str]) -> dict[str, Member]:
        rule: Any = self.visible_to
        audience = rule if callable(rule) else lambda message: (rule or {}).get(message.name)
        metered = bool(self.stop and self.stop.metered)
        etiquette = Etiquette(tuple(self.members), self.state_schema, keys, audience, metered)
        return {key: Member(key, agent, etiquette) for key, agent in self.members.items()}

    def _crowd(self, members: Mapping[str, Member]) -> Crowd:
        stop = self.stop or max_turns(self.max_turns)
        return Crowd(members, free=self.speaker.is_free, left=stop.left, metered=stop.metered)

    def _together(self, crowd: Crowd) -> Any:
        def together(state: dict[str, Any], config: RunnableConfig) -> list[Command[Any]]:
            conversation = self._conversation(state)
            return crowd.run(state, conversation, floor_of(conversation.events), config).command(_TURN)

        async def atogether(state: dict[str, Any], config: RunnableConfig) -> list[Command[Any]]:
            conversation = self._conversation(state)
            return (await crowd.arun(state, conversation, floor_of(conversation.events), config)).command(_TURN)

        return runnable(together, atogether, name=_TOGETHER)

    def _turn(self, crowd: Crowd) -> Any:
        def turn(state: dict[str, Any], config: RunnableConfig) -> Any:
            conversation = self._conversation(state)
            if command := self._given(conversation, config):
                return command
            metered, meter = self._metered(config)
            names = conversation.handoff or self.speaker.next(conversation, metered)
            command, floor = self._floor(conversation, names, crowd, config, meter)
            return command or crowd.run(state, conversation, names, config).command(_TURN, floor)

        async def aturn(state: dict[str, Any], config: RunnableConfig) -> Any:
            conversation = self._conversation(state)
            if command := self._given(conversation, config):
                return command
            metered, meter = self._metered(config)
            names = conversation.handoff or await self.speaker.anext(conversation, metered)
            command, floor = self._floor(conversation, names, crowd, config, meter)
            return command or (await crowd.arun(state, conversation, names, config)).command(_TURN, floor)

        return runnable(turn, aturn, name=_TURN)

    def _metered(self, config: RunnableConfig) -> tuple[RunnableConfig, Meter | None]:
        """A model that chooses who speaks is paid from the group's budget."""
        if not (self.stop and self.stop.metered):
            return config, None
        meter = Meter()
        return meter.into(config), meter

    def _given(self, conversation: Conversation, config: RunnableConfig) -> Command[Any] | None:
        """What follows without a choice: the end, or the answer of a person."""
        if reason := self._ends(conversation):
            return self._close(conversation, Event(ends=reason), config)
        if waiting := conversation.waiting:
            return Command(goto=list(waiting))
        return None

    def _ends(self, conversation: Conversation) -> str | None:
        if ended := next((event["ends"] for event in conversation.events if "ends" in event), None):
            return ended
        if self.stop and (reason := self.stop.reason(conversation)):
            return reason
        return f"max_turns bound ({self.max_turns})" if conversation.turns >= self.max_turns else None

    def _floor(
        self,
        conversation: Conversation,
        names: Sequence[str],
        crowd: Crowd,
        config: RunnableConfig,
        meter: Meter | None,
    ) -> tuple[Command[Any] | None, Event]:
        """Where to go, or nowhere if the crowd may begin at once; and who has the floor."""
        if self.speaker.is_free:
            return None, Event(floor=[])
        used = meter.reading() if meter else Event()
        if not names:
            return self._close(conversation, {**used, "ends": f"{self.speaker.label} chose nobody"}, config), used
        floor: Event = {**used, "floor": list(names)}
        if not crowd.can_stand_for(names, config):
            return Command(goto=list(names), update={LOG: [floor]}), floor
        # What was chosen is saved before it begins.
        saves = LoopHandle(config).has_checkpointer
        return Command(goto=_TOGETHER, update={LOG: [floor]}) if saves else None, floor

    def _conversation(self, state: dict[str, Any]) -> Conversation:
        values = {key: value for key, value in state.items() if key != LOG}
        return Conversation(
            members=tuple(self.members),
            state=coerced(self.state_schema, values),
            messages=state.get("messages", []),
            events=state.get(LOG, []),
        )

    def _close(self, conversation: Conversation, end: Event, config: RunnableConfig) -> Command[Any]:
        ends = {"stop_reason": end["ends"], "last_speaker": conversation.last_speaker}
        author = parent_node_of(config) or self.name
        messages = _reply(self.reply, conversation.said, author, ends)
        return Command(goto=END, update={"messages": messages, **ends, LOG: [end]})


def _reply(reply: Reply, said: list[BaseMessage], author: str | None, ends: dict[str, Any]) -> list[BaseMessage]:
    """The update that makes the transcript what the group contributes."""
    public = [message for message in said if audience_of(message) is None]
    if callable(reply):
        made = reply(public)
        kept = [AIMessage(made)] if isinstance(made, str) else [made] if isinstance(made, BaseMessage) else list(made)
    else:
        kept = public[-1:] if reply == "last" else public
    ids = {message.id for message in kept}
    dropped: list[BaseMessage] = [RemoveMessage(id=str(m.id)) for m in said if m.id not in ids]
    if not kept:
        return dropped
    name = kept[-1].name if reply == "transcript" else author or kept[-1].name
    metadata = {**kept[-1].response_metadata, **ends}
    return [*dropped, *kept[:-1], kept[-1].model_copy(update={"name": name, "response_metadata": metadata})]


def _with_log(schema: Any) -> Any:
    """The keys of the group's state and its log, as plain values: what the group's own nodes read."""
    hints = get_type_hints(schema, include_extras=True)
    if "messages" not in hints:
        raise BuildError(f"a group's state_schema needs the key 'messages': let {schema.__name__} extend MessagesState")
    return TypedDict("GroupState", {**hints, LOG: Annotated[list[Event], told]})  # type: ignore[operator]
