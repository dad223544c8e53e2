"""`agentmatrix run --watch`: the tree of the nodes stays below what is said, and is repainted while they work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentmatrix.cli.output import Namespace, TextOutput
from agentmatrix.cli.terminal_text import terminal_text
from agentmatrix.watch.text_view import TextLine, text_of_run
from agentmatrix.watch.watched_run import WatchedRun
from agentmatrix.watch.watching import watching

__all__ = ["WatchOutput"]

_REPAINTS: Final = 8.0
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
        self._run: WatchedRun | None = None
        self._said = 0

    def show_part(self, namespace: Namespace, mode: str, data: Any) -> None:
        """The watcher sees what runs; of the stream only the last values are read."""

    @contextmanager
    def watched(self, graph: Any) -> Iterator[None]:
        """Show what runs in the block. Where the output is no terminal, its end."""
        console = Console(file=sys.stdout, highlight=False)
        with (
            watching(graph, show=False) as self._run,
            Live(
                console=console,
                get_renderable=self._paint,
                refresh_per_second=_REPAINTS,
                transient=False,
                redirect_stderr=False,
                redirect_stdout=False,
            ) as live,
        ):
            self._live = live
            yield
            live.refresh()
        if not console.is_terminal:
            console.print()

    def _paint(self) -> Table:
        assert self._run is not None
        self._print_said(self._run)
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for line in text_of_run(self._run):
            table.add_row(*_cells(line))
        return table

    def _print_said(self, run: WatchedRun) -> None:
        lines = run.transcript
        new, self._said = lines[self._said :], len(lines)
        for line in new:
            if line.text and line.path:
                text = Text(terminal_text(f"{line.speaker}: "), f"bold {self._style(line.speaker)}")
                self._live.console.print(text.append(terminal_text(line.text), "not bold default"), soft_wrap=True)


def _cells(line: TextLine) -> tuple[Text, Text, Text]:
    style = _STYLES.get(line.state, "dim")
    return Text(terminal_text(line.name)), Text(line.state, style), Text(terminal_text(line.words), "dim")
