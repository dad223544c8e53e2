"""`agentmatrix run --watch`: the tree of the nodes stays below what is said, and is repainted while they work."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentmatrix.cli.output import Namespace, TextOutput
from agentmatrix.cli.terminal_text import terminal_text
from agentmatrix.cli.thread_runner import WRAPPER
from agentmatrix.watch.text_view import TextLine, text_of_run
from agentmatrix.watch.watched_run import WatchedRun
from agentmatrix.watch.watching import watching

__all__ = ["WatchOutput"]

_SECONDS: Final = 0.125
"""Between two pictures."""
_STYLES: Final = {
    "running": "bold blue",
    "done": "green",
    "failed": "bold red",
    "asking": "bold yellow",
    "cut off": "dim strike",
}


class WatchOutput(TextOutput):
    """Shows the nodes of a run, and what is said as soon as it is whole."""

    stream_modes = ("values",)

    def __init__(self) -> None:
        super().__init__()
        self._screen = Console(file=sys.stdout, highlight=False)
        self._ended = threading.Event()
        self._said = 0

    def show_part(self, namespace: Namespace, mode: str, data: Any) -> None:
        """The watcher sees what runs; of the stream only the last values are read."""

    @contextmanager
    def watched(self, graph: Any) -> Iterator[None]:
        """Show what runs in the block. Where the output is no terminal, what is said, and in the end the nodes."""
        self._ended.clear()
        self._said = 0
        with watching(graph, show=False) as run, self._live(run) as live:
            worker = threading.Thread(target=self._repaint, args=(run, live), name="agentmatrix-view", daemon=True)
            worker.start()
            try:
                yield
            finally:
                self._ended.set()
                worker.join()
                self._paint(run, live)
                if live is None:
                    self._screen.print(_table(run))

    def _live(self, run: WatchedRun) -> AbstractContextManager[Live | None]:
        if not self._screen.is_terminal:
            return nullcontext()
        return Live(_table(run), console=self._screen, auto_refresh=False, redirect_stderr=False, redirect_stdout=False)

    def _repaint(self, run: WatchedRun, live: Live | None) -> None:
        while not self._ended.wait(_SECONDS):
            self._paint(run, live)

    def _paint(self, run: WatchedRun, live: Live | None) -> None:
        lines = run.transcript
        new, self._said = lines[self._said :], len(lines)
        for line in new:
            if line.text and line.path:
                text = Text(terminal_text(f"{line.speaker}: "), f"bold {self._style(line.speaker)}")
                self._screen.print(text.append(terminal_text(line.text), "not bold default"), soft_wrap=True)
        if live is not None:
            live.update(_table(run), refresh=True)


def _table(run: WatchedRun) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for line in _lines(run):
        table.add_row(*_cells(line))
    return table


def _lines(run: WatchedRun) -> list[TextLine]:
    lines = text_of_run(run)
    if len(lines) < 2 or lines[0].name != WRAPPER:
        return lines
    # The graph that gives a remote one its memory has one node: what is inside is shown, as if it were here.
    whole, only, *rest = lines
    indent = len("└─ ")
    return [only._replace(name=only.name[indent:], words=whole.words), *(_dedented(line, indent) for line in rest)]


def _dedented(line: TextLine, by: int) -> TextLine:
    return line._replace(name=line.name[by:])


def _cells(line: TextLine) -> tuple[Text, Text, Text]:
    style = _STYLES.get(line.state, "dim")
    return Text(terminal_text(line.name)), Text(line.state, style), Text(terminal_text(line.words), "dim")
