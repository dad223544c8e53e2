"""Calls of `@task` by a turn that outlives the LangGraph task that it began in.

LangGraph's runner runs such calls as tasks of the one that makes them, and knows nothing of them once that has ended.
Here they run beside it: with their retries and time limits, and neither kept by a checkpointer nor found in a cache.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import run_in_executor
from langgraph._internal._constants import CONF, CONFIG_KEY_CALL
from langgraph.config import get_config
from langgraph.types import RetryPolicy, TimeoutPolicy

from agentmatrix.pregel.attempts import arun_attempts, run_attempts
from agentmatrix.pregel.runnables import runnable

__all__ = ["AsyncFunctionTasks", "FunctionTasks", "SyncFunctionTasks"]


class FunctionTasks:
    """Runs what is called by `@task`. Each kind of run has its own.

    Any thread of the run may call.
    """

    def call(
        self,
        function: Callable[..., Any],
        given: tuple[tuple[Any, ...], dict[str, Any]],
        *,
        retry_policy: Sequence[RetryPolicy] | None = None,
        timeout: TimeoutPolicy | None = None,
        **_: Any,
    ) -> Any:
        """What LangGraph calls for a `@task`. Returns a future."""
        return self._submit(_agent(function, given), get_config(), tuple(retry_policy or ()), timeout)

    def _submit(
        self,
        agent: Runnable[Any, Any],
        config: RunnableConfig,
        policies: Sequence[RetryPolicy],
        timeout: TimeoutPolicy | None,
    ) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Start nothing more. Called as the run ends."""

    def with_calls(self, config: RunnableConfig) -> RunnableConfig:
        """The config of a LangGraph task, whose calls of `@task` come here."""
        # Other code finds LangGraph's loop there.
        loop = config[CONF][CONFIG_KEY_CALL].keywords["schedule_task"]
        return {**config, "configurable": {**config[CONF], CONFIG_KEY_CALL: partial(self.call, schedule_task=loop)}}


class SyncFunctionTasks(FunctionTasks):
    """In threads."""

    def __init__(self) -> None:
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None

    def call(self, function: Callable[..., Any], given: tuple[tuple[Any, ...], dict[str, Any]], **options: Any) -> Any:
        if asyncio.iscoroutinefunction(function):
            raise RuntimeError("In a sync context async tasks cannot be called")
        return super().call(function, given, **options)

    def _submit(
        self,
        agent: Runnable[Any, Any],
        config: RunnableConfig,
        policies: Sequence[RetryPolicy],
        timeout: TimeoutPolicy | None,
    ) -> Any:
        if self._executor is None:
            self._executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="chat-task")
        return self._executor.submit(copy_context().run, run_attempts, agent, None, config, policies)

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


class AsyncFunctionTasks(FunctionTasks):
    """In tasks of the event loop, which is the running one where this is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Future[Any]] = set()

    def _submit(
        self,
        agent: Runnable[Any, Any],
        config: RunnableConfig,
        policies: Sequence[RetryPolicy],
        timeout: TimeoutPolicy | None,
    ) -> Any:
        run = self._run(arun_attempts(agent, None, config, policies, timeout))
        try:
            is_here = asyncio.current_task() is not None
        except RuntimeError:
            is_here = False
        # In either way it runs in a copy of the caller's context.
        return asyncio.ensure_future(run) if is_here else asyncio.run_coroutine_threadsafe(run, self._loop)

    async def _run(self, attempts: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await attempts

    def close(self) -> None:
        for task in self._running:
            task.cancel()


def _agent(function: Callable[..., Any], given: tuple[tuple[Any, ...], dict[str, Any]]) -> Runnable[Any, Any]:
    args, kwargs = given

    def call(_: Any) -> Any:
        return function(*args, **kwargs)

    async def acall(_: Any) -> Any:
        if asyncio.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        return await run_in_executor(None, partial(function, *args, **kwargs))

    return runnable(call, acall, name=getattr(function, "__name__", "task"), trace=True)
