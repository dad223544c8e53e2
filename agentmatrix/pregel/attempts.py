"""Retries and timeouts as LangGraph's runner has them for a node, for work that has no LangGraph task of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph._internal._constants import CONF, CONFIG_KEY_CALL, CONFIG_KEY_TASK_ID
from langgraph.types import PregelExecutableTask, RetryPolicy, TimeoutPolicy

from agentmatrix.pregel.execution import PregelRunner, with_configurable
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.task_config import namespace_of, node_of

__all__ = ["arun_attempts", "run_attempts", "timeout_policy"]


def timeout_policy(timeout: float | timedelta | TimeoutPolicy | None) -> TimeoutPolicy | None:
    """The timeout as LangGraph's policy.

    Raises:
        ValueError: it is not positive.
    """
    return TimeoutPolicy.coerce(timeout)


def run_attempts(agent: Runnable[Any, Any], given: Any, config: RunnableConfig, policies: Sequence[RetryPolicy]) -> Any:
    """Run an agent, again after a failure that a policy covers.

    Args:
        agent: the agent.
        given: its input.
        config: the config of the node that it works for.
        policies: the first that covers a failure says how often and when it is run again.

    Returns:
        What the agent returns, or the command that a graph inside it has sent to the graph of the node.

    Raises:
        GraphBubbleUp: interrupts, and commands for a graph further out.
    """
    answers: list[Any] = []
    task = _task(agent, given, config, policies, None, answers)
    for _ in _UncommittedRunner().tick((task,), schedule_task=_nothing_is_called):
        pass
    return answers[-1]


async def arun_attempts(
    agent: Runnable[Any, Any],
    given: Any,
    config: RunnableConfig,
    policies: Sequence[RetryPolicy],
    timeout: TimeoutPolicy | None,
) -> Any:
    """The same as `run_attempts`, async, with a time limit for each attempt.

    Raises:
        NodeTimeoutError: the last attempt took longer.
    """
    answers: list[Any] = []
    task = _task(agent, given, config, policies, timeout, answers)
    async for _ in _UncommittedRunner().atick((task,), schedule_task=_nothing_is_called):
        pass
    return answers[-1]


class _UncommittedRunner(PregelRunner):
    """LangGraph's runner, for a task that no loop knows: nothing that it has written is kept."""

    def __init__(self) -> None:
        super().__init__(submit=_no_reference, put_writes=_no_reference)  # type: ignore[arg-type]

    def commit(self, task: PregelExecutableTask, exception: BaseException | None) -> None:
        """The caller gets what the task has answered or raised."""


def _no_reference() -> None:
    return None


def _nothing_is_called(*_: Any) -> Any:
    raise AssertionError("tasks that the agent calls belong to the task of its node")


def _task(
    agent: Runnable[Any, Any],
    given: Any,
    config: RunnableConfig,
    policies: Sequence[RetryPolicy],
    timeout: TimeoutPolicy | None,
    answers: list[Any],
) -> PregelExecutableTask:
    """A task of LangGraph that runs the agent, and adds to `answers` what it returns, or the command that is meant for
    its graph."""
    # What the agent calls with `@task` belongs to the task of its node, and not to this one.
    caller = {key: config[CONF][key] for key in (CONFIG_KEY_CALL,) if key in config[CONF]}

    def run(given: Any, config: RunnableConfig) -> None:
        answers.append(agent.invoke(given, with_configurable(config, caller)))

    async def arun(given: Any, config: RunnableConfig) -> None:
        answers.append(await agent.ainvoke(given, with_configurable(config, caller)))

    def keep(command: Any) -> None:
        answers.append(command)

    async def akeep(command: Any) -> None:
        answers.append(command)

    return PregelExecutableTask(
        name=node_of(config) or "",
        input=given,
        proc=runnable(run, arun, name="attempt"),
        writes=deque(),
        config=config,
        triggers=(),
        retry_policy=policies,
        cache_key=None,
        id=str(config[CONF].get(CONFIG_KEY_TASK_ID) or namespace_of(config)),
        path=(),
        writers=[runnable(keep, akeep, name="command")],
        timeout=timeout,
    )
