"""Handoffs: what the next member is given, members of a group further out, and names that nobody has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from agentmatrix.chat.conversation import Event, handoff_to, unknown_handoffs
from agentmatrix.chat.transcript import transcript_id
from agentmatrix.pregel.task_config import parent_namespace_of, plain_namespace_of

__all__ = [
    "GIVEN",
    "MOST_UNKNOWN",
    "chosen_messages",
    "is_known_further_out",
    "note_on_unknown",
    "with_handoff_targets",
]

GIVEN: Final = "handoff_given"
"""The key in the update of a handoff with the ids of the messages that the next member is given."""
MOST_UNKNOWN: Final = 2
"""How often in a row a member is told that it has handed over to nobody; the next time ends the run."""
_TARGETS: Final = "__agentmatrix_handoff_targets"


def chosen_messages(
    seen: list[BaseMessage], positions: Mapping[str, int], events: Sequence[Event], member: str
) -> list[BaseMessage]:
    """What a member is given after a handoff that has chosen for it.

    Args:
        seen: the messages that it may see, as it sees them.
        positions: by id, the positions of all messages in the transcript.
        events: the event log.
        member: the member.
    """
    event = handoff_to(events, member)
    chosen = event.get("given", {}).get(member)
    if chosen is None:
        return seen
    last = positions.get(event["seen_message"] or "", -1)
    left_out = {id for id, position in positions.items() if position <= last} - set(chosen)
    return [message for message in seen if transcript_id(message.id) not in left_out] or seen[-1:]


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


def note_on_unknown(events: Sequence[Event], member: str, members: Sequence[str]) -> tuple[HumanMessage | None, int]:
    """What a member is told after it has handed over to nobody, and how often in a row it has done so."""
    names = unknown_handoffs(events, member)
    if not names:
        return None, 0
    others = ", ".join(name for name in members if name != member)
    text = f"There is no {names[-1]!r} to hand over to. Hand over to one of: {others}; or answer yourself."
    return HumanMessage(text, id=f"no-{member}-{len(events)}"), len(names)
