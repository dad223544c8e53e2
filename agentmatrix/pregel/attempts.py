"""Retries and timeouts as LangGraph runs them for a node, for work that has no LangGraph task of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph._internal._constants import CONF, CONFIG_KEY_TASK_ID
from langgraph._internal._timeout import coerce_timeout_policy
from langgraph.pregel._retry import arun_with_retry, run_with_retry
from langgraph.types import Command, PregelExecutableTask, RetryPolicy, TimeoutPolicy

from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.task_config import namespace_of, node_of

__all__ = ["arun_attempts", "run_attempts", "timeout_policy"]


def timeout_policy(timeout: float | timedelta | TimeoutPolicy | None) -> TimeoutPolicy | None:
    """The timeout as LangGraph's policy.

    Raises:
        ValueError: it is not positive.
    """
    return coerce_timeout_policy(timeout)


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
    sent: list[Command[Any]] = []
    answer = run_with_retry(_task(agent, given, config, policies, None, sent), policies)  # type: ignore[func-returns-value]
    return sent[0] if sent else answer


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
    sent: list[Command[Any]] = []
    answer = await arun_with_retry(_task(agent, given, config, policies, timeout, sent), policies)  # type: ignore[func-returns-value]
    return sent[0] if sent else answer


def _task(
    agent: Runnable[Any, Any],
    given: Any,
    config: RunnableConfig,
    policies: Sequence[RetryPolicy],
    timeout: TimeoutPolicy | None,
    sent: list[Command[Any]],
) -> PregelExecutableTask:
    """A task of LangGraph that runs the agent, and keeps the command that is meant for its graph in `sent`."""

    def keep(command: Any) -> None:
        sent.append(command)

    async def akeep(command: Any) -> None:
        sent.append(command)

    return PregelExecutableTask(
        name=node_of(config) or "",
        input=given,
        proc=agent,
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
