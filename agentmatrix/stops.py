"""The stops of chat groups: the conditions that end a conversation."""

from __future__ import annotations

from agentmatrix.chat.stop import Stop, agreed, budget, max_turns, says, silence, when

__all__ = ["Stop", "agreed", "budget", "max_turns", "says", "silence", "when"]
