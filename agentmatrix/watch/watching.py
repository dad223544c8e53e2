"""`watching`: a block of code whose runs are seen; and runs of other processes, from their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Final

from agentmatrix.watch.hooks import hooked, is_process_hook_muted
from agentmatrix.watch.notebook_view import notebook_view
from agentmatrix.watch.token_recorder import new_recorder
from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["load", "watching"]

_LAST_SECONDS: Final = 3.0
"""How long the end of a block waits for its page."""


@contextmanager
def watching(
    graph: Any = None,
    *,
    show: bool | None = None,
    tokens: bool = False,
    values: bool = False,
    ui: str | None = None,
) -> Iterator[WatchedRun]:
    """See all runs of a block: of any graph, by any verb, here and on hosts, in threads that begin in it.

    >>> with watching() as run:
    ...     graph.invoke(...)  # doctest: +SKIP
    >>> print(run.summary())  # doctest: +SKIP

    In a notebook the graph is shown while it runs. A watcher never changes a run; without one nothing is spent on it.

    Args:
        graph: shown before it begins; without it the picture comes with the first run.
        show: True to show a picture in the notebook that this is called in, False for none; None where there is one.
        tokens: have all models stream, and tell what they say while they say it.
        values: keep the input and the output of each activation, as JSON text of at most 100,000 characters.
        ui: the address of a page of `agentmatrix ui`, which shows the runs too.

    Raises:
        AddressError: `ui` is no address of a page.

    Yields:
        What is seen: `summary()`, `nodes`, `transcript`, `questions`, `answer(...)`, `events()`, `save(path)`.
    """
    run = WatchedRun(graph)
    run.block = _block(run, show, tokens=tokens, values=values)
    with _reported(ui), run.block():
        yield run


@contextmanager
def _reported(ui: str | None) -> Iterator[None]:
    if ui is None:
        yield
        return
    from agentmatrix.watch.page_connection import page_reporter

    reporter = page_reporter(ui)
    muted = is_process_hook_muted.set(True)
    try:
        with hooked(reporter.recorder):
            yield
    finally:
        is_process_hook_muted.reset(muted)
        reporter.flush(_LAST_SECONDS)


def load(path: str | PathLike[str], graph: Any = None) -> WatchedRun:
    """A run that `WatchedRun.save` has written.

    Args:
        path: of the file.
        graph: what has run. With it, and the checkpointer that the run had, the open questions can be answered.

    Raises:
        ValueError: the file is none of these; names the line.
    """
    run = WatchedRun(graph)
    run.block = _block(run, False)
    with Path(path).open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                run.take_json(json.loads(text))
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is not of a saved run: {error}") from None
    return run


def _block(
    run: WatchedRun, show: bool | None, *, tokens: bool = False, values: bool = False
) -> Callable[[], AbstractContextManager[None]]:
    """Makes blocks whose runs are seen as parts of a watched run."""
    recorder = new_recorder(run.take, run.open_graph, tokens=tokens, values=values)
    run.follow(recorder.transfers)

    @contextmanager
    def block() -> Iterator[None]:
        run.is_open = True
        with notebook_view(run, show), hooked(recorder):
            try:
                yield
            finally:
                run.is_open = False

    return block
