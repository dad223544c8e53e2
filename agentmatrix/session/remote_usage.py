"""Budgets over the wire: a run is sent off with what is left, and says what it has used when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from agentmatrix.budget import Budget, calls_left, tokens_left
from agentmatrix.errors import ProtocolError
from agentmatrix.pregel.token_usage import ModelCallCounter, TokenUsage, counters

__all__ = ["CallerUsage", "budget_of"]


class CallerUsage:
    """The counters around a remote call, which are told what is used there. Made where the call is made."""

    def __init__(self) -> None:
        self._counters: tuple[ModelCallCounter, ...] = counters()

    def pack(self) -> dict[str, Any] | None:
        """What is left, for the host; None where nobody counts."""
        return {"tokens": tokens_left(), "calls": calls_left()} if self._counters else None

    def add(self, input_tokens: Any, output_tokens: Any, calls: Any) -> None:
        """The host says what the run has used.

        Raises:
            ProtocolError: that can be no such thing.
        """
        if not all(type(number) is int and number >= 0 for number in (input_tokens, output_tokens, calls)):
            raise ProtocolError("the host sent an event of the kind 'usage' that cannot be read")
        for counter in self._counters:
            counter.add(input_tokens, output_tokens)
            if isinstance(counter, Budget):
                counter.add_calls(calls)
            elif isinstance(counter, TokenUsage):
                counter.calls += calls


def budget_of(packed: object, seconds: float) -> AbstractContextManager[Any]:
    """The budget for the code of a run, as its caller has sent it.

    Args:
        packed: from `CallerUsage.pack`.
        seconds: that the run may take; 0 for no limit.
    """
    sent = packed if isinstance(packed, Mapping) else {}
    limits = {name: sent.get(name) for name in ("tokens", "calls")}
    given = {name: value for name, value in limits.items() if type(value) is int and value >= 0}
    if seconds > 0:
        return Budget(seconds=seconds, **given)
    return Budget(**given) if given else contextlib.nullcontext()
