"""What a turn of a member comes to: an update of the group's state, with one event for the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.graph import END
from langgraph.types import Command

from agentmatrix.agent import messages_in
from agentmatrix.chat.contribution import new_messages, public_messages
from agentmatrix.chat.conversation import EVENT_LOG, Event
from agentmatrix.chat.handoff import GIVEN, IGNORED, MOST_UNKNOWN, is_known_further_out, without_sends
from agentmatrix.chat.member_options import MemberOptions
from agentmatrix.chat.reply import replied
from agentmatrix.chat.turn import GroupSettings, Turn
from agentmatrix.errors import SpeakerError
from agentmatrix.pregel.task_config import updates_of

__all__ = ["TurnUpdates"]

_log = logging.getLogger(__name__)


class TurnUpdates:
    """Makes updates of the group's state from the turns of one member.

    Args:
        name: the name of the member.
        settings: the settings of the group.
        options: the options of the member.
        is_graph: whether its agent is a graph, which answers with its whole state.
        summary_key: the key of its summaries in the log.
    """

    def __init__(
        self, name: str, settings: GroupSettings, options: MemberOptions, *, is_graph: bool, summary_key: str
    ) -> None:
        self._name, self._settings, self._is_graph, self._summary_key = name, settings, is_graph, summary_key
        self._reply, self._on_error = options.reply, options.on_error

    def of_answer(self, answer: Any, turn: Turn, config: RunnableConfig, summary: Any, pushed: list[Any]) -> Any:
        """The turn of an agent that has answered: an update with one event, or a command for a graph further out.

        Args:
            answer: what the agent has answered.
            turn: the turn.
            config: the config of the member's task.
            summary: the summary of the transcript that the turn began with, if one was made.
            pushed: the messages that the agent has pushed.
        """
        if isinstance(answer, BaseMessage):
            said = self._said([answer], turn)
            return {"messages": said, EVENT_LOG: [self._event(turn, said, summary)]}
        if isinstance(answer, Command):
            if answer.graph == Command.PARENT:
                return answer
            update, goto = dict(updates_of(answer)), answer.goto
        else:
            update, goto = answer or {}, ()
        if not isinstance(update, Mapping):
            raise InvalidUpdateError(
                f"the member {self._name!r} answered with a {type(update).__name__}: "
                "return a text, a message, a list of messages, a dict or a Command"
            )
        added = new_messages(_messages(update), turn.given, is_state=self._is_graph)
        # A message that is pushed once more, or returned after all, replaces the one that was pushed.
        answered = {message.id or id(message): message for message in (*pushed, *added)} if pushed else {}
        said = self._said(list(answered.values()) or added, turn)
        targets = without_sends(goto, config, self._settings.members)
        unknown = [str(target) for target in targets if target != END and target not in self._settings.members]
        if unknown and is_known_further_out(config, unknown):
            return Command(graph=Command.PARENT, goto=goto, update={**update, "messages": said})
        event = self._event(turn, said, summary)
        if ignored := update.get(IGNORED):
            event["ignored"] = ignored
        event = self._told(event, unknown, turn) if unknown else self._with_handoff(event, targets, update.get(GIVEN))
        return {**self._changed(update, turn), "messages": said, EVENT_LOG: [event]}

    def _changed(self, update: Mapping[str, Any], turn: Turn) -> dict[str, Any]:
        """The keys of the state that the member has written.

        Raises:
            InvalidUpdateError: another one who speaks at the same time has written a key that takes one value.
        """
        # A value that the agent hands back as it got it is no update: a reducer would add it once more.
        given = turn.input if isinstance(turn.input, Mapping) else getattr(turn.input, "__dict__", {})
        keys = self._settings.keys - {"messages"}
        changed = {k: v for k, v in update.items() if k in keys and not _is_same_value(v, given.get(k))}
        for key in self._settings.plain_keys & changed.keys():
            writer = turn.at.claims.owner((len(turn.at.events), key), self._name)
            if writer != self._name and not self._settings.is_free:
                raise InvalidUpdateError(
                    f"the members {writer!r} and {self._name!r} wrote the key {key!r} in one turn: give it a reducer, "
                    "as in Annotated[list, operator.add], or let only one of them write it"
                )
        return changed

    def _said(self, answered: list[Any], turn: Turn) -> list[BaseMessage]:
        """What the member contributes of its answer."""
        said = self._public(answered, turn)
        if self._reply is None:
            return said
        return self._public(list(replied(self._reply, said)), turn)

    def _public(self, answered: list[Any], turn: Turn) -> list[BaseMessage]:
        group = self._settings
        id_for = turn.ids.given if len(answered) == 1 else turn.ids.of_one_answer()
        return public_messages(
            answered, self._name, group.members, group.audience_rule, id_for, is_remembered=turn.remembers
        )

    def _event(self, turn: Turn, said: list[BaseMessage], summary: Any) -> Event:
        event: Event = {
            "by": self._name,
            "message_ids": [str(message.id) for message in said],
            "seen_message": turn.at.seen_message,
            "seen_events": len(turn.at.events),
        }
        if turn.usage:
            event.update(turn.usage.usage())
        if summary:
            event["summaries"] = {self._summary_key: summary}
        return event

    def _with_handoff(self, event: Event, targets: list[Any], given: Any) -> Event:
        if END in targets:
            return {**event, "stop_reason": f"{self._name} ended it"}
        if not targets:
            return event
        goto = [str(target) for target in targets]
        if given is None:
            return {**event, "goto": goto}
        return {**event, "goto": goto, "given": dict.fromkeys(goto, given)}

    def _told(self, event: Event, unknown: list[str], turn: Turn) -> Event:
        """The event of a handoff to nobody: an agent that is a graph is told, and asked again.

        Raises:
            SpeakerError: it is no graph, or it has been told before, several times in a row.
        """
        if not self._is_graph or turn.unknown >= MOST_UNKNOWN:
            raise SpeakerError(
                f"the member {self._name!r} hands over to {unknown[0]!r}, who is not in the group: "
                f"go to one of {', '.join(self._settings.members)}, or to END"
            )
        return {**event, "goto": [self._name], "unknown": unknown}

    def of_failure(self, error: Exception, turn: Turn) -> dict[str, Any]:
        """The turn of an agent that has failed for good, as silence or as a message that says so."""
        reason = f"{type(error).__name__}: {error}"
        _log.warning("the member %r has failed, and the conversation goes on: %s", self._name, reason)
        words = [AIMessage(f"I cannot answer: {reason}")] if self._on_error == "say" else []
        said = self._public(words, turn)
        return {"messages": said, EVENT_LOG: [{**self._event(turn, said, None), "error": reason}]}

    def of_silence(self, turn: Turn) -> dict[str, Any]:
        """A turn in which nothing is said."""
        return {"messages": [], EVENT_LOG: [self._event(turn, [], None)]}


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
