"""The live picture in a notebook: one output that is replaced, by plain HTML, so that the saved file keeps the last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from agentmatrix.watch.html_view import HtmlView
from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["notebook_view"]

logger = logging.getLogger("agentmatrix")

_SECONDS: Final = 0.125
"""Between two pictures: front ends redraw the whole output."""
_SHARE: Final = 10
"""A picture that takes long is made less often: it takes a tenth of the time at most."""


@contextmanager
def notebook_view(run: WatchedRun, show: bool | None) -> Iterator[None]:
    """Show the runs of the block where it runs in a notebook.

    Args:
        run: what is seen.
        show: False for no picture; True to show it in any IPython session.
    """
    shell = None if show is False else _shell()
    if shell is None or not (show or hasattr(shell, "kernel")):
        yield
        return
    view = _NotebookView(run)
    try:
        yield
    finally:
        view.close()


def _shell() -> Any:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    return get_ipython()  # type: ignore[no-untyped-call,unused-ignore]


class _NotebookView:
    """Repaints an output when something has changed, at most eight times a second; the last state always."""

    def __init__(self, run: WatchedRun) -> None:
        from IPython.display import display

        self._run, self._html = run, HtmlView(run)
        self._seen = -1
        self._closed = threading.Event()
        self._handle: Any = display(self._picture(), display_id=True)  # type: ignore[no-untyped-call,unused-ignore]
        run.is_shown = True
        # A kernel knows by the context which cell an output belongs to.
        work = partial(copy_context().run, self._work)
        self._thread = threading.Thread(target=work, name="agentmatrix-view", daemon=True)
        self._thread.start()

    def _picture(self) -> Any:
        from IPython.display import HTML

        self._seen = self._run.version
        return HTML(self._html.paint())  # type: ignore[no-untyped-call,unused-ignore]

    def _work(self) -> None:
        took = 0.0
        while not self._closed.wait(max(_SECONDS, _SHARE * took)):
            began = time.perf_counter()
            self._repaint()
            took = time.perf_counter() - began

    def _repaint(self) -> None:
        if self._run.version == self._seen and not self._html.is_ticking:
            return
        try:
            self._handle.update(self._picture())
        except Exception:
            logger.exception("the picture of a run cannot be shown; the run goes on")
            self._closed.set()

    def close(self) -> None:
        """Show the last state."""
        self._closed.set()
        self._thread.join()
        self._seen = -1
        self._repaint()
