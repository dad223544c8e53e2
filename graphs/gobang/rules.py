"""The rules of Gobang: five or more in a row on 15 x 15 crossings, black begins."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SIZE = 15
CELLS = SIZE * SIZE
BLACK, WHITE = 0, 1
SIDES = ("black", "white")

_COLUMNS = "abcdefghijklmno"
_MOVE = re.compile(r"\b([a-o])-?(1[0-5]|[1-9])\b", re.IGNORECASE)
WINDOWS: tuple[tuple[int, ...], ...] = tuple(
    tuple((row + k * up) * SIZE + column + k * right for k in range(5))
    for up, right in ((0, 1), (1, 0), (1, 1), (1, -1))
    for row in range(SIZE - 4 * up)
    for column in range(SIZE)
    if 0 <= column + 4 * right < SIZE
)
"""Every run of five cells: who fills one has won."""

THROUGH: tuple[tuple[int, ...], ...] = tuple(
    tuple(number for number, window in enumerate(WINDOWS) if cell in window) for cell in range(CELLS)
)
"""For each cell the numbers of the windows through it."""


def name_of(cell: int) -> str:
    """The coordinates of a cell: column a to o, row 1 to 15 from below, such as `"h8"`."""
    return f"{_COLUMNS[cell % SIZE]}{cell // SIZE + 1}"


def moves_in(text: str) -> list[int]:
    """The cells that a text names, in its order."""
    return [(int(row) - 1) * SIZE + _COLUMNS.index(column.lower()) for column, row in _MOVE.findall(text)]


@dataclass(frozen=True, slots=True)
class Board:
    """A position, kept as the moves that led to it: cells, black's first."""

    moves: tuple[int, ...] = ()

    @classmethod
    def of(cls, names: Iterable[str]) -> Board:
        """The board after moves such as `["h8", "g9"]`; ValueError where one breaks the rules."""
        board = cls()
        for cell in moves_in(" ".join(names)):
            board = board.play(cell)
        return board

    @property
    def names(self) -> list[str]:
        """The moves by name: what `of` takes."""
        return [name_of(cell) for cell in self.moves]

    @property
    def to_move(self) -> int:
        """`BLACK` or `WHITE`."""
        return len(self.moves) % 2

    @property
    def five(self) -> tuple[int, ...]:
        """Five in a row of whoever moved last, empty where there are none: nobody else can have won."""
        stones = frozenset(self.moves[1 - self.to_move :: 2])
        windows = (WINDOWS[number] for cell in self.moves[-1:] for number in THROUGH[cell])
        return next((window for window in windows if stones.issuperset(window)), ())

    @property
    def winner(self) -> int | None:
        """The side that has five in a row."""
        return 1 - self.to_move if self.five else None

    @property
    def over(self) -> bool:
        """Whether somebody has won or the board is full."""
        return len(self.moves) == CELLS or self.winner is not None

    def play(self, cell: int) -> Board:
        """The board after one more stone; ValueError where the cell is taken or the game over."""
        if self.over:
            raise ValueError("the game is over")
        if cell in self.moves:
            raise ValueError(f"{name_of(cell)} is taken")
        return Board((*self.moves, cell))

    def __str__(self) -> str:
        """The board as text: x is black, o is white, the last move and a five in a row in capitals."""
        loud = {*self.moves[-1:], *self.five}
        marks = {cell: "xoXO"[number % 2 + 2 * (cell in loud)] for number, cell in enumerate(self.moves)}
        dots = [marks.get(cell, ".") for cell in range(CELLS)]
        rows = [f"{row + 1:>2} {' '.join(dots[row * SIZE :][:SIZE])}" for row in reversed(range(SIZE))]
        return "\n".join([*rows, f"   {' '.join(_COLUMNS)}"])
