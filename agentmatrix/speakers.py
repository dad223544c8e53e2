"""Who speaks next in a chat group."""

from __future__ import annotations

from agentmatrix.compose.speakers import (
    Speaker,
    SpeakerError,
    broadcast,
    handoff,
    mention,
    random,
    round_robin,
    selector,
)

__all__ = ["Speaker", "SpeakerError", "broadcast", "handoff", "mention", "random", "round_robin", "selector"]
