"""Chat groups: agents that talk to each other, in turns or all at once."""

from __future__ import annotations

from agentmatrix.chat.group import ChatGroup
from agentmatrix.chat.members import members

__all__ = ["ChatGroup", "members"]
