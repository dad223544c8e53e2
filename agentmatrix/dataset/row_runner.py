"""One row: the agent is run on it, again after failures that may pass, until it is settled."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, RetryPolicy

from agentmatrix.dataset.columns import Input, awaited, input_of
from agentmatrix.dataset.failures import FailureKind, failure_kind, retry_after, type_name
from agentmatrix.dataset.readers_writer_lock import ReadersWriterLock
from agentmatrix.dataset.records import Result, lines_of, records_of
from agentmatrix.dataset.report import Status
from agentmatrix.dataset.row import DatasetRow
from agentmatrix.dataset.row_agent import RowAgent
from agentmatrix.dataset.row_usage import RowUsage
from agentmatrix.dataset.settled_row import SettledRow
from agentmatrix.dataset.slots import Slots
from agentmatrix.errors import DatasetError
from agentmatrix.pregel.config_values import merge_configs

__all__ = ["NonRetryableError", "RowRunner", "RunOptions"]

_FIRST_BUSY_WAIT = 0.1
_LONGEST_BUSY_WAIT = 5.0
_INTERRUPTS = "__interrupt__"
_WITHOUT_ATTEMPT = (FailureKind.RATE_LIMITED, FailureKind.BUSY, FailureKind.UNREACHABLE)


class NonRetryableError(Exception):
    """No row can succeed, for the reason that is the cause."""


@dataclass(frozen=True)
class RunOptions:
    """How rows are run; the attributes are the arguments of `refine`."""

    input: Input = None
    result: Result = None
    accept: Callable[[dict[str, Any], Any], Any] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    rate_limiter: BaseRateLimiter | None = None
    config: RunnableConfig | None = None
    context: Any = None
    id_column: str | None = None
    repeats: bool = False
    is_csv: bool = False
    answers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Tries:
    """What has happened to a row so far."""

    usage: RowUsage
    began: float
    attempts: int = 0
    losses: int = 0
    rejections: int = 0
    busy_wait: float = _FIRST_BUSY_WAIT


class RowRunner:
    """Runs rows.

    Args:
        agent: what is run.
        slots: the slots of the run; a row that is run has one.
        options: how.
        run_id: the beginning of the threads' ids, where the graph has a checkpointer.
        goes_on: earlier runs may have left threads.
        has_done: whether any row of the dataset is done.
    """

    def __init__(
        self,
        agent: RowAgent,
        slots: Slots,
        options: RunOptions,
        run_id: str,
        goes_on: bool,
        has_done: Callable[[], bool],
    ) -> None:
        self._agent, self._slots, self._options, self._lock = agent, slots, options, ReadersWriterLock()
        self._run_id, self._goes_on, self._has_done = run_id, goes_on, has_done
        self._saves = bool(agent.checkpointer)
        self._options_of_verb: dict[str, Any] = {"durability": "sync"} if self._saves else {}
        if options.context is not None:
            self._options_of_verb["context"] = options.context

    async def run(self, row: DatasetRow, began: float) -> SettledRow:
        """Run a row that has a slot until it is settled.

        Args:
            row: the row.
            began: when it got its slot.

        Raises:
            NonRetryableError: no row can succeed.
        """
        tries = _Tries(RowUsage(lambda: self._slots.cool_down), time.monotonic())
        while True:
            try:
                state = await self._attempt(row, tries)
                tries.attempts += 1
                if isinstance(state, Mapping) and state.get(_INTERRUPTS):
                    return self._paused(row, tries, state[_INTERRUPTS])
                if self._options.accept is None or await awaited(self._options.accept(row.columns, state)):
                    lines = await self._lines(row, state)
                    return self._settled(row, tries, "done", lines=lines)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Not we are cancelled, but something in the run.
                tries.attempts += 1
                return self._settled(row, tries, "failed", asyncio.CancelledError("the run was cancelled by a node"))
            except Exception as error:
                settled = await self._failed(row, tries, error, began)
                if settled is not None:
                    return settled
                began = max(began, asyncio.get_running_loop().time())
                continue
            tries.rejections += 1
            if tries.attempts >= self._options.retry.max_attempts:
                return self._settled(row, tries, "rejected", DatasetError("accept did not take the result"))

    async def _lines(self, row: DatasetRow, state: Any) -> list[bytes]:
        options = self._options
        records = await records_of(row, state, options.result, id_column=options.id_column, repeats=options.repeats)
        return lines_of(records, row, flat=options.is_csv)

    async def _attempt(self, row: DatasetRow, tries: _Tries) -> Any:
        if self._options.rate_limiter is not None:
            await self._options.rate_limiter.aacquire()
        given = await input_of(row.columns, self._options.input, self._agent, row.name)
        config = self._config(row, tries)
        is_last_after_loss = tries.losses > 0 and tries.attempts == self._options.retry.max_attempts - 1
        timeout = asyncio.timeout(self._options.timeout)
        try:
            agent: Any = self._agent.runnable
            # A row that may kill its host is alone in its last attempt: it takes no other one with it.
            async with self._lock.exclusive() if is_last_after_loss else self._lock.shared(), timeout:
                if self._saves and (self._goes_on or tries.attempts or self._options.answers):
                    return await self._resume(agent, row, given, config)
                return await agent.ainvoke(given, config, **self._options_of_verb)
        except TimeoutError:
            if timeout.expired():
                raise TimeoutError(f"the row took longer than {self._options.timeout:g} seconds") from None
            raise

    async def _resume(self, agent: Any, row: DatasetRow, given: Any, config: RunnableConfig) -> Any:
        """Go on with the row's thread, wherever it stands."""
        snapshot = await agent.aget_state(config)
        if snapshot.interrupts:
            if row.id not in self._options.answers:
                return {**snapshot.values, _INTERRUPTS: list(snapshot.interrupts)}
            given = Command(resume=_answer(self._options.answers[row.id], snapshot.interrupts))
        elif snapshot.next:
            given = None
        elif snapshot.values:
            return _output_of(agent, snapshot.values)
        return await agent.ainvoke(given, config, **self._options_of_verb)

    def _config(self, row: DatasetRow, tries: _Tries) -> RunnableConfig:
        configurable: dict[str, Any] = {}
        if self._options.repeats:
            configurable["repetition"] = row.repetition
        if self._saves:
            again = f":{tries.rejections}" if tries.rejections else ""
            configurable["thread_id"] = f"{self._run_id}:{row.id}{again}"
        own: RunnableConfig = {"callbacks": [tries.usage], "metadata": {"row_id": row.id}}
        if configurable:
            own["configurable"] = configurable
        return merge_configs(self._options.config, own) if self._options.config else own

    async def _failed(self, row: DatasetRow, tries: _Tries, error: Exception, began: float) -> SettledRow | None:
        """What follows from an error: the row is settled, or it is tried again (None) after a wait."""
        retry = self._options.retry
        kind = failure_kind(error, retry)
        if kind is FailureKind.HOPELESS or (kind is FailureKind.HOPELESS_AT_FIRST and not self._has_done()):
            raise NonRetryableError from error
        if kind not in _WITHOUT_ATTEMPT:
            tries.attempts += 1
        if kind is FailureKind.LOST:
            tries.losses += 1
        elif kind is FailureKind.RATE_LIMITED:
            self._slots.rate_limited(began, retry_after(error))
            self._slots.release()
            await self._slots.acquire(again=True)
        elif kind in (FailureKind.BUSY, FailureKind.UNREACHABLE):
            await asyncio.sleep(tries.busy_wait * random.uniform(0.5, 1.0))
            tries.busy_wait = min(tries.busy_wait * 2, _LONGEST_BUSY_WAIT)
        elif kind not in (FailureKind.LOST, FailureKind.RETRIED):
            return self._settled(row, tries, "failed", error)
        if tries.attempts >= retry.max_attempts:
            lost_each_time = tries.losses == tries.attempts
            return self._settled(row, tries, "tombstoned" if lost_each_time else "failed", error)
        if kind is FailureKind.RETRIED:
            interval = retry.initial_interval * retry.backoff_factor ** (tries.attempts - 1)
            await asyncio.sleep(min(interval, retry.max_interval) + (random.random() if retry.jitter else 0.0))
        return None

    def _paused(self, row: DatasetRow, tries: _Tries, interrupts: Any) -> SettledRow:
        questions = [{"id": interrupt.id, "value": interrupt.value} for interrupt in interrupts]
        if not self._saves:
            asked = f"the graph asks {questions[0]['value']!r} and has no checkpointer, so nobody can answer"
            return self._settled(row, tries, "failed", DatasetError(f"{asked}: compile it with one"))
        settled = self._settled(row, tries, "paused")
        settled.error_type = "interrupt"
        settled.error_text = json.dumps(questions, ensure_ascii=False, default=str)
        return settled

    def _settled(
        self,
        row: DatasetRow,
        tries: _Tries,
        status: Status,
        error: BaseException | None = None,
        lines: list[bytes] | None = None,
    ) -> SettledRow:
        text = " ".join(str(error).split()) if error is not None else ""
        return SettledRow(
            row,
            status,
            lines or (),
            tries.attempts,
            "" if error is None else type_name(error),
            text,
            tries.usage.tokens(),
            time.monotonic() - tries.began,
        )


def _answer(answer: Any, interrupts: Any) -> Any:
    """The value that resumes a thread: the answer to its only question, or answers by the ids of the questions."""
    ids = {interrupt.id for interrupt in interrupts}
    if len(ids) == 1 or (isinstance(answer, Mapping) and set(answer) <= ids):
        return answer
    raise DatasetError(
        f"the row has {len(ids)} questions: answer with an object of answers by the ids of the questions"
    )


def _output_of(agent: Any, values: Any) -> Any:
    """What a run that ended with these values had returned."""
    keys = agent.output_channels
    if isinstance(keys, str) or not isinstance(values, Mapping):
        return values
    return {key: values[key] for key in keys if key in values}
