"""A game on a terminal: what is said line by line, the board below it; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.messages import BaseMessage
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from graphs.gobang.referee import Record
from graphs.gobang.rules import SIDES, SIZE, Board, name_of

_STYLES = {"black": "cyan", "white": "magenta"}
_SIGNS = {False: {"black": "●", "white": "○", "": "·"}, True: {"black": "x", "white": "o", "": "."}}


class Show:
    """Shows the parts of a game's stream as they come, and keeps what the table at the end needs.

    Args:
        console: where to show it.
        places: for each side that plays on another host, the host's address.
        live: draw the board anew after each move, where the console is a terminal.

    Attributes:
        record: what the referee has entered so far.
        calls: how often each side was called.
        seconds: how long these calls took, all together.
    """

    def __init__(self, console: Console, places: dict[str, str], *, live: bool = True) -> None:
        self.record: Record = {"moves": []}
        self.calls = dict.fromkeys(SIDES, 0)
        self.seconds = dict.fromkeys(SIDES, 0.0)
        self._console, self._places = console, places
        self._live = Live(console=console, auto_refresh=False) if live and console.is_terminal else None
        self._speaking, self._since = "", time.perf_counter()

    @contextmanager
    def playing(self) -> Iterator[None]:
        """While the game goes on; it ends with the board."""
        if self._live is not None:
            with self._live:
                yield
            return
        yield
        self._console.print(self.record.get("board", ""), markup=False)

    def part(self, namespace: tuple[str, ...], update: dict[str, Any]) -> None:
        """Shows one part of a stream of updates with subgraphs."""
        for node, change in update.items():
            if not namespace and node == "judge":
                self._entered(change)
            elif not namespace and node in SIDES:
                self._answered(node, change)
            elif len(namespace) == 1 and isinstance(change, dict):
                self._said(namespace[0].partition(":")[0], change)

    def _answered(self, side: str, change: dict[str, Any]) -> None:
        self.calls[side] += 1
        self.seconds[side] += time.perf_counter() - self._since
        if self._speaking != side:
            self._said(side, change)

    def _said(self, side: str, change: dict[str, Any]) -> None:
        for message in change.get("messages", ()):
            if self._speaking != side:
                self._print(self._heading(side, message))
            self._speaking = side
            self._print(Text.assemble((f"    {message.name or side:<9} ", _STYLES[side]), _printable(message.text)))

    def _heading(self, side: str, message: BaseMessage) -> Text:
        ran = message.additional_kwargs.get("ran", {})
        place = f"at {self._places[side]}" if side in self._places else "here"
        process = f", process {ran['pid']} on {ran['host']}" if ran else ""
        number = len(self.record["moves"]) + 1
        return Text.assemble((f"{number:>3} {side}", f"bold {_STYLES[side]}"), (f" {place}{process}", "dim"))

    def _entered(self, change: Record) -> None:
        self.record.update(change)
        self._speaking, self._since = "", time.perf_counter()
        if self._live is not None:
            self._live.update(picture(self.record["moves"], self._console.options.ascii_only), refresh=True)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)


def _printable(text: str) -> str:
    """Text on one line, without the control characters that an agent could steer a terminal with."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def picture(moves: list[str], ascii: bool = False) -> Text:
    """The board in colour: the last move and five in a row stand out."""
    board, text = Board.of(moves), Text()
    sides = {cell: SIDES[number % 2] for number, cell in enumerate(board.moves)}
    for row in reversed(range(SIZE)):
        text.append(f"{row + 1:>5} ", "dim")
        for cell in range(row * SIZE, (row + 1) * SIZE):
            loud = " bold reverse" if cell in (*board.moves[-1:], *board.five) else ""
            side = sides.get(cell, "")
            text.append(_SIGNS[ascii][side], f"{_STYLES[side]}{loud}" if side else "dim")
            text.append(" ")
        text.append("\n")
    columns = " ".join(name_of(cell)[0] for cell in range(SIZE))
    return text.append(f"      {columns}", "dim")


def table(show: Show, places: dict[str, str], overhead: float) -> Table:
    """What the game cost.

    Args:
        overhead: of a remote call, in milliseconds.
    """
    made = Table(title="What it took", title_justify="left")
    made.add_column("")
    for side in SIDES:
        made.add_column(f"{side}, at {places[side]}" if side in places else f"{side}, here", justify="right")
    calls = {side: f"{show.calls[side]} {'remote' if side in places else 'local'}" for side in SIDES}
    searched = {side: f"{show.record.get('searched', {}).get(side, 0):,}" for side in SIDES}
    each = {side: f"{1000 * show.seconds[side] / max(1, show.calls[side]):.0f} ms" for side in SIDES}
    extra = {side: f"{overhead:.1f} ms" if side in places else "-" for side in SIDES}
    rows = {"calls": calls, "positions searched": searched, "time of a call, mean": each}
    for title, cells in (rows | {"overhead of a remote call": extra}).items():
        made.add_row(title, *(cells[side] for side in SIDES))
    return made
