"""Who speaks next in a chat group."""

from __future__ import annotations

from agentmatrix.compose.speakers import (
    Speaker,
    broadcast,
    handoff,
    mention,
    random,
    round_robin,
    selector,
)

__all__ = ["Speaker", "broadcast", "handoff", "mention", "random", "round_robin", "selector"]
