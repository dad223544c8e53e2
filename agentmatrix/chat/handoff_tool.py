"""Ready-made tools by which a model hands over to another member."""

from __future__ import annotations

import re
from typing import Annotated, Any

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.prebuilt import InjectedState
from langgraph.types import Command

from agentmatrix.chat.handoff import GIVEN
from agentmatrix.chat.history import History, HistoryRule
from agentmatrix.errors import BuildError

__all__ = ["create_handoff_tool"]


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
