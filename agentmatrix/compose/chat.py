"""Chat groups: agents that take turns in one conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.types import Checkpointer, Command

from agentmatrix.compose.builder import ComposedGraph, check_name, name_of
from agentmatrix.compose.conversation import Conversation, Event, told
from agentmatrix.compose.members import Member, coerced
from agentmatrix.compose.speakers import Speaker, as_speaker, round_robin
from agentmatrix.compose.stops import as_stop
from agentmatrix.errors import BuildError
from agentmatrix.pregel_channels import (
    hide_node,
    parent_node_of,
    rebuilt,
    replace_bound,
    set_stream_channels,
    sync_async,
    write_channel,
)

__all__ = ["DEFAULT_TURNS", "ChatGroup", "CompiledChatGroup", "GroupReply"]

DEFAULT_TURNS = 50
_LOG = "conversation"
_TURN = "next_turn"
_REPLY = "reply"

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
    ) -> None:
        if max_turns < 1:
            raise BuildError(f"max_turns={max_turns} lets nobody speak: to allow for that use stop=max_turns(0)")
        if not (reply in ("last", "transcript") or callable(reply)):
            raise BuildError(f"reply={reply!r} is unknown: choose 'last', 'transcript' or a function of the messages")
        named = members.items() if isinstance(members, Mapping) else [(name_of(agent), agent) for agent in members]
        self.members: dict[str, Any] = {}
        for member, agent in named:
            check_name(member, {*self.members, _TURN, _REPLY})
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

    def add_node(self, name: str, agent: Any) -> ChatGroup:
        """Add a member."""
        check_name(name, {*self.members, _TURN, _REPLY})
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
        schema = _with_log(self.state_schema)
        builder = StateGraph(self.state_schema, self.context_schema, output_schema=GroupReply)
        builder.add_node(_TURN, self._turn(), input_schema=schema, destinations=(*self.members, _REPLY))
        builder.add_edge(START, _TURN)
        members = {key: Member(key, agent, tuple(self.members), builder) for key, agent in self.members.items()}
        for key, member in members.items():
            builder.add_node(key, member.runnable(), input_schema=schema)
            builder.add_edge(key, _TURN)
        builder.add_node(_REPLY, sync_async(self._close, name=_REPLY), input_schema=schema)
        breakpoints = {"interrupt_before": interrupt_before, "interrupt_after": interrupt_after}
        native = builder.compile(checkpointer, name=name or self.name or "ChatGroup", **breakpoints, **options)
        for key, member in members.items():
            if [inner for inner in member.graphs if getattr(inner, "checkpointer", None) is not False]:
                replace_bound(native, key, native.nodes[key].bound, member.graphs)
        graph = rebuilt(native, CompiledChatGroup)
        graph._drawing = native
        for hidden in (_TURN, _REPLY):
            hide_node(graph, hidden)
        write_channel(graph, START, _LOG, [Event(begins=True)])
        set_stream_channels(graph, [key for key in builder.channels if key != _LOG])
        return graph

    def _turn(self) -> Any:
        def turn(state: dict[str, Any], config: RunnableConfig) -> Command[Any]:
            conversation = self._conversation(state)
            ends = self._ends(conversation)
            names = [] if ends else conversation.handoff or self.speaker.next(conversation, config)
            return self._floor(names, ends)

        async def aturn(state: dict[str, Any], config: RunnableConfig) -> Command[Any]:
            conversation = self._conversation(state)
            ends = self._ends(conversation)
            names = [] if ends else conversation.handoff or await self.speaker.anext(conversation, config)
            return self._floor(names, ends)

        return sync_async(turn, aturn, name=_TURN)

    def _ends(self, conversation: Conversation) -> str | None:
        if ended := next((event["ends"] for event in conversation.events if "ends" in event), None):
            return ended
        if self.stop and (reason := self.stop.reason(conversation)):
            return reason
        return f"max_turns bound ({self.max_turns})" if conversation.turns >= self.max_turns else None

    def _floor(self, names: Sequence[str], ends: str | None) -> Command[Any]:
        if names:
            return Command(goto=list(names), update={_LOG: [Event(floor=list(names))]})
        reason = ends or f"{self.speaker.label} chose nobody"
        return Command(goto=_REPLY, update={_LOG: [Event(ends=reason)]})

    def _conversation(self, state: dict[str, Any]) -> Conversation:
        values = {key: value for key, value in state.items() if key != _LOG}
        return Conversation(
            members=tuple(self.members),
            state=coerced(self.state_schema, values),
            messages=state.get("messages", []),
            events=state.get(_LOG, []),
        )

    def _close(self, state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        conversation = self._conversation(state)
        ends = {
            "stop_reason": next(event["ends"] for event in conversation.events if "ends" in event),
            "last_speaker": conversation.last_speaker,
        }
        author = parent_node_of(config) or self.name
        messages = _reply(self.reply, conversation.said, author, ends)
        return {"messages": messages, **ends}


def _reply(reply: Reply, said: list[BaseMessage], author: str | None, ends: dict[str, Any]) -> list[BaseMessage]:
    """The update that makes the transcript what the group contributes."""
    if callable(reply):
        made = reply(said)
        kept = [AIMessage(made)] if isinstance(made, str) else [made] if isinstance(made, BaseMessage) else list(made)
    else:
        kept = said[-1:] if reply == "last" else list(said)
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
    return TypedDict("GroupState", {**hints, _LOG: Annotated[list[Event], told]})  # type: ignore[operator]
