"""Runs that are sent again where the host has not begun them: it was busy, or did not answer.

A run that may have begun is never sent again from here: what it has done is for its caller to judge.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from langgraph.types import RetryPolicy

from agentmatrix.cancel_scope import current_scope
from agentmatrix.errors import HostBusy, HostError, HostUnreachable
from agentmatrix.session.caller_async import AsyncCallerRun
from agentmatrix.session.caller_sync import SyncCallerRun

__all__ = ["AsyncRetriedRun", "RetriedRun"]

_NOT_BEGUN: Final = (HostBusy, HostUnreachable)


class _Attempts:
    """How often a run is tried, and when again.

    Args:
        policy: LangGraph's. A host that says when to come again is asked no sooner.
        timeout: seconds for all attempts together.
    """

    def __init__(self, policy: RetryPolicy, timeout: float | None) -> None:
        self._policy = policy
        self._until = None if timeout is None else time.monotonic() + timeout
        self._made = 0

    def left(self) -> float | None:
        """Seconds that the next attempt may take."""
        return None if self._until is None else max(0.001, self._until - time.monotonic())

    def pause_after(self, error: HostError) -> float:
        """Seconds until the next attempt.

        Raises:
            HostError: `error`, where there is none any more.
        """
        policy, self._made = self._policy, self._made + 1
        if self._made >= policy.max_attempts or not _is_for(policy, error):
            raise error
        interval = min(policy.max_interval, policy.initial_interval * policy.backoff_factor ** (self._made - 1))
        pause = max(interval, getattr(error, "retry_after", None) or 0.0)
        if policy.jitter:
            pause += random.uniform(0, policy.initial_interval)
        if self._until is not None and time.monotonic() + pause >= self._until:
            raise error
        return pause


def _is_for(policy: RetryPolicy, error: HostError) -> bool:
    on = policy.retry_on
    if isinstance(on, type) or not callable(on):
        return isinstance(error, on if isinstance(on, type) else tuple(on))
    return on(error)


class RetriedRun:
    """A run of a sync verb, as `SyncCallerRun` has it.

    Args:
        start: makes the run of an attempt, which may take `within` seconds.
        policy: when to try again.
        timeout: seconds for all attempts together.
    """

    def __init__(self, start: Callable[..., SyncCallerRun], policy: RetryPolicy, timeout: float | None) -> None:
        self._start, self._attempts = start, _Attempts(policy, timeout)

    def result(self) -> Any:
        while True:
            try:
                return self._start(within=self._attempts.left()).result()
            except _NOT_BEGUN as error:
                _sleep(self._attempts.pause_after(error), error)

    def parts(self) -> Generator[Any, None, Any]:
        while True:
            parts, has_begun = self._start(within=self._attempts.left()).parts(), False
            try:
                for part in parts:
                    has_begun = True
                    yield part
                return None
            except _NOT_BEGUN as error:
                if has_begun:
                    raise
                _sleep(self._attempts.pause_after(error), error)
            finally:
                parts.close()


class AsyncRetriedRun:
    """A run of an async verb. Arguments as of `RetriedRun`."""

    def __init__(self, start: Callable[..., AsyncCallerRun], policy: RetryPolicy, timeout: float | None) -> None:
        self._start, self._attempts = start, _Attempts(policy, timeout)

    async def result(self) -> Any:
        while True:
            try:
                return await self._start(within=self._attempts.left()).result()
            except _NOT_BEGUN as error:
                await asyncio.sleep(self._attempts.pause_after(error))

    async def parts(self) -> AsyncGenerator[Any, None]:
        while True:
            parts, has_begun = self._start(within=self._attempts.left()).parts(), False
            try:
                async for part in parts:
                    has_begun = True
                    yield part
                return
            except _NOT_BEGUN as error:
                if has_begun:
                    raise
                await asyncio.sleep(self._attempts.pause_after(error))
            finally:
                await parts.aclose()


def _sleep(seconds: float, error: HostError) -> None:
    """Waits, unless the work that this is part of is given up: then the error is raised."""
    scope = current_scope.get()
    if scope is None:
        time.sleep(seconds)
        return
    cancelled = threading.Event()
    forget = scope.on_cancel(cancelled.set)
    try:
        if cancelled.wait(seconds):
            raise error
    finally:
        forget()
