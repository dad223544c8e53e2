"""The speakers of chat groups, which choose the next member, and `human`, a person as a member."""

from __future__ import annotations

from agentmatrix.chat.human import human
from agentmatrix.chat.speaker import (
    Speaker,
    broadcast,
    free,
    handoff,
    mention,
    random,
    round_robin,
    selector,
)

__all__ = ["Speaker", "broadcast", "free", "handoff", "human", "mention", "random", "round_robin", "selector"]
