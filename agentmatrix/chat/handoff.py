"""Handoffs: what the next member is given, members of a group further out, and names that nobody has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import ParentCommand
from langgraph.types import Command, Send

from agentmatrix.agent import messages_in
from agentmatrix.chat.conversation import Event, handoff_to, unknown_handoffs
from agentmatrix.chat.transcript import Transcript, id_in_transcript
from agentmatrix.live.send_scope import Sender, current_send_scope
from agentmatrix.pregel.handoffs import handoff_of
from agentmatrix.pregel.task_config import parent_namespace_of, plain_namespace_of, updates_of

__all__ = [
    "GIVEN",
    "IGNORED",
    "MOST_UNKNOWN",
    "handoff_targets",
    "is_known_further_out",
    "left_out_of_handoff",
    "note_on_handoffs",
    "whole_handoff",
    "with_handoff_targets",
    "without_sends",
]

GIVEN: Final = "handoff_given"
"""The key in the update of a handoff with the ids of the messages that the next member is given."""
IGNORED: Final = "ignored_handoffs"
"""The key in the update of a handoff with the names of further handoffs in the same answer."""
MOST_UNKNOWN: Final = 2
"""How often in a row a member is told that it has handed over to nobody; the next time ends the run."""
_TARGETS: Final = "__agentmatrix_handoff_targets"


def left_out_of_handoff(transcript: Transcript, events: Sequence[Event], member: str) -> list[int]:
    """The positions of the messages that a member is not given after a handoff that has chosen for it.

    Args:
        transcript: the transcript.
        events: the event log.
        member: the member.
    """
    event = handoff_to(events, member)
    chosen = event.get("given", {}).get(member)
    if chosen is None:
        return []
    kept = {transcript.positions.get(id_in_transcript(id)) for id in chosen}
    until = transcript.positions.get(event["seen_message"] or "", -1)
    return [position for position in range(until + 1) if position not in kept]


def whole_handoff(error: ParentCommand) -> Command[Any]:
    """The handoff that a graph inside a member has sent, with what was said beside it. Of several handoffs in one
    answer it is the first, and names the others."""
    (first, *others), words = handoff_of(error)
    update = dict(updates_of(first))
    messages = messages_in(update.get("messages"))
    # A tool may pass on the history, words beside the call included.
    passed_on = {getattr(message, "id", None) for message in messages}
    beside = [message for message in words if message.id not in passed_on]
    taken = handoff_targets(first)
    if ignored := [name for other in others for name in handoff_targets(other) if name not in taken]:
        update[IGNORED] = list(dict.fromkeys(map(str, ignored)))
    return Command(goto=first.goto, update={**update, "messages": [*beside, *messages]})


def handoff_targets(command: Command[Any]) -> list[Any]:
    """Whom a command hands over to."""
    return [command.goto] if isinstance(command.goto, str | Send) else list(command.goto)


def without_sends(goto: Any, config: RunnableConfig, members: Sequence[str]) -> list[Any]:
    """Whom a member hands over to. What it sends besides, to nodes of the graphs around the group, is sent."""
    scope, left = current_send_scope.get(), list[Any]()
    for target in [goto] if isinstance(goto, str | Send) else goto:
        if scope is not None and isinstance(target, Send) and target.node not in members and scope.takes(target.node):
            scope.send(target.node, target.arg, Sender.of(config))
        else:
            left.append(target)
    return left


def with_handoff_targets(config: RunnableConfig, members: Sequence[str]) -> RunnableConfig:
    """The config for a graph inside a member, which says to whom a group in its place may hand over."""
    known = {*members, *_known_further_out(config)}
    targets = {"namespace": plain_namespace_of(config), "names": sorted(known)}
    return {**config, "configurable": {**config.get("configurable", {}), _TARGETS: targets}}


def is_known_further_out(config: RunnableConfig, names: Sequence[str]) -> bool:
    """Whether all names are members of groups around this one. A graph of another kind in between stops a handoff."""
    return set(names) <= set(_known_further_out(config))


def _known_further_out(config: RunnableConfig) -> Sequence[str]:
    targets = config.get("configurable", {}).get(_TARGETS)
    if not targets or targets["namespace"] != parent_namespace_of(config):
        return ()
    names: Sequence[str] = targets["names"]
    return names


def note_on_handoffs(
    events: Sequence[Event], last: Event, member: str, members: Sequence[str]
) -> tuple[HumanMessage | None, int]:
    """What a member is told of the handoffs of its last turn that did not come about, and how often in a row it has
    handed over to nobody.

    Args:
        events: the event log.
        last: the event of its last turn.
        member: the member.
        members: the names of all members.
    """
    names = unknown_handoffs(events, member) if last.get("unknown") else []
    told: list[str] = []
    if names:
        others = ", ".join(name for name in members if name != member)
        told.append(f"There is no {names[-1]!r} to hand over to. Hand over to one of: {others}; or answer yourself.")
    if ignored := last.get("ignored"):
        told.append(f"An answer hands over once. You have not handed over to {' and '.join(map(repr, ignored))}.")
    return (HumanMessage(" ".join(told), id=f"no-{member}-{len(events)}") if told else None), len(names)
