"""Budgets: what the agents called in a context may use, here and on other hosts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self

from agentmatrix.errors import BudgetError
from agentmatrix.pregel.token_usage import counters, counting_tokens

__all__ = ["Budget", "budgets", "calls_left", "seconds_left", "timeout_within", "tokens_left"]


class Budget:
    """What all chat models that are called in a `with` may use together, in nested and remote agents too.

    Before each call of a model it is looked at; who is over it gets a `BudgetError`. Parallel branches draw on the same
    budget, here and on other hosts: a run there is sent off with what is left, says what it uses while it works, and is
    told what the others have used. What goes beyond the budget is what was under way when it was used up. Budgets nest:
    each counts what is used inside.

    Args:
        seconds: from the `with` on. Runs on other hosts end with them.
        tokens: that models report, of input and output; an answer under way is not cut.
        calls: of models.

    Attributes:
        used_tokens: so far.
        used_calls: so far.

    Raises:
        ValueError: one of them is negative.
    """

    def __init__(self, *, seconds: float | None = None, tokens: int | None = None, calls: int | None = None) -> None:
        for name, value in (("seconds", seconds), ("tokens", tokens), ("calls", calls)):
            if value is not None and not value >= 0:
                raise ValueError(f"a budget of {value} {name} is none")
        self.seconds, self.tokens, self.calls = seconds, tokens, calls
        self.used_tokens = self.used_calls = 0
        self._until: float | None = None
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._entered: AbstractContextManager[None] | None = None

    @property
    def seconds_left(self) -> float | None:
        """Until it is over; None without a limit, or before the `with`."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    @property
    def tokens_left(self) -> int | None:
        """None without a limit."""
        return None if self.tokens is None else max(0, self.tokens - self.used_tokens)

    @property
    def calls_left(self) -> int | None:
        """None without a limit."""
        return None if self.calls is None else max(0, self.calls - self.used_calls)

    def __enter__(self) -> Self:
        if self._entered is not None:
            raise RuntimeError("a budget is entered once; make a new one")
        self._until = None if self.seconds is None else time.monotonic() + self.seconds
        self._entered = counting_tokens(self)
        self._entered.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._entered is not None
        with contextlib.suppress(ValueError):  # a generator may be closed in another context
            self._entered.__exit__(None, None, None)

    def check(self) -> None:
        """A model is about to be called.

        Raises:
            BudgetError: the budget is used up.
        """
        if self.seconds_left == 0:
            raise BudgetError(f"the budget of {self.seconds:g} seconds is used up")
        if self.calls_left == 0:
            raise BudgetError(f"the budget of {self.calls} calls of models is used up")
        if self.tokens_left == 0:
            raise BudgetError(f"the budget of {self.tokens} tokens is used up: {self.used_tokens} were used")

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """A model has answered."""
        with self._lock:
            self.used_tokens += input_tokens + output_tokens
        self._tell()

    def add_call(self) -> None:
        """A model is called."""
        self.add_calls(1)

    def add_calls(self, calls: int) -> None:
        """Models were called, on another host too."""
        with self._lock:
            self.used_calls += calls
        self._tell()

    def watch(self, on_use: Callable[[], None]) -> Callable[[], None]:
        """Has something called, on any thread, whenever something was used. Returns a function that ends that."""
        with self._lock:
            self._watchers.append(on_use)

        def forget() -> None:
            with self._lock:
                self._watchers.remove(on_use)

        return forget

    def limit(self, tokens: int | None, calls: int | None) -> None:
        """Lowers the limits, as others use what was left; None leaves one as it is. They never rise."""
        with self._lock:
            if tokens is not None and self.tokens is not None:
                self.tokens = min(self.tokens, tokens)
            if calls is not None and self.calls is not None:
                self.calls = min(self.calls, calls)
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            watchers = tuple(self._watchers)
        for on_use in watchers:
            on_use()


def budgets() -> list[Budget]:
    """The budgets of this context, outermost first."""
    return [counter for counter in counters() if isinstance(counter, Budget)]


def seconds_left() -> float | None:
    """What the budgets of this context leave; None where none has a limit."""
    return min((left for budget in budgets() if (left := budget.seconds_left) is not None), default=None)


def timeout_within(timeout: float | None) -> float | None:
    """A timeout that is no longer than the budgets of this context. Never 0, which is no limit on the wire."""
    if timeout is None and not counters():
        return None
    limits = [max(limit, 0.001) for limit in (timeout, seconds_left()) if limit is not None]
    return min(limits, default=None)


def tokens_left() -> int | None:
    """Likewise."""
    return min((left for budget in budgets() if (left := budget.tokens_left) is not None), default=None)


def calls_left() -> int | None:
    """Likewise."""
    return min((left for budget in budgets() if (left := budget.calls_left) is not None), default=None)
