"""`refine` and `arefine`: an agent over the rows of a dataset."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, ParamSpec

from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig
from langgraph.types import RetryPolicy

from agentmatrix.dataset.columns import Input
from agentmatrix.dataset.completed_row import CompletedRow
from agentmatrix.dataset.dataset_run import DatasetRun
from agentmatrix.dataset.interrupted import run_draining
from agentmatrix.dataset.progress_display import Display, display_of
from agentmatrix.dataset.ray_hosts import Ray
from agentmatrix.dataset.records import Result
from agentmatrix.dataset.report import Report
from agentmatrix.dataset.row_loop import Limits
from agentmatrix.dataset.row_reader import ReadOptions
from agentmatrix.dataset.row_runner import RunOptions
from agentmatrix.dataset.row_usage import Prices
from agentmatrix.dataset.settings import check_numbers, parse_shard, read_answers
from agentmatrix.errors import DatasetError

__all__ = ["arefine", "refine"]

P = ParamSpec("P")
Rows = str | os.PathLike[str] | Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]


async def arefine(
    agent: Any,
    rows: Rows,
    output: str | os.PathLike[str] | None = None,
    *,
    input: Input = None,
    result: Result = None,
    where: Callable[[dict[str, Any]], Any] | None = None,
    accept: Callable[[dict[str, Any], Any], Any] | None = None,
    id: str | Callable[[dict[str, Any]], Any] | None = None,
    repetitions: int = 1,
    limit: int | None = None,
    order: Literal["done", "input"] = "done",
    max_concurrency: int = 64,
    retry: RetryPolicy | None = None,
    timeout: float | None = 600.0,
    rate_limiter: BaseRateLimiter | None = None,
    budget: float | None = None,
    prices: Prices | None = None,
    max_failures: float = 0.5,
    max_crashes: int = 3,
    shard: str | tuple[int, int] | None = None,
    retry_failed: bool = False,
    restart: bool = False,
    answers: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    skip_bad_lines: bool = False,
    progress: str | os.PathLike[str] | None = None,
    config: RunnableConfig | None = None,
    context: Any = None,
    grace: float = 60.0,
    engine: Literal["ray"] | Ray | None = None,
    show_progress: bool | Display = False,
    on_row: Callable[[CompletedRow], Any] | None = None,
) -> Report:
    """Run an agent on each row of a dataset, and write each row once.

    The same call again goes on where the one before has ended, however that was: rows that are settled are not run
    again. Beside the output stands the progress file, `<output>.progress`.

    Args:
        agent: a graph, a builder, a chat model, a Runnable, a `RemoteAgent`, or a function of the messages, of a state,
            or of the columns of a row; or a list of `RemoteAgent`s of one graph at several hosts.
        rows: a path (`.jsonl`, `.csv`, both also with `.gz`; `.parquet` with the extra `data`), `"-"` for stdin, or an
            iterable or async iterable of dicts, such as a Hugging Face dataset. It is read lazily. An async generator
            is closed at the end.
        output: `.jsonl`, `.csv` or `.parquet`; None for `report.rows`. CSV and Parquet are made at the end, of a file
            `<output>.jsonl` that grows with the rows.
        input: keys of the agent's state with their columns, or a function of the columns. By default each column goes
            to the key of its name.
        result: a function of the columns and the state that returns the row's record, several or None (the row is done
            and leaves nothing). By default the columns and the state's output, messages as role and content.
        where: a function of the columns; rows for which it is false are left out.
        accept: a function of the columns and the state; where it is false the row is run again, or at last rejected.
        id: the column or a function of the columns that names a row for good. By default the hash of its content.
        repetitions: run each row so many times. Ids end with `/0`, `/1` and so on, which the agent finds in
            `config["configurable"]["repetition"]`.
        limit: read so many rows at most.
        order: of the output: as rows are `"done"`, or as in the `"input"`; no row waits for that.
        max_concurrency: rows at the same time.
        retry: which failures are tried again, and how often; by default LangGraph's policy. A 429 of a provider, a host
            that is full and one that cannot be reached cost no attempt.
        timeout: seconds for one attempt of a row; None is no limit.
        rate_limiter: asked before each attempt.
        budget: no row is begun when so many tokens are used, or so much money where there are `prices`.
        prices: by the model's name what a million tokens cost, given and made: `{"some-model": (0.15, 0.6)}`.
        max_failures: the share of failed rows, of twenty and more, at which the run is ended.
        max_crashes: a row at which this process crashed so often (out of memory, a fault in native code, a SIGKILL) is
            tombstoned. Before the last time it is run alone, so that no other one is taken for the reason.
        shard: `"3/8"` for the third of eight parts, each with an output of its own.
        retry_failed: also run the rows that have failed, were rejected or tombstoned.
        restart: forget what is done and begin anew.
        answers: for paused rows, by their ids; or a file of lines `{"id": ..., "answer": ...}`.
        skip_bad_lines: count lines that are no row, instead of ending at the first.
        progress: another place for the progress file; it must not be on a network file system.
        config: a config for each run, as of `ainvoke`.
        context: the context of each run, as of `ainvoke`.
        grace: seconds for the rows under way, when the run is ended.
        engine: `"ray"`, or `Ray(replicas=4, num_gpus=0.5)`: the graph goes to hosts in Ray actors (extra `ray`). Call
            `ray.init` yourself, or have it done here, before the first use of a `RemoteAgent` in the process.
        show_progress: show it on stderr.
        on_row: called with each row that this run settles, once it is on disk; it may be async, and the row keeps its
            slot until it returns. `report.rows` is empty then.

    Returns:
        What became of the rows, earlier runs included.

    Raises:
        DatasetError: a row, a column, a file or a setting cannot be used. What was done is kept.
        TooManyFailures: `max_failures`.
        MissingExtra: Parquet without pyarrow.
        Exception: an error with which no row can succeed, such as a wrong token.
    """
    check_numbers(
        max_concurrency=max_concurrency, repetitions=repetitions, limit=limit, order=order, max_failures=max_failures,
        max_crashes=max_crashes, timeout=timeout, budget=budget, grace=grace,
    )  # fmt: skip
    policy = retry or RetryPolicy()
    given_answers = read_answers(Path(answers) if isinstance(answers, os.PathLike) else answers)
    run = DatasetRun(
        agents=list(agent) if isinstance(agent, list | tuple) else [agent],
        source=rows,
        output=None if output is None else Path(output),
        progress=None if progress is None else Path(progress),
        reading=ReadOptions(id, repetitions, where, limit, parse_shard(shard), skip_bad_lines),
        running=RunOptions(
            input, result, accept, policy, timeout, rate_limiter, config, context, repeats=repetitions > 1,
            answers=given_answers,
        ),
        limits=Limits(budget, prices, max_failures, max_crashes, grace),
        in_input_order=order == "input",
        max_concurrency=max_concurrency, engine=_engine_of(engine),
    )  # fmt: skip
    with ExitStack() as stack:
        try:
            await run.open(stack, restart=restart, retry_failed=retry_failed)
            return await run.run(display_of(show_progress), on_row)
        finally:
            await run.aclose()


def _engine_of(engine: Any) -> Ray | None:
    if engine is None or isinstance(engine, Ray):
        return engine
    if engine == "ray":
        return Ray()
    raise DatasetError(f"engine is 'ray' or Ray(...), not {engine!r}")


def _sync_twin(function: Callable[P, Coroutine[Any, Any, Report]]) -> Callable[P, Report]:
    """The verb for sync callers, with the same arguments."""

    def refine(*args: P.args, **kwargs: P.kwargs) -> Report:
        """The same as `arefine`, for sync callers.

        Ctrl-C and SIGTERM let the rows under way end, for `grace` seconds; the second ends them at once.

        Raises:
            KeyboardInterrupt: it was interrupted; what was done is kept.
        """
        report = run_draining(lambda: function(*args, **kwargs))
        if report.ended == "interrupted":
            raise KeyboardInterrupt
        return report

    refine.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return refine


refine = _sync_twin(arefine)
