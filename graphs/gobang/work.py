"""The work that goes into a move, written down where it is done: what is done twice can be counted from outside.

Where the environment names a folder in `GOBANG_WORK`, each node that searches for a move first appends one line,
`move node process`, to a file of its process there.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .rules import SIDES, Board

WORK = "GOBANG_WORK"
"""The environment variable with the folder. Processes that are started inherit it."""


def begin(node: str, board: Board) -> None:
    """Writes down that a node begins to work on the next move of a game."""
    if not (folder := os.environ.get(WORK)):
        return
    path = Path(folder, f"{os.getpid()}.txt")
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{len(board.moves) + 1} {node} {os.getpid()}\n".encode())
    finally:
        os.close(file)


@contextmanager
def written_down() -> Iterator[Path]:
    """While this goes on, the nodes of this process and of those that it starts write into a new folder."""
    before = os.environ.get(WORK)
    with tempfile.TemporaryDirectory(prefix="gobang-") as folder:
        os.environ[WORK] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[WORK]
            if before is not None:
                os.environ[WORK] = before


@dataclass(frozen=True)
class Done:
    """What has been written down about a game.

    Attributes:
        lines: how often each node began to work on each move, by (number of the move, node).
    """

    lines: Counter[tuple[int, str]]

    @classmethod
    def read(cls, folder: Path) -> Done:
        """Reads what all processes have written into a folder."""
        split = (line.split() for path in sorted(folder.glob("*.txt")) for line in path.read_text().splitlines())
        return cls(Counter((int(move), node) for move, node, _ in split))

    def moves(self, side: str) -> set[int]:
        """The moves that nodes of this side worked on, by number."""
        return {move for move, _ in self.lines if SIDES[(move - 1) % 2] == side}

    def twice(self, side: str) -> set[int]:
        """Those of them for which any node began more than once."""
        return {move for move in self.moves(side) if any(n > 1 for (m, _), n in self.lines.items() if m == move)}
