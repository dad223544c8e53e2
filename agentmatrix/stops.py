"""When a chat group has said enough."""

from __future__ import annotations

from agentmatrix.compose.stops import Stop, agreed, max_turns, says, when

__all__ = ["Stop", "agreed", "max_turns", "says", "when"]
