"""A member of a chat group: an agent, and what one turn of it means for the group.

A `Member` keeps nothing between turns but views of a transcript, by run. Turns of different members may run at the same
time, on any thread; those of one in a run follow each other.
"""

from __future__ import annotations

import copy
import logging
import time
from asyncio import CancelledError
from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp, ParentCommand

from agentmatrix.agent import as_agent, names_of_bound_tools, only_calls_models
from agentmatrix.agent.agent_kinds import InstructedAgent
from agentmatrix.chat.authorship import AgentNameMode
from agentmatrix.chat.claims import Claims
from agentmatrix.chat.conversation import EVENT_LOG, interrupted_members, last_seen, last_summary
from agentmatrix.chat.group_middleware import apassed_turn, passed_turn
from agentmatrix.chat.handoff import (
    left_out_of_handoff,
    note_on_handoffs,
    whole_handoff,
    with_handoff_targets,
)
from agentmatrix.chat.history import History, ShortenedHistory
from agentmatrix.chat.human import answer_timeout
from agentmatrix.chat.member_options import MemberOptions
from agentmatrix.chat.memory import with_missing_results
from agentmatrix.chat.message_ids import MessageIds
from agentmatrix.chat.shared_summary import ashorten_turn, shorten_turn
from agentmatrix.chat.transcript import (
    is_go_on,
    messages_of,
    with_go_on,
    with_note,
    with_users_words,
)
from agentmatrix.chat.turn import GroupSettings, Turn, TurnStart, coerce_state
from agentmatrix.chat.turn_update import TurnUpdates
from agentmatrix.chat.usage import UsageCounter
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.pregel.attempts import arun_attempts, run_attempts
from agentmatrix.pregel.callback_handlers import with_message_ids
from agentmatrix.pregel.compiled_graph import PregelProtocol
from agentmatrix.pregel.runnables import node_runnable, runnable
from agentmatrix.pregel.task_config import command_for_node, intercept_writes
from agentmatrix.pregel.virtual_tasks import LoopHandle, reraise_interrupt, seconds_since_question

__all__ = ["Member"]

_NO_OPTIONS = MemberOptions()
_log = logging.getLogger(__name__)


class Member:
    """An agent in a group: shows it the transcript, and makes an update of the group's state from its answer.

    Args:
        name: the name of the member.
        agent: whatever `as_agent` takes.
        settings: the settings of the group.
        options: the options of the member.
        instructions: those of an agent that other members have too, as of `AgentKinds`; None for an agent of its own.

    Raises:
        BuildError: the agent is a chat model with tools that nobody would run.

    Attributes:
        graphs: the agent, if it is a graph.
        is_model: whether the agent is a bare chat model.
        only_calls_models: whether it does nothing but call chat models, also with instructions.
    """

    def __init__(
        self,
        name: str,
        agent: Any,
        settings: GroupSettings,
        options: MemberOptions = _NO_OPTIONS,
        instructions: str | None = None,
    ) -> None:
        self.is_model = isinstance(agent, BaseChatModel)
        if not self.is_model and (tools := names_of_bound_tools(agent)):
            raise BuildError(
                f"the member {name!r} is a chat model with the tools {', '.join(map(repr, tools))} bound to it, which "
                "nobody would run: use as_agent(model, tools=[...])"
            )
        self.name = name
        self._settings, self._options = settings, options
        own = History(options.history, tuple(settings.names.values())) if options.history is not None else None
        self._answer_timeout = None if self.is_model else answer_timeout(agent)
        self._history, self._summary_key = own or settings.history, name if own else ""
        made = agent if self.is_model or instructions is not None else as_agent(agent, name=name)
        self.graphs = [made] if isinstance(made, PregelProtocol) else []
        self._remembers = any(getattr(graph, "checkpointer", None) is True for graph in self.graphs)
        self.only_calls_models = only_calls_models(agent)
        self._updates = TurnUpdates(name, settings, options, is_graph=bool(self.graphs), summary_key=self._summary_key)
        # A bare model is called without an adapter: it takes messages and returns one, and a broadcast calls many.
        self._agent: Runnable[Any, Any]
        if self.is_model:
            self._agent = agent
        else:
            self._agent = made if isinstance(made, Runnable) else node_runnable(made, name)
        if instructions is not None:
            self._agent = InstructedAgent(self._agent, instructions)
        # A function reads names itself; in whatever else there may be a model.
        has_model = isinstance(made, Runnable | PregelProtocol) and not isinstance(agent, RunnableLambda)
        self._mode: AgentNameMode = settings.modes.get(name, "inline" if has_model else None)

    @property
    def known_graphs(self) -> list[Any]:
        """The graphs that LangGraph is to know of, for state and streams of subgraphs.

        A graph with `checkpointer=False` is left out, as LangGraph leaves it out.
        """
        is_known = any(getattr(graph, "checkpointer", None) is not False for graph in self.graphs)
        return self.graphs if is_known else []

    def speak_in_task(
        self,
        state: dict[str, Any],
        config: RunnableConfig,
        claims: Claims | None = None,
        heard: str | None = None,
    ) -> Any:
        """Take a turn in a LangGraph task of the member's own. The turn may resume one that was interrupted.

        Args:
            state: the state of the group.
            config: the config of the task.
            claims: as of `TurnStart`, where others speak at the same time.
            heard: the id of the last message that the member is to hear; None for all messages.
        """
        if self._answer_timeout and self._is_too_late(self._answer_timeout, state, config):
            return self._updates.of_silence(self._begin_in_task(state, config, claims, heard))
        config = self._resuming(state, config)
        return self.speak(self._begin_in_task(state, config, claims, heard), config)

    async def aspeak_in_task(
        self,
        state: dict[str, Any],
        config: RunnableConfig,
        claims: Claims | None = None,
        heard: str | None = None,
    ) -> Any:
        """The same as `speak_in_task`, async."""
        if self._answer_timeout and self._is_too_late(self._answer_timeout, state, config):
            return self._updates.of_silence(self._begin_in_task(state, config, claims, heard))
        config = self._resuming(state, config)
        return await self.aspeak(self._begin_in_task(state, config, claims, heard), config)

    def _begin_in_task(
        self, state: dict[str, Any], config: RunnableConfig, claims: Claims | None, heard: str | None
    ) -> Turn:
        handle = LoopHandle(config)
        has_checkpointer = bool(self.graphs) and handle.has_checkpointer
        # Turns of other members may begin beside this one.
        with self._settings.transcripts.lock:
            transcript = self._settings.transcripts.of(handle.loop, messages_of(state))
            until = transcript.position_after(heard)
            return self.begin_turn(TurnStart(state, transcript, until, claims or Claims(), has_checkpointer))

    def begin_turn(self, at: TurnStart) -> Turn:
        """A turn of the member that is asked `at` this point of the conversation."""
        transcript, until, events = at.transcript, at.until, at.events
        remembers = at.has_checkpointer and self._remembers
        log = self._settings.log.summary(events)
        left_out = left_out_of_handoff(transcript, events, self.name) if log.has_given else ()
        given = transcript.seen_by(self.name, until, self._mode, remembers=remembers, left_out=left_out)
        if remembers and (is_go_on(given[-1]) or not transcript.has_any_since(given, last_seen(events, self.name))):
            # A turn that was given up in the middle has left words in its memory which nobody else knows of.
            given = with_go_on(given)
        unknown = 0
        if last := log.last_turns.get(self.name):
            note, unknown = note_on_handoffs(events, last, self.name, self._settings.members)
            given = given if note is None else with_note(given, note)
        shared = summary = None
        if self._history and self._history.sums_up:
            shared = None if self._summary_key else transcript.seen_by(None, until, self._mode)
            summary = last_summary(events, self._summary_key)
        return Turn(
            input=given if self.is_model else self._state_for_agent(at.state, given),
            given=given,
            ids=MessageIds(self.name, transcript.positions, at.claims),
            at=at,
            usage=UsageCounter() if self._settings.counts_usage else None,
            shared=shared,
            summary=summary,
            remembers=remembers,
            unknown=unknown,
        )

    def speak(self, turn: Turn, config: RunnableConfig) -> Any:
        """Take a turn.

        Returns:
            An update of the group's state with one event, or a command for a graph further out.
        """
        inner, pushed = self._config(turn, config)
        summary = None
        try:
            if self._history:
                short = shorten_turn(self._history, turn, inner)
                turn, summary = self._with_history(turn, short), short.summary
            if not self._options.has_attempts:
                answer = self._ask(turn.input, inner)
            elif self._options.timeout:
                raise BuildError(
                    f"the member {self.name!r} has timeout=, and a sync run cannot cut it off: use ainvoke or astream"
                )
            else:
                answer = run_attempts(self._attempt(turn), turn.input, inner, self._options.retry_policies)
        except Exception as error:
            if self._is_raised(error):
                raise
            update = self._updates.of_failure(error, turn)
        else:
            update = self._updates.of_answer(answer, turn, config, summary, pushed)
        return passed_turn(update, turn, self.name, self._settings, config)

    async def aspeak(self, turn: Turn, config: RunnableConfig) -> Any:
        """The same as `speak`, async."""
        inner, pushed = self._config(turn, config)
        summary = None
        try:
            if self._history:
                short = await ashorten_turn(self._history, turn, inner)
                turn, summary = self._with_history(turn, short), short.summary
            if not self._options.has_attempts:
                answer = await self._aask(turn.input, inner)
            else:
                policies, timeout = self._options.retry_policies, self._options.timeout
                answer = await arun_attempts(self._attempt(turn), turn.input, inner, policies, timeout)
        except Exception as error:
            if self._is_raised(error):
                raise
            update = self._updates.of_failure(error, turn)
        else:
            update = self._updates.of_answer(answer, turn, config, summary, pushed)
        if self._settings.middleware is None:
            return update
        return await apassed_turn(update, turn, self.name, self._settings, config)

    def _ask(self, given: Any, config: RunnableConfig) -> Any:
        """The answer of the agent. A command from inside it is one, unless it is meant for a graph further out."""
        try:
            if self._remembers and LoopHandle(config).has_checkpointer:
                given = with_missing_results(given, self.graphs[0].get_state(config))
            return self._agent.invoke(given, config)
        except ParentCommand as error:
            if command_for_node(error, config) is None:
                raise
            return whole_handoff(error)

    async def _aask(self, given: Any, config: RunnableConfig) -> Any:
        """The same as `_ask`, async."""
        try:
            if self._remembers and LoopHandle(config).has_checkpointer:
                given = with_missing_results(given, await self.graphs[0].aget_state(config))
            return await self._agent.ainvoke(given, config)
        except ParentCommand as error:
            if command_for_node(error, config) is None:
                raise
            return whole_handoff(error)

    def _attempt(self, turn: Turn) -> Runnable[Any, Any]:
        def ask(given: Any, config: RunnableConfig) -> Any:
            if turn.at.claims.is_over:
                raise CancelledError  # In a thread nothing else ends the tries of a turn that was cut off.
            return self._ask(given, config)

        return runnable(ask, self._aask, name=self.name)

    def _config(self, turn: Turn, config: RunnableConfig) -> tuple[RunnableConfig, list[Any]]:
        """The config that the agent is called with, and the messages that it pushes, by `push_message`."""
        config = with_message_ids(turn.usage.attach(config) if turn.usage else config, turn.ids.given)
        if self._settings.holds:
            config = {**config, "tags": [*(config.get("tags") or []), TAG_NOSTREAM]}
        if self.is_model:
            return config, []
        if self.graphs:
            return with_handoff_targets(config, self._settings.members), []
        return intercept_writes(config, "messages")

    def _with_history(self, turn: Turn, short: ShortenedHistory) -> Turn:
        """The turn with the messages that are left of it."""
        given = with_users_words(short.messages, remembers=turn.remembers)
        if turn.given and is_go_on(turn.given[-1]):
            given = with_note(given, turn.given[-1])
        if self.is_model:
            return turn._replace(input=given, given=given)
        if isinstance(turn.input, Mapping):
            return turn._replace(input={**turn.input, "messages": given}, given=given)
        changed = copy.copy(turn.input)
        changed.messages = given
        return turn._replace(input=changed, given=given)

    def _is_raised(self, error: Exception) -> bool:
        """Whether an error of the agent ends the run: also one that says that the group is not built right."""
        return self._options.on_error == "raise" or isinstance(error, GraphBubbleUp | BuildError | SpeakerError)

    def _is_too_late(self, timeout: float, state: dict[str, Any], config: RunnableConfig) -> bool:
        """Whether a person was asked longer ago than the limit, and no answer has come."""
        if (waited := seconds_since_question(config)) is None:
            return False
        asked = interrupted_members(state.get(EVENT_LOG, ())).get(self.name)
        return (time.time() - asked["at"] if asked else waited) >= timeout

    def _resuming(self, state: dict[str, Any], config: RunnableConfig) -> RunnableConfig:
        """The config to resume an interrupted turn of the member with; the config itself if there is none.

        Raises:
            GraphInterrupt: the interrupt has no answer yet.
        """
        events = state.get(EVENT_LOG, ())
        if not self._settings.log.summary(events).has_interrupts:
            return config
        interrupts = interrupted_members(events).get(self.name)
        if not interrupts:
            return config
        return reraise_interrupt(config, interrupts["ns"], interrupts["values"], inside=bool(self.graphs))

    def _state_for_agent(self, state: Mapping[str, Any], seen: list[BaseMessage]) -> Any:
        shared = {key: value for key, value in state.items() if key in self._settings.keys}
        shared["messages"] = seen
        return shared if self.graphs else coerce_state(self._settings.state_schema, shared)
