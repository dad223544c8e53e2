"""How a task runs that has one try and no time limit: as LangGraph runs it, without what it does for further tries."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONF, CONFIG_KEY_RUNTIME
from langgraph._internal._runnable import RunnableCallable
from langgraph.errors import GraphBubbleUp, ParentCommand
from langgraph.pregel._retry import arun_with_retry, run_with_retry
from langgraph.runtime import Runtime
from langgraph.types import PregelExecutableTask, RetryPolicy

__all__ = ["arun_task", "run_task"]


def run_task(
    task: PregelExecutableTask,
    retry_policy: Sequence[RetryPolicy] | None,
    configurable: dict[str, Any] | None = None,
) -> Any:
    """Run a task: LangGraph's `run_with_retry`.

    Args:
        task: the task.
        retry_policy: of tasks that have none.
        configurable: what the config of the task is to have besides its own.
    """
    if (config := _config_of_single_attempt(task, retry_policy, configurable)) is None:
        return run_with_retry(task, retry_policy, configurable)
    task.writes.clear()
    try:
        return task.proc.invoke(task.input, config)
    except (ParentCommand, CancelledError) as error:
        return run_with_retry(_failing(task, error), retry_policy, configurable)
    except GraphBubbleUp:
        raise
    except Exception as error:
        _note(task, error)
        raise


async def arun_task(
    task: PregelExecutableTask,
    retry_policy: Sequence[RetryPolicy] | None,
    stream: bool = False,
    configurable: dict[str, Any] | None = None,
) -> Any:
    """The same as `run_task`, async: LangGraph's `arun_with_retry`.

    Args:
        task: the task.
        retry_policy: of tasks that have none.
        stream: whether the task is streamed, which LangGraph does.
        configurable: what the config of the task is to have besides its own.
    """
    config = None if stream else _config_of_single_attempt(task, retry_policy, configurable)
    if config is None:
        return await arun_with_retry(task, retry_policy, stream, configurable)
    task.writes.clear()
    try:
        return await task.proc.ainvoke(task.input, config)
    except (ParentCommand, CancelledError) as error:
        return await arun_with_retry(_failing(task, error), retry_policy, stream, configurable)
    except GraphBubbleUp:
        raise
    except Exception as error:
        _note(task, error)
        raise


def _config_of_single_attempt(
    task: PregelExecutableTask, retry_policy: Sequence[RetryPolicy] | None, more: dict[str, Any] | None
) -> RunnableConfig | None:
    """The config that a task runs with; None where there may be more than one try, or a time limit."""
    config, runtime = task.config, task.config[CONF].get(CONFIG_KEY_RUNTIME)
    if task.retry_policy or retry_policy or task.timeout is not None:
        return None
    if not isinstance(runtime, Runtime) or runtime.execution_info is None:
        return None
    # Made for this task alone, with the number of its first attempt: what is missing is when that begins.
    object.__setattr__(runtime.execution_info, "node_first_attempt_time", time.time())
    return {**config, CONF: {**config[CONF], **(more or {})}}


def _failing(task: PregelExecutableTask, error: BaseException) -> PregelExecutableTask:
    """The task, as one that fails as it has just failed: LangGraph says what that means."""
    written = list(task.writes)

    def fail(_: Any) -> Any:
        task.writes.extend(written)
        raise error

    return replace(task, proc=RunnableCallable(fail, name=task.name, trace=False))


def _note(task: PregelExecutableTask, error: Exception) -> None:
    error.add_note(f"During task with name '{task.name}' and id '{task.id}'")
