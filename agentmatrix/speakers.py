"""Who speaks in a chat group: how the next one is found, and people as members."""

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
