"""What a caller is told of a run that it has lost."""

from __future__ import annotations

from typing import Final

from agentmatrix.errors import AgentMatrixError, HostLost

__all__ = ["RESUME_ADVICE", "with_advice"]

RESUME_ADVICE: Final = "With a checkpointer, call again with None to go on from the last checkpoint"
"""The mend for a host that was lost in the middle of a run."""


def with_advice(error: AgentMatrixError, delivered: bool, place: int) -> AgentMatrixError:
    """A loss with what is known of the run, and how to go on.

    Args:
        error: why it was lost.
        delivered: whether the host had taken it.
        place: in the queue of the host; 0 where it was not waiting.
    """
    if not isinstance(error, HostLost):
        return error
    if place:
        known = f"this run was waiting for its turn, at place {place}, and had not begun"
        return HostLost(f"{error}; when the host was last heard of, {known}", delivered=delivered)
    known = "the host had taken it" if delivered else "whether the host has got it is unknown"
    return HostLost(f"{error}; how far this run came is unknown; {known}. {RESUME_ADVICE}", delivered=delivered)
