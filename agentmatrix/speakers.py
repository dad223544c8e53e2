"""The speakers of chat groups, which choose the next member; `human`, a person as a member; handoff tools."""

from __future__ import annotations

from agentmatrix.chat.handoff_tool import create_handoff_tool
from agentmatrix.chat.human import human
from agentmatrix.chat.selector import mention, selector
from agentmatrix.chat.speaker import Speaker, broadcast, free, handoff, random, round_robin

__all__ = [
    "Speaker",
    "broadcast",
    "create_handoff_tool",
    "free",
    "handoff",
    "human",
    "mention",
    "random",
    "round_robin",
    "selector",
]
