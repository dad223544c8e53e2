"""The hidden nodes of a chat group: `next_turn`, which ends the conversation or goes to those who speak next, and
`together`, which runs a broadcast in one task."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END
from langgraph.types import Command

from agentmatrix.chat.compiled_group import NEXT_TURN, TOGETHER
from agentmatrix.chat.conversation import EVENT_LOG, Conversation, Event, speakers_of
from agentmatrix.chat.group_middleware import apassed_words, conversation_of, passed_words
from agentmatrix.chat.parallel import ParallelTurns
from agentmatrix.chat.reply import Reply, reply_update
from agentmatrix.chat.speaker import Selection, Speaker
from agentmatrix.chat.stop import Stop
from agentmatrix.chat.turn import GroupSettings
from agentmatrix.chat.usage import UsageCounter
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.task_config import parent_node_of
from agentmatrix.pregel.virtual_tasks import LoopHandle

__all__ = ["GroupNodes"]


class GroupNodes:
    """Makes the hidden nodes.

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

    def together(self) -> Any:
        """The node that runs a broadcast in one task."""
        parallel = self.parallel

        def together(state: dict[str, Any], config: RunnableConfig) -> list[Command[Any]]:
            conversation = conversation_of(state, self.settings)
            outcome = parallel.run(state, conversation, speakers_of(conversation.events), config)
            return outcome.command(NEXT_TURN)

        async def atogether(state: dict[str, Any], config: RunnableConfig) -> list[Command[Any]]:
            conversation = conversation_of(state, self.settings)
            outcome = await parallel.arun(state, conversation, speakers_of(conversation.events), config)
            return outcome.command(NEXT_TURN)

        return runnable(together, atogether, name=TOGETHER)

    def next_turn(self) -> Any:
        """The node that runs before each turn."""
        parallel, live = self.parallel, self.parallel.live

        def next_turn(state: dict[str, Any], config: RunnableConfig) -> Any:
            parallel.raise_failure(config)
            if words := live.take(config):
                return _goes_on_with(*passed_words(words, state, self.settings))
            conversation = conversation_of(state, self.settings)
            if command := self._end_or_resume(conversation, config):
                return command
            counter, counted = self._count_selector(config)
            handed_over = conversation.handoff
            chosen = Selection(handed_over) if handed_over else self.speaker.next(conversation, counted)
            command, event = self._route(conversation, chosen, config, counter)
            if command:
                return command
            if len(chosen.names) == 1:
                return _after(event, parallel.speak_here(state, conversation, chosen.names[0], config))
            return parallel.run(state, conversation, chosen.names, config).command(NEXT_TURN, event)

        async def anext_turn(state: dict[str, Any], config: RunnableConfig) -> Any:
            parallel.raise_failure(config)
            if words := await live.atake(config):
                return _goes_on_with(*await apassed_words(words, state, self.settings))
            conversation = conversation_of(state, self.settings)
            if command := self._end_or_resume(conversation, config):
                return command
            counter, counted = self._count_selector(config)
            handed_over = conversation.handoff
            chosen = Selection(handed_over) if handed_over else await self.speaker.anext(conversation, counted)
            command, event = self._route(conversation, chosen, config, counter)
            if command:
                return command
            if len(chosen.names) == 1:
                return _after(event, await parallel.aspeak_here(state, conversation, chosen.names[0], config))
            return (await parallel.arun(state, conversation, chosen.names, config)).command(NEXT_TURN, event)

        return runnable(next_turn, anext_turn, name=NEXT_TURN)

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
        used = counter.usage() if counter else Event()
        names, fallback = chosen
        if fallback:
            used["fallback"] = fallback
            get_stream_writer()({"speaker": self.speaker.label, "fallback": fallback, "next": names})
        if not names:
            return self._end(conversation, {**used, "stop_reason": f"{self.speaker.label} chose nobody"}, config), used
        event: Event = {**used, "speakers": list(names), "turn": conversation.turns + 1}
        if self.parallel.can_speak_here(names, config):
            return None, event
        if not self.parallel.can_run(names, config):
            return Command(goto=list(names), update={EVENT_LOG: [event]}), event
        # With a checkpointer the choice is saved before the turns begin: they run in a task of their own.
        has_checkpointer = LoopHandle(config).has_checkpointer
        return Command(goto=TOGETHER, update={EVENT_LOG: [event]}) if has_checkpointer else None, event

    def _end(self, conversation: Conversation, event: Event, config: RunnableConfig) -> Command[Any]:
        ends = {"stop_reason": event["stop_reason"], "last_speaker": conversation.last_speaker}
        author = parent_node_of(config) or self.name
        update = reply_update(self.reply, conversation, author, ends)
        return Command(goto=END, update={**update, EVENT_LOG: [event]})


def _goes_on_with(words: list[BaseMessage], event: Event) -> Command[Any]:
    return Command(goto=NEXT_TURN, update={"messages": words, EVENT_LOG: [event]})


def _after(event: Event, update: dict[str, Any]) -> Command[Any]:
    """The command of a turn that was taken in the task of its choice."""
    return Command(goto=NEXT_TURN, update={**update, EVENT_LOG: [event, *update[EVENT_LOG]]})
