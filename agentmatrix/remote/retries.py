"""Runs that are tried at several replicas, or again: the sync and the async driver of `CallAttempts`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from langgraph.errors import GraphDrained

from agentmatrix.cancel_scope import current_scope
from agentmatrix.errors import HostError
from agentmatrix.remote.call_attempts import CallAttempts, Waiting
from agentmatrix.session.caller_async import AsyncCallerRun
from agentmatrix.session.caller_sync import SyncCallerRun

__all__ = ["AsyncRetriedRun", "RetriedRun"]

_FAILURES: Final = (HostError, GraphDrained)


class RetriedRun:
    """A run of a sync verb, as `SyncCallerRun` has it.

    Args:
        start: makes the run of an attempt. Given a verb, it makes that of another one at the same host.
        attempts: says where and when.
    """

    def __init__(self, start: Callable[..., SyncCallerRun], attempts: CallAttempts) -> None:
        self._start, self._attempts = start, attempts

    def result(self) -> Any:
        attempts = self._attempts
        while True:
            run: SyncCallerRun | None = None
            try:
                _waited(attempts.choose())
                if attempts.goes_on == "host":
                    attempts.check_goes_on(self._start(attempts, "get_state").result())
                run = self._start(attempts)
                return run.result()
            except _FAILURES as error:
                pause, failure = attempts.after(error, run, self._advanced(run), has_parts=False), error
            finally:
                attempts.end(run)
            _sleep(pause, failure)

    def parts(self) -> Generator[Any, None, Any]:
        attempts = self._attempts
        while True:
            run: SyncCallerRun | None = None
            has_parts = False
            try:
                _waited(attempts.choose())
                if attempts.goes_on == "host":
                    attempts.check_goes_on(self._start(attempts, "get_state").result())
                run = self._start(attempts)
                parts = run.parts()
                try:
                    for part in parts:
                        has_parts = True
                        yield part
                    return None
                finally:
                    parts.close()
            except _FAILURES as error:
                pause, failure = attempts.after(error, run, self._advanced(run), has_parts=has_parts), error
            finally:
                attempts.end(run)
            _sleep(pause, failure)

    def _advanced(self, run: SyncCallerRun | None) -> bool | None:
        if run is None or run.began_from is None or not self._attempts.is_lost(run):
            return None
        return run.began_from.has_advanced()


class AsyncRetriedRun:
    """A run of an async verb. Arguments as of `RetriedRun`."""

    def __init__(self, start: Callable[..., AsyncCallerRun], attempts: CallAttempts) -> None:
        self._start, self._attempts = start, attempts

    async def result(self) -> Any:
        attempts = self._attempts
        while True:
            run: AsyncCallerRun | None = None
            try:
                await _awaited(attempts.choose())
                if attempts.goes_on == "host":
                    attempts.check_goes_on(await self._start(attempts, "aget_state").result())
                run = self._start(attempts)
                return await run.result()
            except _FAILURES as error:
                pause = attempts.after(error, run, await self._advanced(run), has_parts=False)
            finally:
                attempts.end(run)
            await asyncio.sleep(pause)

    async def parts(self) -> AsyncGenerator[Any, None]:
        attempts = self._attempts
        while True:
            run: AsyncCallerRun | None = None
            has_parts = False
            try:
                await _awaited(attempts.choose())
                if attempts.goes_on == "host":
                    attempts.check_goes_on(await self._start(attempts, "aget_state").result())
                run = self._start(attempts)
                parts = run.parts()
                try:
                    async for part in parts:
                        has_parts = True
                        yield part
                    return
                finally:
                    await parts.aclose()
            except _FAILURES as error:
                pause = attempts.after(error, run, await self._advanced(run), has_parts=has_parts)
            finally:
                attempts.end(run)
            await asyncio.sleep(pause)

    async def _advanced(self, run: AsyncCallerRun | None) -> bool | None:
        if run is None or run.began_from is None or not self._attempts.is_lost(run):
            return None
        return await run.began_from.ahas_advanced()


def _waited(waiting: Waiting) -> None:
    """Waits for all that is to be waited for."""
    result: Any = None
    while True:
        try:
            future = waiting.send(result)
        except StopIteration:
            return
        try:
            result = future.result()
        except Exception as error:
            waiting.throw(error)


async def _awaited(waiting: Waiting) -> None:
    result: Any = None
    while True:
        try:
            future = waiting.send(result)
        except StopIteration:
            return
        try:
            result = await asyncio.wrap_future(future)
        except Exception as error:
            waiting.throw(error)


def _sleep(seconds: float, error: Exception) -> None:
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
