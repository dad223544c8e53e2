"""A compiled chat group: whoever has the floor keeps it when the state is edited from outside.

The next step of a group is a command of its hidden node. `update_state` knows edges only: with an edit alone the
conversation would be over. So the edit is written together with the command, and with the questions that wait for a
person, so that members go on from there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.graph import END, START
from langgraph.pregel import Pregel
from langgraph.types import Command, Send, StateSnapshot, StateUpdate

from agentmatrix.chat.claims import Claims
from agentmatrix.chat.contribution import public_messages
from agentmatrix.chat.conversation import EVENT_LOG, Event, speakers_of
from agentmatrix.chat.live_messages import MESSAGES_SIGNAL
from agentmatrix.chat.members import GroupMembers
from agentmatrix.chat.message_ids import MessageIds
from agentmatrix.chat.transcript import messages_of
from agentmatrix.chat.turn import GroupSettings
from agentmatrix.compose.scheduled_graph import ScheduledGraph
from agentmatrix.engine.channels import RUN
from agentmatrix.explanation import Explanation, NodeStatus
from agentmatrix.pregel.compiled_graph import NS_SEP, AnyGraph
from agentmatrix.pregel.pending_writes import pending_writes, saved_values, saver_of
from agentmatrix.pregel.task_config import is_for_subgraph, task_namespace, updates_of

__all__ = ["NEXT_TURN", "TOGETHER", "CompiledChatGroup"]

NEXT_TURN: Final = "next_turn"
"""The hidden node that ends the conversation, or chooses who speaks next."""
TOGETHER: Final = "together"
"""The hidden node that runs a broadcast in one task."""

Supersteps = Sequence[Sequence[StateUpdate]]


class CompiledChatGroup(ScheduledGraph):
    """A compiled `ChatGroup`. A live run of it takes the signal `messages`: words into the running conversation."""

    signals = frozenset({MESSAGES_SIGNAL})
    speaks_by_reply = True
    """A member who leaves the group by a command does not pass on what others have said in it."""

    _made_by: tuple[Any, dict[str, Any]] | None = None
    _settings: GroupSettings
    _members: GroupMembers

    def __reduce__(self) -> Any:
        # LangGraph's writers compare with objects that a pickle would copy: what was compiled is compiled again there.
        if self._made_by is None:
            return super().__reduce__()
        group, options = self._made_by
        set_since = {key: self.__dict__[key] for key in ("config", "name", "checkpointer", "store", "cache")}
        return _compiled_again, (group, options, set_since)

    def _explained(self, saved: CheckpointTuple | None, saver: Any, snapshot: StateSnapshot) -> Explanation:
        # The turns are counted by the log: members who speak at the same time do so in one task of the group.
        events = [] if saved is None else saved.checkpoint["channel_values"].get(EVENT_LOG, ())
        speakers = [event["by"] for event in events if "by" in event]
        nodes = map(self._members.shared_node, speakers)
        turns = Counter([*speakers, *(node for node in nodes if node is not None)])

        def counted(status: NodeStatus) -> NodeStatus:
            if not (times := turns[status.node]):
                return status
            return replace(status, times=times, state="ran" if status.state == "waiting" else status.state)

        explanation = super()._explained(saved, saver, snapshot)
        return Explanation({node: counted(status) for node, status in explanation.items()})

    def get_subgraphs(self, *, namespace: str | None = None, recurse: bool = False) -> Iterator[tuple[str, AnyGraph]]:
        """The graphs inside, as in LangGraph. Of members that share a node, those that were made, or that are named."""
        yield from super().get_subgraphs(namespace=namespace, recurse=recurse)
        first, _, deeper = (namespace or "").partition(NS_SEP)
        self._members.make([first])
        for name, graph in self._members.shared_graphs:
            if namespace is None or namespace == name:
                yield name, graph
            if recurse and isinstance(graph, Pregel) and (namespace is None or (name == first and deeper)):
                for below, found in graph.get_subgraphs(namespace=deeper or None, recurse=True):
                    yield f"{name}{NS_SEP}{below}", found

    def _prepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        self._make_speakers(saved)
        return super()._prepare_state_snapshot(config, saved, **options)

    async def _aprepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        self._make_speakers(saved)
        return await super()._aprepare_state_snapshot(config, saved, **options)

    def _make_speakers(self, saved: CheckpointTuple | None) -> None:
        """Make those whose turn it is, so that the state of the graphs inside of them is found."""
        values = saved.checkpoint["channel_values"] if saved is not None else {}
        self._members.make(speakers_of(values.get(EVENT_LOG, ())))

    def bulk_update_state(self, config: RunnableConfig, supersteps: Supersteps) -> RunnableConfig:
        """Edit the state, as in LangGraph. The conversation goes on with whoever was to speak next."""
        if _is_edit(config, supersteps) and (edited := self.get_state(config)).next:
            is_latest = edited.config == self.get_state(_latest(config)).config
            saved = saver_of(self, config).get_tuple(edited.config) if is_latest else None
            supersteps = _with_command(supersteps, _going_on(edited, saved))
        elif self._is_in_a_members_name(config, supersteps):
            saved = saver_of(self, config).get_tuple(config)
            supersteps = self._as_turns(supersteps, self.get_state(config), saved)
        elif _is_edit(config, supersteps) and edited.metadata is not None:
            supersteps = _signed_by_next_turn(supersteps)
        return super(CompiledChatGroup, self._with_nodes_for(supersteps)).bulk_update_state(config, supersteps)

    async def abulk_update_state(self, config: RunnableConfig, supersteps: Supersteps) -> RunnableConfig:
        """Edit the state, as in LangGraph. The conversation goes on with whoever was to speak next."""
        if _is_edit(config, supersteps) and (edited := await self.aget_state(config)).next:
            is_latest = edited.config == (await self.aget_state(_latest(config))).config
            saved = await saver_of(self, config).aget_tuple(edited.config) if is_latest else None
            supersteps = _with_command(supersteps, _going_on(edited, saved))
        elif self._is_in_a_members_name(config, supersteps):
            saved = await saver_of(self, config).aget_tuple(config)
            supersteps = self._as_turns(supersteps, await self.aget_state(config), saved)
        elif _is_edit(config, supersteps) and edited.metadata is not None:
            supersteps = _signed_by_next_turn(supersteps)
        return await super(CompiledChatGroup, self._with_nodes_for(supersteps)).abulk_update_state(config, supersteps)

    def _with_nodes_for(self, supersteps: Supersteps) -> CompiledChatGroup:
        """This graph, with a node for each member in whose name something is written: LangGraph asks for one."""
        named = {str(update.as_node) for updates in supersteps for update in updates}
        nodes = {name: self._members.shared_node(name) for name in named}
        shared = {name: node for name, node in nodes.items() if node is not None}
        if not shared:
            return self
        other = self.copy()
        other.nodes |= {name: other.nodes[node] for name, node in shared.items()}
        return other

    def _is_in_a_members_name(self, config: RunnableConfig, supersteps: Supersteps) -> bool:
        updates = [update for updates in supersteps for update in updates]
        return not is_for_subgraph(config) and any(update.as_node in self._settings.members for update in updates)

    def _as_turns(self, supersteps: Supersteps, edited: StateSnapshot, saved: CheckpointTuple | None) -> Supersteps:
        """The updates, those in the name of a member as turns of the member: signed, and in the log."""
        group, messages = self._settings, messages_of(edited.values)
        number = len(saved.checkpoint["channel_values"].get(EVENT_LOG, ())) if saved else 0
        known = {str(message.id) for message in messages}

        def public(given: list[BaseMessage], name: str, ids: MessageIds) -> list[BaseMessage]:
            return public_messages(given, name, group.members, group.audience_rule, ids.given, is_remembered=True)

        def turn(update: StateUpdate) -> StateUpdate:
            name, values, goto = update.as_node, update.values, list[str]()
            if isinstance(values, Command) and values.graph is None:
                targets = values.goto if isinstance(values.goto, list | tuple) else (values.goto,)
                if not any(isinstance(target, Send) for target in targets):
                    values, goto = dict(updates_of(values)), [str(target) for target in targets]
            if name not in group.members or not isinstance(values, Mapping | None):
                return update
            values = values or {}
            ids = MessageIds(name, known, Claims())
            said = [
                message
                for given in messages_of(values)
                # What is in the transcript is edited, or removed.
                for message in (given.id not in known and public([given], name, ids)) or [given]
            ]
            spoken = [str(message.id) for message in said if not isinstance(message, RemoveMessage) and message.id]
            event = Event(by=name, message_ids=spoken, seen_events=number)
            event["seen_message"] = messages[-1].id if messages else None
            if END in goto:
                event["stop_reason"] = f"{name} ended it"
            elif goto:
                event["goto"] = goto
            return update._replace(values={**values, "messages": said, EVENT_LOG: [event]})

        turns = [[turn(update) for update in updates] for updates in supersteps]
        return (
            turns
            if saved is None or RUN in saved.checkpoint["channel_values"]
            else _with_waiting_members(turns, edited)
        )


def _compiled_again(group: Any, options: dict[str, Any], set_since: dict[str, Any]) -> CompiledChatGroup:
    graph: CompiledChatGroup = group.compile(**options)
    graph.__dict__.update(set_since)
    return graph


def _is_edit(config: RunnableConfig, supersteps: Supersteps) -> bool:
    """Whether there is an edit of this group's own state that names no node."""
    if is_for_subgraph(config):
        return False
    return any(_is_unsigned(update) for updates in supersteps for update in updates)


def _is_unsigned(update: StateUpdate) -> bool:
    return update.as_node in (None, NEXT_TURN) and update.values is not None and not isinstance(update.values, Command)


def _latest(config: RunnableConfig) -> RunnableConfig:
    configurable = {key: value for key, value in config["configurable"].items() if key != "checkpoint_id"}
    return {**config, "configurable": configurable}


def _with_command(supersteps: Supersteps, command: Command[Any]) -> Supersteps:
    """The edits, each with the command that the conversation goes on with."""

    def replaced(update: StateUpdate) -> StateUpdate:
        # A node may answer with several commands, which is no dict.
        answer: Any = [Command(update=update.values), command]
        return StateUpdate(answer, NEXT_TURN, update.task_id)

    return [[replaced(update) if _is_unsigned(update) else update for update in updates] for updates in supersteps]


def _with_waiting_members(turns: Supersteps, edited: StateSnapshot) -> Supersteps:
    """These turns before the first one of a run, which START has given the floor for: another member keeps it.

    A step of the group's own keeps it beside the state; LangGraph forgets whom START has gone to."""
    named = {update.as_node for updates in turns for update in updates}
    waiting = [name for name in edited.next if name not in {*named, START, NEXT_TURN}]
    if not waiting or END in named:
        return turns
    return [*turns[:-1], [*turns[-1], StateUpdate([Command(goto=waiting)], NEXT_TURN)]]  # type: ignore[arg-type]


def _signed_by_next_turn(supersteps: Supersteps) -> Supersteps:
    """The edits of a conversation that is over, and stays so: LangGraph would take them for a turn of a member."""
    return [
        [update._replace(as_node=NEXT_TURN) if _is_unsigned(update) else update for update in updates]
        for updates in supersteps
    ]


def _going_on(edited: StateSnapshot, saved: CheckpointTuple | None) -> Command[Any]:
    """The command that goes on from a state: to the nodes that were to run, with what those at work have done so far.

    Args:
        edited: the state.
        saved: the same as the checkpointer has it; None for a state of the past, from which the turn begins anew.
    """
    if saved is None:
        return Command(goto=list(edited.next))
    events = saved.checkpoint["channel_values"].get(EVENT_LOG, ())
    written = pending_writes(saved)
    results: dict[str, Any] = {result[EVENT_LOG][-1]["by"]: result for result in saved_values(saved)}
    event = Event()
    for task in edited.tasks:
        if EVENT_LOG in (update := written.get(task.id, {})):
            results[task.name] = update
        elif task.interrupts:
            namespace = task_namespace(edited.config, task.name, task.id)
            values = [interrupt.value for interrupt in task.interrupts]
            asked = {"ns": namespace, "values": values, "at": time.time()}
            event.setdefault("interrupts", {})[task.name] = asked
    if results:
        event["results"] = results
    goto = [task.name for task in edited.tasks]
    if TOGETHER in goto and results:
        goto = speakers_of(events)
    return Command(goto=goto, update={EVENT_LOG: [event]} if event else None)
