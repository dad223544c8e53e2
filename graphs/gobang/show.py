"""A game on a terminal: what is said line by line, the board below it; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.messages import BaseMessage
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .referee import Record
from .rules import SIDES, SIZE, Board, name_of
from .work import Done

_STYLES = {"black": "cyan", "white": "magenta"}
_SIGNS = {False: {"black": "●", "white": "○", "": "·"}, True: {"black": "x", "white": "o", "": "."}}


class Show:
    """Shows the parts of a game's stream as they come, and keeps what the table at the end needs.

    Args:
        console: where to show it.
        places: for each side that plays on another host, the host's address.
        live: draw the board anew after each move, where the console is a terminal.

    Attributes:
        places: for each side that plays on another host, where it plays now.
        record: what the referee has entered so far.
        calls: how often each side was called.
        seconds: how long these calls took, all together.
        kills: the moves at which a side's host was killed.
    """

    def __init__(self, console: Console, places: dict[str, str], *, live: bool = True) -> None:
        self.record: Record = {"moves": []}
        self.calls = dict.fromkeys(SIDES, 0)
        self.seconds = dict.fromkeys(SIDES, 0.0)
        self.kills: dict[str, list[int]] = {side: [] for side in SIDES}
        self.places, self._console = dict(places), console
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

    def killed(self, side: str) -> None:
        """Says that a side's host was killed in the middle of its turn."""
        self.kills[side].append(len(self.record["moves"]) + 1)
        self._took(side)
        where = f"  move {self.kills[side][-1]}: the host at {self.places[side]} was killed (kill -9)"
        self._print(Text(f"{where} in the middle of its turn;", "bold red"))

    def goes_on(self, side: str, place: str) -> None:
        """Says that another host has taken the place of the one that was killed."""
        self.places[side], self._since = place, time.perf_counter()
        self._print(
            Text(f"    another at {place} goes on from the last checkpoint, with the search done.", "bold green")
        )

    def part(self, namespace: tuple[str, ...], update: dict[str, Any]) -> None:
        """Shows one part of a stream of updates with subgraphs."""
        for node, change in update.items():
            if not namespace and node == "judge":
                self._entered(change)
            elif not namespace and node in SIDES:
                self._answered(node, change)
            elif len(namespace) == 1 and isinstance(change, dict):
                self._said(namespace[0].partition(":")[0], change)

    def _took(self, side: str) -> None:
        self.calls[side] += 1
        self.seconds[side] += time.perf_counter() - self._since

    def _answered(self, side: str, change: dict[str, Any]) -> None:
        self._took(side)
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
        place = f"at {self.places[side]}" if side in self.places else "here"
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


def table(show: Show, done: Done, overhead: float) -> Table:
    """What the game cost.

    Args:
        done: what the nodes have written down.
        overhead: of a remote call, in milliseconds.
    """
    places = show.places
    made = Table(title="What it took", title_justify="left")
    made.add_column("")
    for side in SIDES:
        made.add_column(f"{side}, at {places[side]}" if side in places else f"{side}, here", justify="right")
    rows: dict[str, Callable[[str], str]] = {
        "calls": lambda side: f"{show.calls[side]} {'remote' if side in places else 'local'}",
        "positions searched": lambda side: f"{show.record.get('searched', {}).get(side, 0):,}",
        "time of a call, mean": lambda side: f"{1000 * show.seconds[side] / max(1, show.calls[side]):.0f} ms",
        "overhead of a remote call": lambda side: f"{overhead:.1f} ms" if side in places else "-",
        "moves computed twice": lambda side: f"{len(done.twice(side))} of {n}" if (n := len(done.moves(side))) else "-",
    }
    if any(show.kills.values()):
        rows["host killed at move"] = lambda side: ", ".join(map(str, show.kills[side])) or "-"
    for title, cell in rows.items():
        made.add_row(title, *map(cell, SIDES))
    return made
