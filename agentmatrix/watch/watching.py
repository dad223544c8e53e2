"""`watching`: a block of code whose runs are seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentmatrix.watch.hooks import hooked
from agentmatrix.watch.notebook_view import notebook_view
from agentmatrix.watch.recorder import EventRecorder
from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["watching"]


@contextmanager
def watching(graph: Any = None, *, show: bool | None = None) -> Iterator[WatchedRun]:
    """See all runs of a block: of any graph, by any verb, here and on hosts, in threads that begin in it.

    >>> with watching() as run:
    ...     graph.invoke(...)  # doctest: +SKIP
    >>> print(run.summary())  # doctest: +SKIP

    In a notebook the graph is shown while it runs. A watcher never changes a run; without one nothing is spent on it.

    Args:
        graph: shown before it begins; without it the picture comes with the first run.
        show: True to show a picture in the notebook that this is called in, False for none; None where there is one.

    Yields:
        What is seen: `summary()`, `nodes`, `transcript`, `questions`, `answer(...)`, `events()`, `save(path)`.
    """
    run = WatchedRun(graph)
    recorder = EventRecorder(run.take, run.open_graph)
    run.follow(recorder.transfers)

    @contextmanager
    def block() -> Iterator[None]:
        run.is_open = True
        with notebook_view(run, show), hooked(recorder):
            try:
                yield
            finally:
                run.is_open = False

    run.block = block
    with block():
        yield run
