"""The nodes of a chat group: `next_turn`, which ends the conversation or goes to those who speak next; `together`,
which runs a broadcast in one task; and those of the members, which go on to `next_turn`.

A member's node asks the stop and the speaker itself: it then goes to the next member, and a turn is one step with one
checkpoint. START chooses the first member, and the last turn ends the conversation, where nobody would miss the step in
between. Before a model or a function of the user is asked, the turn is saved beside the checkpoint: a run that is
killed meanwhile goes on with that question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.errors import GraphBubbleUp
from langgraph.graph import END
from langgraph.types import Command

from agentmatrix.chat.compiled_group import NEXT_TURN, TOGETHER
from agentmatrix.chat.conversation import EVENT_LOG, Conversation, Event, speakers_of
from agentmatrix.chat.group_middleware import apassed_words, conversation_of, passed_words
from agentmatrix.chat.member import Member
from agentmatrix.chat.parallel import ParallelTurns
from agentmatrix.chat.reply import Reply, changes_between, reply_update
from agentmatrix.chat.speaker import Selection, Speaker
from agentmatrix.chat.stop import Stop
from agentmatrix.chat.turn import GroupSettings
from agentmatrix.chat.usage import UsageCounter
from agentmatrix.pregel.compiled_graph import branch_channel
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.task_config import node_of, parent_node_of
from agentmatrix.pregel.virtual_tasks import LoopHandle

__all__ = ["GroupNodes", "nodes_after"]


class _EndedTurn(NamedTuple):
    """The turn of a member that has ended.

    Attributes:
        update: the update of the group's state; of `after_turn`, if no speaker is to be asked.
        conversation: the conversation that the speaker is asked about; None if it is not to be asked.
        counter: counts what the speaker uses.
        config: the config to call the speaker with.
    """

    update: Any
    conversation: Conversation | None = None
    counter: UsageCounter | None = None
    config: RunnableConfig = RunnableConfig()


class GroupNodes:
    """Makes the nodes.

    Args:
        speaker: chooses the next members.
        stop: ends the conversation; None for the bound alone.
        max_turns: the bound.
        reply: as of `ChatGroup`.
        name: the author of the reply, if the node that the group stands in does not give one.
        settings: the settings of the group.
        parallel: runs turns of several members at the same time.
    """

    def __init__(
        self,
        speaker: Speaker,
        stop: Stop | None,
        max_turns: int,
        reply: Reply,
        name: str | None,
        settings: GroupSettings,
        parallel: ParallelTurns,
    ) -> None:
        self.speaker, self.stop, self.max_turns = speaker, stop, max_turns
        self.reply, self.name = reply, name
        self.settings, self.parallel = settings, parallel
        self._is_pure = speaker.is_pure and (stop is None or stop.is_pure)
        self._failures = ChoiceFailures()

    def together(self) -> Any:
        """The node that runs a broadcast in one task."""
        parallel = self.parallel

        def together(state: dict[str, Any], config: RunnableConfig) -> Command[Any] | list[Command[Any]]:
            conversation = conversation_of(state, self.settings)
            names = speakers_of(conversation.events)
            if not parallel.can_run(names, config):
                return Command(goto=names)
            outcome = parallel.run(state, conversation, names, config)
            return outcome.command(NEXT_TURN)

        async def atogether(state: dict[str, Any], config: RunnableConfig) -> Command[Any] | list[Command[Any]]:
            conversation = conversation_of(state, self.settings)
            names = speakers_of(conversation.events)
            if not parallel.can_run(names, config):
                return Command(goto=names)
            outcome = await parallel.arun(state, conversation, names, config)
            return outcome.command(NEXT_TURN)

        return runnable(together, atogether, name=TOGETHER)

    def next_turn(self) -> Any:
        """The node that runs before each turn."""
        parallel, live = self.parallel, self.parallel.live

        def next_turn(state: dict[str, Any], config: RunnableConfig) -> Any:
            parallel.raise_failure(config)
            failure = self._failures.take(config)
            if words := live.take(config):
                return _goes_on_with(*passed_words(words, state, self.settings))
            if failure is not None:
                raise failure
            conversation = conversation_of(state, self.settings)
            if command := self._end_or_resume(conversation, config):
                return command
            counter, counted = self._count_selector(config)
            chosen = _handed_over(conversation) or self.speaker.next(conversation, counted)
            command, event = self._route(conversation, chosen, config, counter)
            if command:
                return command
            return parallel.run(state, conversation, chosen.names, config).command(NEXT_TURN, event)

        async def anext_turn(state: dict[str, Any], config: RunnableConfig) -> Any:
            parallel.raise_failure(config)
            failure = self._failures.take(config)
            if words := await live.atake(config):
                return _goes_on_with(*await apassed_words(words, state, self.settings))
            if failure is not None:
                raise failure
            conversation = conversation_of(state, self.settings)
            if command := self._end_or_resume(conversation, config):
                return command
            counter, counted = self._count_selector(config)
            chosen = _handed_over(conversation) or await self.speaker.anext(conversation, counted)
            command, event = self._route(conversation, chosen, config, counter)
            if command:
                return command
            return (await parallel.arun(state, conversation, chosen.names, config)).command(NEXT_TURN, event)

        return runnable(next_turn, anext_turn, name=NEXT_TURN)

    def route_input(self, state: Mapping[str, Any], config: RunnableConfig) -> list[tuple[str, Any]] | None:
        """The first choice, as what START writes, where that is a rule's; None where `next_turn` is to make it.

        Args:
            state: the state that the conversation begins with.
            config: the config of the run.
        """
        if not self._is_pure or self.speaker.is_free or self.parallel.live.may_come(config):
            return None
        conversation = conversation_of(state, self.settings)
        try:
            if self._stop_reason(conversation):
                return None
            counter, counted = self._count_selector(config)
            chosen = self.speaker.next(conversation, counted)
            event = self._choice(conversation, chosen, counter)
        except Exception:
            return None
        [*others, name] = chosen.names or [""]
        return None if others or not name else [(EVENT_LOG, [event]), (branch_channel(name), None)]

    def member(self, member: Member) -> Runnable[Any, Any]:
        """The node of a member."""
        return _MemberNode(self, member.name, lambda config: member)

    def shared(self, node: str, members: Mapping[str, Member]) -> Runnable[Any, Any]:
        """A node that stands for many members: a task of it has the name of the member."""
        return _MemberNode(self, node, lambda config: members[node_of(config) or ""])

    def after_turn(self, update: Any, member: str, state: dict[str, Any], config: RunnableConfig) -> Any:
        """The update of a member's turn, with the choice of the next member if that can be made in the same task.

        Args:
            update: the update of the group's state.
            member: the name of the member.
            state: the state that the turn began with.
            config: the config of the member's task.
        """
        conversation = self._conversation_after(update, member, state, config)
        if conversation is None:
            return update
        if (saving := self._save_turn(update, config)) is not None:
            saving.result()
        try:
            turn = self._ended_turn(update, conversation, config)
            if turn.conversation is None:
                return turn.update
            return self._with_choice(turn, self.speaker.next(turn.conversation, turn.config), config)
        except Exception as error:
            self._failures.put_off(error, config)
            return update

    async def aafter_turn(self, update: Any, member: str, state: dict[str, Any], config: RunnableConfig) -> Any:
        """The same as `after_turn`, async."""
        conversation = self._conversation_after(update, member, state, config)
        if conversation is None:
            return update
        if (saving := self._save_turn(update, config)) is not None:
            await saving
        try:
            turn = self._ended_turn(update, conversation, config)
            if turn.conversation is None:
                return turn.update
            return self._with_choice(turn, await self.speaker.anext(turn.conversation, turn.config), config)
        except Exception as error:
            self._failures.put_off(error, config)
            return update

    def _ended_turn(self, update: dict[str, Any], conversation: Conversation, config: RunnableConfig) -> _EndedTurn:
        """What a turn has come to before the speaker is asked."""
        if reason := self._stop_reason(conversation):
            return _EndedTurn(self._with_event(update, Event(stop_reason=reason), conversation, config))
        turn = _EndedTurn(update, conversation, *self._count_selector(config))
        if chosen := _handed_over(conversation):
            return _EndedTurn(self._with_choice(turn, chosen, config))
        return turn

    def _with_choice(self, turn: _EndedTurn, chosen: Selection, config: RunnableConfig) -> Any:
        """The update of a turn with the choice of the next one."""
        assert turn.conversation is not None
        event = self._choice(turn.conversation, chosen, turn.counter)
        return self._with_event(turn.update, event, turn.conversation, config)

    def _save_turn(self, update: dict[str, Any], config: RunnableConfig) -> Any:
        """A model or a function of the user may take long to choose: a turn that was made and paid is saved before.
        Returns what is to be waited for."""
        if self._is_pure or not LoopHandle(config).has_checkpointer:
            return None
        return self.parallel.save_turn(update, config)

    def _conversation_after(
        self, update: Any, member: str, state: dict[str, Any], config: RunnableConfig
    ) -> Conversation | None:
        """The conversation after a turn; None if the next one is to be chosen in a task of its own: where each answer
        is shown at once, and whatever is decided by more than this turn."""
        events = state.get(EVENT_LOG, [])
        if not isinstance(update, dict) or speakers_of(events) != [member] or not self.settings.appends_messages:
            return None
        loop = LoopHandle(config)
        if loop.breakpoints or loop.other_tasks or self.parallel.live.may_come(config):
            return None
        if not self._is_pure and (loop.is_followed or update.keys() - {"messages", EVENT_LOG}):
            return None
        return conversation_of(state, self.settings, update)

    def _with_event(
        self, update: dict[str, Any], event: Event, conversation: Conversation, config: RunnableConfig
    ) -> Any:
        """The update of a turn with an event behind its own. Where the end cannot be made in this task, or where a rule
        does not lead on to one member, `next_turn` decides; a model and a function of the user are asked once."""
        if "stop_reason" in event and (ended := self._end_with_turn(update, event, conversation, config)) is not None:
            return ended
        if self._is_pure and len(event.get("speakers", ())) != 1:
            return update
        return {**update, EVENT_LOG: [*update[EVENT_LOG], event]}

    def _end_with_turn(
        self, update: dict[str, Any], event: Event, conversation: Conversation, config: RunnableConfig
    ) -> Command[Any] | None:
        """The command that ends the conversation with a turn. None where the turn is to be seen before the reply: by
        whoever follows the run, or in the history of the thread, if the reply leaves out what it has said."""
        loop = LoopHandle(config)
        if loop.is_streamed or loop.is_followed or loop.node_handlers:
            return None
        if loop.has_checkpointer and callable(self.reply):
            return None
        end, said = self._reply(conversation, event, config), update["messages"]
        if "messages" in end:
            replied = end["messages"].value
            if loop.has_checkpointer and not {message.id for message in said}.issubset(one.id for one in replied):
                return None
            # What a task has done is read in histories: its own words, and not all of the conversation once more.
            end["messages"] = changes_between(conversation.messages[: len(conversation.messages) - len(said)], replied)
        return Command(goto=END, update={**update, **end, EVENT_LOG: [*update[EVENT_LOG], event]})

    def _end_or_resume(self, conversation: Conversation, config: RunnableConfig) -> Command[Any] | None:
        """The command that ends the conversation or resumes interrupted members; None if a speaker is to be chosen."""
        if LoopHandle(config).other_tasks & set(self.settings.members):
            # After an edit of the state: members of the last turn are still at work in this step, and lead here again.
            return Command()
        if reason := self._stop_reason(conversation):
            return self._end(conversation, Event(stop_reason=reason), config)
        if interrupted := conversation.interrupted:
            return Command(goto=list(interrupted))
        return None

    def _stop_reason(self, conversation: Conversation) -> str | None:
        if reason := conversation.decided_end:
            return reason
        if self.stop and (reason := self.stop.reason(conversation)):
            return reason
        return f"max_turns bound ({self.max_turns})" if conversation.turns >= self.max_turns else None

    def _count_selector(self, config: RunnableConfig) -> tuple[UsageCounter | None, RunnableConfig]:
        """A counter, and the config to call the speaker with: the budget pays for a model that selects too."""
        if not self.settings.counts_usage:
            return None, config
        counter = UsageCounter()
        return counter, counter.attach(config)

    def _route(
        self,
        conversation: Conversation,
        chosen: Selection,
        config: RunnableConfig,
        counter: UsageCounter | None,
    ) -> tuple[Command[Any] | None, Event]:
        """The command that goes to the chosen members, or None if their turns run in this task; and the event."""
        if self.speaker.is_free:
            return None, Event(speakers=[])
        names, event = chosen.names, self._choice(conversation, chosen, counter)
        if not names:
            return self._end(conversation, event, config), event
        if not self.parallel.can_run(names, config):
            return Command(goto=list(names), update={EVENT_LOG: [event]}), event
        # With a checkpointer the choice is saved before the turns begin: they run in a task of their own.
        has_checkpointer = LoopHandle(config).has_checkpointer
        return Command(goto=TOGETHER, update={EVENT_LOG: [event]}) if has_checkpointer else None, event

    def _choice(self, conversation: Conversation, chosen: Selection, counter: UsageCounter | None) -> Event:
        """The event of a choice. A fallback is told in the stream too."""
        event, (names, fallback) = counter.usage() if counter else Event(), chosen
        if fallback:
            event["fallback"] = fallback
            get_stream_writer()({"speaker": self.speaker.label, "fallback": fallback, "next": names})
        if not names:
            return {**event, "stop_reason": f"{self.speaker.label} chose nobody"}
        return {**event, "speakers": list(names), "turn": conversation.turns + 1}

    def _end(self, conversation: Conversation, event: Event, config: RunnableConfig) -> Command[Any]:
        return Command(goto=END, update={**self._reply(conversation, event, config), EVENT_LOG: [event]})

    def _reply(self, conversation: Conversation, event: Event, config: RunnableConfig) -> dict[str, Any]:
        """The update of the state with which a conversation ends."""
        ends = {"stop_reason": event["stop_reason"], "last_speaker": conversation.last_speaker}
        author = parent_node_of(config) or self.name
        return reply_update(self.reply, conversation, author, ends)


def _goes_on_with(words: list[BaseMessage], event: Event) -> Command[Any]:
    return Command(goto=NEXT_TURN, update={"messages": words, EVENT_LOG: [event]})


def _handed_over(conversation: Conversation) -> Selection | None:
    return Selection(names) if (names := conversation.handoff) else None


def nodes_after(answer: Any) -> list[str]:
    """The nodes that a member's answer leads to; none where `next_turn` is to choose, or to end it."""
    if isinstance(answer, Command) and answer.goto == END:
        return [END]
    log = answer.get(EVENT_LOG) if isinstance(answer, dict) else None
    names = log[-1].get("speakers", []) if log else []
    return names if len(names) < 2 else [TOGETHER]


class ChoiceFailures:
    """What choosers have raised in the tasks of members. The turn counts all the same: `next_turn` raises it."""

    def __init__(self) -> None:
        # By LangGraph's loop. A run that goes on after a failure asks again.
        self._failures: WeakKeyDictionary[Any, Exception] = WeakKeyDictionary()

    def put_off(self, error: Exception, config: RunnableConfig) -> None:
        """Keep an error until the next turn is to be chosen. Questions to a person are asked there anew."""
        if not isinstance(error, GraphBubbleUp):
            self._failures[LoopHandle(config).loop] = error

    def take(self, config: RunnableConfig) -> Exception | None:
        """The error that was put off in this run, once."""
        return self._failures.pop(LoopHandle(config).loop, None)


class _MemberNode(Runnable[Any, Any]):
    # LangGraph looks for graphs in what a function refers to, which takes longer than to make the node.

    def __init__(self, nodes: GroupNodes, node: str, member_of: Callable[[RunnableConfig], Member]) -> None:
        self.name = node
        self._nodes, self._member_of = nodes, member_of

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        member = self._member_of(config)
        update = self._nodes.parallel.take_over(member, input, config)
        return self._nodes.after_turn(update, member.name, input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        member = self._member_of(config)
        update = await self._nodes.parallel.atake_over(member, input, config)
        return await self._nodes.aafter_turn(update, member.name, input, config)
