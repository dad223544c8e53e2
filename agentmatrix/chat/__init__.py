"""Chat groups: agents that talk, in turn or all at once. It knows no wire."""

from __future__ import annotations

from agentmatrix.chat.group import ChatGroup

__all__ = ["ChatGroup"]
