"""Chat groups: agents that talk to each other, compiled to a LangGraph graph.

The compiled graph has a node for each member, and two hidden nodes of its own:

- `next_turn` asks the stop and then the speaker, and goes to the members, or to the end. It runs before each turn for
  which START, or the member before, has not done that. In free conversation it runs the turns itself.
- `together` runs a broadcast in one task, where that makes no visible difference to one task for each member.

All that these nodes decide on is in the state: the messages, and the event log (`chat.conversation`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, get_type_hints

from langgraph.graph import END, START, MessagesState, StateGraph, add_messages
from langgraph.types import Checkpointer, RetryPolicy, TimeoutPolicy
from typing_extensions import TypedDict

from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.chat.authorship import AgentNameMode, provider_names
from agentmatrix.chat.compiled_group import NEXT_TURN, TOGETHER, CompiledChatGroup
from agentmatrix.chat.contribution import AudienceRule
from agentmatrix.chat.conversation import EVENT_LOG, Event, append_events
from agentmatrix.chat.group_drawing import MAX_DRAWN, large_group
from agentmatrix.chat.group_nodes import GroupNodes, nodes_after
from agentmatrix.chat.history import History, HistoryRule
from agentmatrix.chat.live_messages import LiveMessages
from agentmatrix.chat.member_options import MemberOptions, OnError, member_options
from agentmatrix.chat.members import GroupMembers, Members
from agentmatrix.chat.parallel import ParallelTurns
from agentmatrix.chat.reply import Reply, check_reply, group_output
from agentmatrix.chat.speaker import Speaker, as_speaker, round_robin
from agentmatrix.chat.stop import as_stop, max_turns
from agentmatrix.chat.turn import GroupSettings
from agentmatrix.compose.builder import check_name, did_you_mean, name_of
from agentmatrix.compose.scheduled_graph import put_on_engine
from agentmatrix.display.notebook import BuilderRepr
from agentmatrix.errors import BuildError
from agentmatrix.middleware import Middleware, MiddlewareChain
from agentmatrix.pregel.compiled_graph import (
    MEMBERS,
    add_hidden_node,
    as_class,
    hide_node,
    set_stream_channels,
    set_subgraphs,
    share_writers,
    write_channel,
)
from agentmatrix.pregel.state_graph import AnyBuilder, keys_of_schema, managed_values, plain_keys_of
from agentmatrix.scheduling.superstep_rules import SuperstepRules
from agentmatrix.scheduling.topology import Topology

__all__ = ["DEFAULT_TURNS", "ChatGroup", "CompiledChatGroup"]

DEFAULT_TURNS: Final = 50
_OWN_NODES = (NEXT_TURN, TOGETHER)

VisibleTo = Mapping[str, Sequence[str] | str] | AudienceRule
AgentNames = Literal["auto", "inline"] | None


class ChatGroup(BuilderRepr):
    """A group of agents that talk to each other.

    Each turn of a member starts from the transcript: its own messages are AI messages, other members' are human
    messages with a name. The messages that it adds go to the transcript under its name; tool calls, tool messages and
    the rest of its state stay private. A member may hand over: by a `Command(goto="name")` that it returns, or that a
    graph or tool inside it sends to its parent.

    Args:
        members: the agents, in order; or a mapping of names to agents. `add_node` adds members with options, and
            `members(590, make)` stands for many.
        speaker: chooses the next member: one of `agentmatrix.speakers`, or a function `(state) -> name | names | None`.
        stop: ends the conversation: one of `agentmatrix.stops`, also combined by `|` and `&`, or a function of the
            state. It is asked before each turn, the first one included.
        name: the author of the group's reply, if the node that the group stands in does not give one.
        state_schema: the state of the group, with the key `messages`. Members read all of it.
        context_schema: as in LangGraph.
        reply: the group's reply to the graph around it: its `"last"` message, the whole `"transcript"` of the run, or
            the result of a function of the list of messages said.
        max_turns: the bound. A conversation that reaches it ends with the stop_reason `"max_turns bound (50)"`.
        visible_to: the audience of messages: a mapping of authors to the members that may see their messages, or a
            function of a message that returns names; None is all members. A message may name its own audience in
            `additional_kwargs["visible_to"]`. A message with an audience is not part of the group's reply.
        include_agent_name: how members are told who spoke, all of them or by name. `"inline"`: in the text too,
            `<name>ann</name><content>Monday.</content>`, since most models get no names; None: by `message.name` alone;
            `"auto"`: inline, but for functions. An answer in that form is stripped of it.
        output_schema: the keys of the state that the group returns; by default all of them.
        history: how much of the transcript a member is given: the last `n` messages, or `("messages", n)`; at most
            `("tokens", n)`, counted approximately; what a function of the messages returns, or a Runnable such as
            LangChain's `trim_messages(...)`; or a summary by LangChain's `SummarizationMiddleware`. By default all.
            Limits and summaries keep the system messages in front, the first words of a user, and the last ones.
        middleware: functions `(message, sender, hearers, conversation)` that each message of a member, and each word
            said into a run, passes before it is kept and heard; each returns the message, another one, several, None
            for nothing, or a `Block` with a reason. One that raises blocks the message.
        hold: words are streamed when they have passed; otherwise while they are made, and what did not pass is
            withdrawn in the stream by a `RemoveMessage`.

    The reply's `response_metadata` has `stop_reason` and `last_speaker`, and so has the group's output. Where the
    provider has given a `stop_reason` of its own, that stays, and the group's is `group_stop_reason`.
    """

    def __init__(
        self,
        members: Iterable[Any] | Mapping[str, Any] | Members,
        *,
        speaker: Speaker | Callable[[Any], Any] | None = None,
        stop: Any = None,
        name: str | None = None,
        state_schema: Any = MessagesState,
        context_schema: Any = None,
        reply: Reply = "last",
        max_turns: int = DEFAULT_TURNS,
        visible_to: VisibleTo | None = None,
        include_agent_name: AgentNames | Mapping[str, AgentNames] = "auto",
        output_schema: Any = None,
        history: HistoryRule | None = None,
        middleware: Sequence[Middleware] = (),
        hold: bool = False,
    ) -> None:
        if not isinstance(max_turns, int):
            raise BuildError(f"max_turns={max_turns!r} is no number of turns")
        if max_turns < 1:
            raise BuildError(f"max_turns={max_turns!r} lets nobody speak: to allow for that use stop=max_turns(0)")
        check_reply(reply)
        modes = include_agent_name.values() if isinstance(include_agent_name, Mapping) else [include_agent_name]
        if any(mode not in ("auto", "inline", None) for mode in modes):
            raise BuildError(f"include_agent_name={include_agent_name!r} is unknown: choose 'inline', None or 'auto'")
        given = [members] if isinstance(members, Members) else members
        named = given.items() if isinstance(given, Mapping) else [(name_of(agent), agent) for agent in given]
        # By node, the agent of the member, or `Members`; and by member, its node.
        self.members: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self._options: dict[str, MemberOptions] = {}
        for member, agent in named:
            if isinstance(agent, Members) and member == agent.name and member in self.members:
                raise BuildError(
                    "of two members(...) in a list both have the node 'members': name them, "
                    "ChatGroup({'staff': members(...), ...})"
                )
            self._add(member, agent)
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
        self.include_agent_name = include_agent_name
        self.output_schema = output_schema
        if history is not None:
            History(history, ())
        self.history = history
        self.middleware = MiddlewareChain(middleware) if middleware else None
        self.hold = hold

    def add_node(
        self,
        name: str,
        agent: Any,
        *,
        history: HistoryRule | None = None,
        reply: Reply | None = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        on_error: OnError = "raise",
    ) -> ChatGroup:
        """Add a member, or many with the same options.

        Args:
            name: the name of the member; of many, that of their node.
            agent: whatever `as_agent` takes, an `AgentSpec`, or `members(...)`.
            history: how much of the transcript this member is given, instead of the group's rule.
            reply: what of its messages it contributes: its `"last"` one, as a supervisor whose own agents talk before
                it answers; the whole `"transcript"`, which is the default; or the result of a function of them.
            retry_policy: when its agent is run again in a turn that has failed; as in LangGraph.
            timeout: the time limit of each attempt, in seconds or as LangGraph's `TimeoutPolicy`; in async runs only.
            on_error: when the turn has failed for good: `"raise"` ends the run with the error; `"skip"` takes it for
                silence, with a line in the log; `"say"` has the member say that it cannot answer, and why.

        Returns:
            This group.

        Raises:
            BuildError: a duplicate or reserved name, or an option that is none.
        """
        if history is not None:
            History(history, ())
        options = member_options(
            name, history=history, reply=reply, retry_policy=retry_policy, timeout=timeout, on_error=on_error
        )
        self._add(name, agent)
        self._options[name] = options
        return self

    def _add(self, node: str, agent: Any) -> None:
        keys = agent.keys if isinstance(agent, Members) else ()
        self._check_name(node)
        for key in keys:
            if key == node:
                raise BuildError(f"the key {key!r} of members is the name of their node: give one another name")
            self._check_name(key)
        self.members[node] = agent
        self._nodes.update(dict.fromkeys(keys or (node,), node))

    def compile(
        self,
        checkpointer: Checkpointer = None,
        *,
        name: str | None = None,
        interrupt_before: Any = None,
        interrupt_after: Any = None,
        barriers: bool = True,
        models: Models | None = None,
        tools: Tools | None = None,
        **options: Any,
    ) -> CompiledChatGroup:
        """Compile to a LangGraph graph whose nodes are the members.

        Args:
            checkpointer: as in LangGraph.
            name: the name of the graph; by default the group's.
            interrupt_before: members to pause before.
            interrupt_after: members to pause after.
            barriers: as in `Dag.compile`; makes no difference here, since turns follow each other.
            models: the chat models that an `AgentSpec` among the members may name.
            tools: the tools that it may name: a mapping, or a sequence of tools that have names.
            options: cache, store, debug, transformers, as in LangGraph.

        Raises:
            BuildError: the group cannot work; the message says why, and what to change.
            NotAnAgentError: a member is no agent.
        """
        arguments = {"checkpointer": checkpointer, "name": name, "models": models, "tools": tools, **options}
        breakpoints = {"interrupt_before": interrupt_before, "interrupt_after": interrupt_after}
        self._check_names()
        if self.speaker.is_free and (interrupt_before or interrupt_after):
            raise BuildError("members who speak freely have no turns: leave out interrupt_before= and interrupt_after=")
        hints = _hints(self.state_schema)
        builder = self._builder(hints)
        settings = self._settings(builder)
        members = GroupMembers(dict(self.members), dict(self._nodes), self._options, settings, models, tools)
        stop = self.stop or max_turns(self.max_turns)
        parallel = ParallelTurns(members, seconds_left=stop.left, settings=settings, live=LiveMessages())
        schema = _with_event_log(hints)
        nodes = GroupNodes(self.speaker, self.stop, self.max_turns, self.reply, self.name, settings, parallel)
        self._add_nodes(builder, members, nodes, schema)
        native = builder.compile(
            checkpointer,
            name=name or self.name or "ChatGroup",
            **{where: self._nodes_of(names) for where, names in breakpoints.items()},
            **options,
        )
        for node in self.members.keys() & members.keys():
            if members[node].known_graphs:
                set_subgraphs(native, node, members[node].graphs)
        # The drawing is the graph up to here: members, and the node that chooses among them.
        drawn = native if len(self.members) <= MAX_DRAWN else large_group(len(members), native.name)
        graph = as_class(native, CompiledChatGroup)
        made_by = copy.copy(self)
        made_by.members, made_by._nodes = dict(self.members), dict(self._nodes)
        graph._made_by = (made_by, {**arguments, **breakpoints})
        graph._drawing, graph._settings, graph._members = drawn, settings, members
        for node in self.members:
            graph.nodes[node].metadata = None  # It is the drawing's.
        share_writers(graph, tuple(self.members), nodes_after, NEXT_TURN)
        hide_node(graph, NEXT_TURN)
        add_hidden_node(graph, TOGETHER, nodes.together(), schema)
        # The log is no part of input, output, streams and snapshots; each input starts a new one.
        write_channel(graph, START, EVENT_LOG, [Event(new_run=True)])
        set_stream_channels(graph, [key for key in builder.channels if key != EVENT_LOG])
        topology = _topology(tuple(self.members), members.shared)
        trusted, route_input = (EVENT_LOG,), nodes.route_input
        put_on_engine(
            graph, builder.channels, topology, SuperstepRules, barriers=True, trusted=trusted, route_input=route_input
        )
        # LangGraph knows the nodes only.
        graph.interrupt_before_nodes, graph.interrupt_after_nodes = interrupt_before or [], interrupt_after or []
        return graph

    def _nodes_of(self, names: Any) -> Any:
        """The nodes of these members, or `"*"`."""
        return names if isinstance(names, str) or not names else [self._nodes.get(name, name) for name in names]

    def _builder(self, hints: dict[str, Any]) -> AnyBuilder:
        """A builder with the schemas of state, context and output."""
        state = StateGraph(self.state_schema)
        if "messages" in plain_keys_of(state):
            raise BuildError(
                "the key 'messages' of the state_schema has no reducer, so that each turn would replace the "
                "conversation: write messages: Annotated[list[AnyMessage], add_messages]"
            )
        if self.output_schema is None:
            returned = {key: hint for key, hint in hints.items() if key not in managed_values(state)}
        else:
            returned = get_type_hints(self.output_schema, include_extras=True)
            for key in sorted(returned.keys() - hints.keys()):
                raise BuildError(f"output_schema= names {key!r}, which the state_schema has not got: add it there")
        return StateGraph(self.state_schema, self.context_schema, output_schema=group_output(returned))

    def _check_name(self, name: str) -> None:
        """Raises a BuildError for a name that no member can have, or that another one has."""
        check_name(name, _OWN_NODES if name in _OWN_NODES else self.members if name in self.members else self._nodes)

    def _check_names(self) -> None:
        """Raises a BuildError for a name of the speaker, of the stop or of visible_to that is not in the group."""
        named: dict[str, Iterable[str]] = {"speaker": self.speaker.names, "include_agent_name": self._modes()}
        named["stop"] = self.stop.names if self.stop else ()
        if isinstance(self.visible_to, Mapping):
            audiences = ((names,) if isinstance(names, str) else names for names in self.visible_to.values())
            named["visible_to"] = {*self.visible_to, *(name for names in audiences for name in names)}
        for where, names in named.items():
            for member in sorted(set(names) - self._nodes.keys()):
                raise BuildError(
                    f"{where}= names {member!r}, who is not in the group{did_you_mean(member, self._nodes)}"
                )

    def _settings(self, builder: AnyBuilder) -> GroupSettings:
        rule: Any = self.visible_to
        audience_rule = (lambda message: rule.get(message.name)) if isinstance(rule, Mapping) else rule
        names = provider_names(self._nodes)
        return GroupSettings(
            members=tuple(self._nodes),
            state_schema=self.state_schema,
            keys=frozenset(keys_of_schema(builder, self.state_schema)),
            audience_rule=audience_rule,
            counts_usage=self._counts_usage,
            history=History(self.history, tuple(names.values())) if self.history is not None else None,
            names=names,
            modes=self._modes(),
            plain_keys=frozenset(plain_keys_of(builder)),
            appends_messages=getattr(builder.channels["messages"], "operator", None) is add_messages,
            is_free=self.speaker.is_free,
            middleware=self.middleware,
            holds=self.hold,
        )

    def _modes(self) -> dict[str, AgentNameMode]:
        """By member, how it is told who spoke, where that is said."""
        given = self.include_agent_name
        by_member = given if isinstance(given, Mapping) else dict.fromkeys(self._nodes, given)
        return {member: mode for member, mode in by_member.items() if mode != "auto"}

    @property
    def _counts_usage(self) -> bool:
        return bool(self.stop and self.stop.metered)

    def _add_nodes(self, builder: AnyBuilder, members: GroupMembers, nodes: GroupNodes, schema: Any) -> None:
        """Adds `next_turn` and the members; where they are drawn, each with an edge back to it."""
        builder.add_node(NEXT_TURN, nodes.next_turn(), input_schema=schema, destinations=(*self.members, END))
        builder.add_edge(START, NEXT_TURN)
        for node, agent in self.members.items():
            is_shared = isinstance(agent, Members)
            speaks = nodes.shared(node, members) if is_shared else nodes.member(members[node])
            drawn = {MEMBERS: len(agent)} if is_shared else None
            builder.add_node(node, speaks, input_schema=schema, metadata=drawn)
            if len(self.members) <= MAX_DRAWN:
                builder.add_edge(node, NEXT_TURN)


def _topology(members: tuple[str, ...], shared: Mapping[str, str]) -> Topology:
    """The shape of a group: any node, and START, may choose who is next.

    Args:
        members: the nodes of members.
        shared: by member that shares a node with others, that node.
    """
    nodes = (NEXT_TURN, TOGETHER, *members)
    anywhere = dict.fromkeys((START, *nodes), nodes)
    return Topology(
        START,
        nodes,
        {START: (NEXT_TURN,)},
        choices=anywhere,
        unbounded=True,
        deaf=True,
        reads_items=False,
        members=shared,
    )


def _hints(schema: Any) -> dict[str, Any]:
    hints = get_type_hints(schema, include_extras=True)
    if "messages" not in hints:
        raise BuildError(f"a group's state_schema needs the key 'messages': let {schema.__name__} extend MessagesState")
    return hints


def _with_event_log(hints: dict[str, Any]) -> Any:
    """The schema that the nodes of a group read: the keys of the group's state as plain values, and the event log."""
    return TypedDict("StateWithEventLog", {**hints, EVENT_LOG: Annotated[list[Event], append_events]})  # type: ignore[operator]
