"""When a chat group has said enough."""

from __future__ import annotations

from agentmatrix.chat.stop import Stop, agreed, budget, max_turns, says, silence, when

__all__ = ["Stop", "agreed", "budget", "max_turns", "says", "silence", "when"]
