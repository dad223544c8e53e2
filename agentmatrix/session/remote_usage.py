"""Budgets over the wire: a run is sent off with what is left, says what it uses, and hears what others have used."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from agentmatrix.budget import Budget, calls_left, tokens_left
from agentmatrix.errors import BudgetError, ProtocolError
from agentmatrix.pregel.token_usage import ModelCallCounter, TokenUsage, counters

__all__ = ["CallerUsage", "RunBudget", "ReportedUsage", "budget_of"]

RunBudget = tuple[int | None, int | None]
"""Of tokens and of calls."""
_NO_BUDGET: Final = contextlib.nullcontext()
_FRACTION: Final = 8
"""A host is told of a new limit when an eighth of what it thinks left is gone: the last few calls one by one."""


class CallerUsage:
    """The counters around a remote call, which are told what is used there. Made where the call is made."""

    def __init__(self) -> None:
        self._counters: tuple[ModelCallCounter, ...] = counters()
        self._budgets = [counter for counter in self._counters if isinstance(counter, Budget)]
        self._used = (0, 0)
        """Tokens and calls of the run, as far as the host has said."""
        self._told: RunBudget = (None, None)
        self._forget: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def pack(self) -> dict[str, Any] | None:
        """What is left, for the host; None where nobody counts."""
        if not self._counters:
            return None
        self._told = tokens_left(), calls_left()
        tokens, calls = self._told
        return {"tokens": tokens, "calls": calls, "shared": self._told != (None, None)}

    def follow(self, tell: Callable[[RunBudget], None]) -> None:
        """Tells the host when others have used of what was left to its run, until `close`.

        Args:
            tell: is given the limits of the whole run, on any thread. Called a few times at most for each halving.
        """
        if self._told != (None, None):
            self._forget = [budget.watch(partial(self._on_use, tell)) for budget in self._budgets]
            self._on_use(tell)  # Others may have used of it since it was packed.

    def in_words_of_the_caller(self, error: BudgetError) -> BudgetError:
        """An error of the host, which has a budget of what was left, as one of the budget here that is used up."""
        for budget in self._budgets:
            try:
                budget.check()
            except BudgetError as own:
                error.args = own.args
        return error

    def close(self) -> None:
        """The run has ended. Idempotent."""
        forget, self._forget = self._forget, []
        for each in forget:
            each()

    def _on_use(self, tell: Callable[[RunBudget], None]) -> None:
        with self._lock:
            tokens = _least([budget.tokens_left for budget in self._budgets], self._used[0])
            calls = _least([budget.calls_left for budget in self._budgets], self._used[1])
            if not (_is_news(self._told[0], tokens, self._used[0]) or _is_news(self._told[1], calls, self._used[1])):
                return
            self._told = tokens, calls
        tell((tokens, calls))

    def add(self, input_tokens: Any, output_tokens: Any, calls: Any) -> None:
        """The host says what the run has used.

        Raises:
            ProtocolError: that can be no such thing.
        """
        if not all(type(number) is int and number >= 0 for number in (input_tokens, output_tokens, calls)):
            raise ProtocolError("the host sent an event of the kind 'usage' that cannot be read")
        with self._lock:
            self._used = self._used[0] + input_tokens + output_tokens, self._used[1] + calls
        for counter in self._counters:
            counter.add(input_tokens, output_tokens)
            if isinstance(counter, Budget):
                counter.add_calls(calls)
            elif isinstance(counter, TokenUsage):
                counter.add_calls(calls)


class ReportedUsage:
    """What a run on a host has used, as its caller is told of it: each time, what has come since.

    Args:
        usage: of the run.
        report: tells the caller; it is called in the order of what was used.
    """

    def __init__(self, usage: TokenUsage, report: Callable[[tuple[int, int, int]], None]) -> None:
        self._usage, self._report = usage, report
        self._reported = (0, 0, 0)
        self._lock = threading.Lock()

    def report(self) -> None:
        """Tells of what was used since the last time."""
        with self._lock:
            used = self._usage.used
            new = used[0] - self._reported[0], used[1] - self._reported[1], used[2] - self._reported[2]
            self._reported = used
            if any(new):
                self._report(new)


def _least(left: Sequence[int | None], used: int) -> int | None:
    """The limit of a whole run that has used so much."""
    return min((each + used for each in left if each is not None), default=None)


def _is_news(told: int | None, limit: int | None, used: int) -> bool:
    """Whether a limit has fallen by so much of what is left that the host is to know."""
    if told is None or limit is None or limit >= told:
        return False
    return limit <= used or (told - limit) * _FRACTION >= told - used


def budget_of(packed: object, seconds: float) -> AbstractContextManager[Any]:
    """The budget for the code of a run, as its caller has sent it.

    Args:
        packed: from `CallerUsage.pack`.
        seconds: that the run may take; 0 for no limit.
    """
    if packed is None and not seconds > 0:
        return _NO_BUDGET
    sent = packed if isinstance(packed, Mapping) else {}
    limits = {name: sent.get(name) for name in ("tokens", "calls")}
    given = {name: value for name, value in limits.items() if type(value) is int and value >= 0}
    if seconds > 0:
        return Budget(seconds=seconds, **given)
    return Budget(**given) if given else _NO_BUDGET
