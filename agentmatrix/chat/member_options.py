"""What a group is told of one member beside its agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from langgraph.types import RetryPolicy, TimeoutPolicy

from agentmatrix.chat.history import History, HistoryRule
from agentmatrix.chat.reply import Reply, check_reply
from agentmatrix.errors import BuildError
from agentmatrix.pregel.attempts import timeout_policy

__all__ = ["MemberOptions", "OnError", "member_options"]

OnError = Literal["raise", "skip", "say"]


@dataclass(frozen=True)
class MemberOptions:
    """The options of a member; see `ChatGroup.add_node`.

    Attributes:
        history: how much of the transcript it is given; None for the group's rule.
        reply: what of its answer it contributes; None for all of it.
        retry_policies: when its agent is run again.
        timeout: the time limit of each attempt.
        on_error: what becomes of a turn that has failed for good.
    """

    history: HistoryRule | None = None
    reply: Reply | None = None
    retry_policies: tuple[RetryPolicy, ...] = ()
    timeout: TimeoutPolicy | None = None
    on_error: OnError = "raise"

    @property
    def has_attempts(self) -> bool:
        """Whether an agent may be run more than once in a turn, or for a limited time only."""
        return bool(self.retry_policies or self.timeout)


def member_options(
    name: str,
    *,
    history: HistoryRule | None = None,
    reply: Reply | None = None,
    retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
    timeout: float | timedelta | TimeoutPolicy | None = None,
    on_error: OnError = "raise",
) -> MemberOptions:
    """The options of the member `name`, checked.

    Raises:
        BuildError: an option that is none.
    """
    if history is not None:
        History(history, ())
    if reply is not None:
        check_reply(reply)
    if on_error not in ("raise", "skip", "say"):
        raise BuildError(f"on_error={on_error!r} of the member {name!r} is unknown: choose 'raise', 'skip' or 'say'")
    policies: tuple[Any, ...] = ()
    if retry_policy is not None:
        # A policy is a named tuple, so a sequence too.
        is_one = isinstance(retry_policy, RetryPolicy) or not isinstance(retry_policy, Sequence)
        policies = (retry_policy,) if is_one else tuple(retry_policy)
    if wrong := [policy for policy in policies if not isinstance(policy, RetryPolicy)]:
        raise BuildError(f"retry_policy={wrong[0]!r} of the member {name!r} is no RetryPolicy of langgraph.types")
    try:
        limit = timeout_policy(timeout)
    except (TypeError, ValueError) as error:
        raise BuildError(f"timeout={timeout!r} of the member {name!r}: {error}") from None
    return MemberOptions(history, reply, policies, limit, on_error)
