"""Why a run on a host was stopped, what is made of that in its record, and what its caller is told."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from langgraph.errors import GraphBubbleUp, GraphDrained, ParentCommand

from agentmatrix.errors import DeadlineExceeded, HostError, HostLost
from agentmatrix.pregel import handoffs
from agentmatrix.session.run_loss import RESUME_ADVICE
from agentmatrix.session.run_record import Outcome

__all__ = ["CALLER_LOST", "DEADLINE", "DRAINING", "STOPPING", "ended_by", "outcome_of", "reported_failure"]

STOPPING: Final = "the host is stopping"
"""The reason to stop a run by which its caller is told that the host was lost."""
DRAINING: Final = "the host is stopping; call again with None to go on from this checkpoint"
"""The reason by which a run is asked to stop at a checkpoint."""
DEADLINE: Final = "deadline"
CALLER_LOST: Final = "the caller is lost"
_STOPPED_BY: Final[dict[str, Outcome]] = {STOPPING: "stopped", DEADLINE: "deadline", CALLER_LOST: "caller lost"}


def outcome_of(failure: BaseException | None, result: Any, stop_reason: str) -> Outcome:
    """How a run has ended.

    Args:
        failure: what it raised; None for a result.
        result: what it returned.
        stop_reason: why the run was stopped, in words of its caller or one of those above; empty where it was let be.
    """
    if failure is None:
        return "interrupted" if isinstance(result, dict) and result.get("__interrupt__") else "ok"
    if stop_reason and isinstance(failure, (asyncio.CancelledError, GraphDrained, HostError)):
        return _STOPPED_BY.get(stop_reason, "cancelled")
    if isinstance(failure, ParentCommand):
        return "ok"
    if isinstance(failure, GraphDrained):
        return "drained"
    if isinstance(failure, GraphBubbleUp):
        return "interrupted"
    return "cancelled" if isinstance(failure, asyncio.CancelledError) else "failed"


def reported_failure(failure: BaseException, stop_reason: str) -> BaseException:
    """The failure that the caller is told: where a stop has ended the run, the reason of the stop."""
    if not stop_reason or not isinstance(failure, (asyncio.CancelledError, GraphDrained, HostError)):
        return handoffs.keep_handoff(failure)
    if stop_reason == STOPPING:
        return HostLost(
            "the host was stopped in the middle of the run; what its unfinished nodes have done is unknown. "
            + RESUME_ADVICE,
            delivered=True,
        )
    if stop_reason == DEADLINE:
        return DeadlineExceeded("the run took longer than its timeout; it has been cancelled on the host")
    return failure


def ended_by(failure: BaseException | None, stop_reason: str, *, refused: bool, draining: bool) -> str:
    """Why the host has ended a run, as its last frame says it; empty where the graph has ended.

    Args:
        failure: what the run raised; None for a result.
        stop_reason: as in `outcome_of`.
        refused: whether the run has not begun.
        draining: whether the host has asked the run to stop at a checkpoint.
    """
    if refused:
        return "refused"
    if stop_reason == STOPPING and isinstance(failure, (asyncio.CancelledError, GraphDrained, HostError)):
        return "stopped"
    return "drained" if draining and isinstance(failure, GraphDrained) else ""
