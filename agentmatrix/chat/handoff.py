"""Handoffs: ready-made tools for them, handoffs to members of a group further out, and handoffs to nobody."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.types import Command

from agentmatrix.chat.conversation import Event, handoff_to, unknown_handoffs
from agentmatrix.chat.history import History, HistoryRule
from agentmatrix.errors import BuildError
from agentmatrix.pregel.task_config import parent_namespace_of, plain_namespace_of

__all__ = [
    "GIVEN",
    "MOST_UNKNOWN",
    "chosen_messages",
    "create_handoff_tool",
    "is_known_further_out",
    "note_on_unknown",
    "with_handoff_targets",
]

GIVEN: Final = "handoff_given"
"""The key in the update of a handoff with the ids of the messages that the next member is given."""
MOST_UNKNOWN: Final = 2
"""How often in a row a member is told that it has handed over to nobody; the next time ends the run."""
_TARGETS: Final = "__agentmatrix_handoff_targets"


def create_handoff_tool(
    *,
    agent_name: str,
    name: str | None = None,
    description: str | None = None,
    history: HistoryRule | None = None,
) -> BaseTool:
    """A tool by which a model hands over to another member.

    The member is in the group of the agent that has the tool, or in a group around it. What the model says beside the
    call is said; the call and its result stay private.

    Args:
        agent_name: the member to hand over to.
        name: the name of the tool; by default `transfer_to_<agent_name>`.
        description: what the model is told of it.
        history: how much of the transcript so far that member is given until somebody hands over to it again, in a
            form of `history=` of a group. A message that a function adds is said by the member that hands over.

    Raises:
        BuildError: a name that is no name, or a `history=` that is none.
    """
    if not isinstance(agent_name, str) or not agent_name:
        raise BuildError(f"create_handoff_tool(agent_name={agent_name!r}): name a member")
    from langgraph.prebuilt import InjectedState

    rule = History(history, ()) if history is not None else None
    if rule and rule.sums_up:
        raise BuildError("history= of create_handoff_tool makes no summaries: give a limit or a function")

    @tool(name or f"transfer_to_{_tool_name(agent_name)}", description=description or f"Ask {agent_name} for help.")
    def hand_over(
        state: Annotated[Any, InjectedState],
        tool_call_id: Annotated[str, InjectedToolCallId],
        config: RunnableConfig,
    ) -> Command[Any]:
        messages = state["messages"] if isinstance(state, dict) else state.messages
        update: dict[str, Any] = {}
        added: list[BaseMessage] = []
        if rule:
            known = {message.id for message in messages}
            chosen = rule.shorten(list(messages), None, None, config).messages
            update[GIVEN] = [str(message.id) for message in chosen if message.id in known]
            added = [message for message in chosen if message.id is None or message.id not in known]
        result = ToolMessage(
            f"Successfully transferred to {agent_name}", name=hand_over.name, tool_call_id=tool_call_id
        )
        update["messages"] = [*messages, result, *added]
        return Command(goto=agent_name, graph=Command.PARENT, update=update)

    return hand_over


def _tool_name(agent_name: str) -> str:
    """The name as providers take it in the name of a tool."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", agent_name).strip("_").lower() or "member"


def chosen_messages(
    seen: list[BaseMessage], messages: Sequence[BaseMessage], events: Sequence[Event], member: str
) -> list[BaseMessage]:
    """What a member is given after a handoff that has chosen for it.

    Args:
        seen: the messages that it may see, as it sees them.
        messages: all messages of the group.
        events: the event log.
        member: the member.
    """
    event = handoff_to(events, member)
    chosen = event.get("given", {}).get(member)
    if chosen is None:
        return seen
    left_out = {message.id for message in messages[: event["seen_messages"]]} - set(chosen)
    return [message for message in seen if message.id not in left_out]


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
