"""The search for a good move: alpha-beta with threats first, bounded by positions, never by the clock.

So the same position, seed and budget give the same move on every machine. The evaluation counts the stones in
each of the 572 windows of five; one that holds both colours is dead. A stone changes only the windows through
it, 20 at most, so the score and the pull of each cell are kept up to date instead of computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import add
from random import Random

from .rules import BLACK, CELLS, SIZE, THROUGH, WINDOWS, Board

WIN = 10_000_000
FIVE = 1_000_000
FOUR = 250
_TAKEN = -(10**9)
_STEP = (6, 1)

Line = tuple[int, ...]


def _worth(by_stones: Sequence[int], side: int) -> Line:
    """What a window is worth to a side, by the window's state: 6 x black stones + white stones."""
    states = [divmod(state, 6) for state in range(36)]
    return tuple(by_stones[state[side]] if state[1 - side] == 0 else 0 for state in states)


_SCORES = [_worth((0, 1, 8, 50, 300, FIVE), side) for side in (0, 1)]
_SCORE = [black - white for black, white in zip(*_SCORES, strict=True)]
_PULL = [_worth((0, 7, 42, FOUR, FIVE, 0), side) for side in (0, 1)]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        line: the moves that it expects, the best one first; empty where it found nothing.
        score: for the side to move; beyond +-`WIN` / 2 the game is decided.
        searched: positions looked at.
        depth: moves looked ahead.
    """

    line: Line
    score: int
    searched: int
    depth: int

    @property
    def decided(self) -> bool:
        """Whether the line ends the game."""
        return abs(self.score) > WIN // 2


class _Spent(Exception):
    """The budget of positions is used up."""


class Position:
    """A board on which stones are put and taken away.

    Attributes:
        score: the evaluation, positive where black stands better.
        pull: for each side what each cell would give it; at least `FIVE` where a stone wins at once.
        searched: positions looked at, at most `budget`.
    """

    def __init__(self, board: Board, *, seed: int = 0, width: int = 0, budget: int = 1) -> None:
        self.score = self.searched = 0
        self.width, self.budget = width, budget
        self.pull = ([0] * CELLS, [0] * CELLS)
        self._windows = [0] * len(WINDOWS)
        self._order = Random(seed).sample(range(CELLS), CELLS)
        for number, cell in enumerate(board.moves):
            self.put(cell, number % 2)

    def put(self, cell: int, side: int, sign: int = 1) -> None:
        """Put a stone, or take it away again with `sign=-1`."""
        pulls = tuple(zip(self.pull, _PULL, strict=True))
        for pull, _ in pulls:
            pull[cell] += sign * _TAKEN
        for number in THROUGH[cell]:
            old = self._windows[number]
            new = self._windows[number] = old + sign * _STEP[side]
            self.score += _SCORE[new] - _SCORE[old]
            for pull, worth in pulls:
                if change := worth[new] - worth[old]:
                    for other in WINDOWS[number]:
                        pull[other] += change

    def fives(self, side: int) -> list[int]:
        """The cells where a stone of this side wins at once."""
        pull = self.pull[side]
        return [cell for cell in range(CELLS) if pull[cell] >= FIVE] if max(pull) >= FIVE else []

    def near(self) -> list[int]:
        """The cells that matter most to both sides; ties fall by the seed."""
        pull = list(map(add, *self.pull))
        cells = sorted(self._order, key=pull.__getitem__, reverse=True)[: self.width]
        return [cell for cell in cells if pull[cell] >= 0]

    def best(
        self, moves: Sequence[int], side: int, depth: int, alpha: int = -WIN, beta: int = WIN, ply: int = 0
    ) -> tuple[int, Line]:
        """The best of these moves, with `depth` more behind it: its score and its line; 0 where there are none."""
        best, line = (-WIN, tuple(moves[:1])) if moves else (0, ())
        for cell in moves:
            self.put(cell, side)
            score, reply = self._alpha_beta(1 - side, depth, -beta, -alpha, ply + 1)
            self.put(cell, side, -1)
            if -score > best:
                best, line = -score, (cell, *reply)
                alpha = max(alpha, best)
            if alpha >= beta:
                break
        return best, line

    def _alpha_beta(self, side: int, depth: int, alpha: int, beta: int, ply: int) -> tuple[int, Line]:
        self._count()
        if wins := self.fives(side):
            return WIN - ply, (wins[0],)
        forced = self.fives(1 - side)
        if len(forced) > 1:
            return ply + 1 - WIN, (forced[0],)
        if forced or depth > 0:  # a forced answer costs no depth
            return self.best(forced or self.near(), side, depth - (not forced), alpha, beta, ply)
        own = max(self.pull[side])
        return (self.score if side == BLACK else -self.score) + own * (4 if own >= 2 * FOUR else 1), ()

    def fours(self, side: int, depth: int) -> Line:
        """A line of fours, each with one possible answer, that ends in five; empty without one."""
        self._count()
        if wins := self.fives(side):
            return (wins[0],)
        pull = self.pull[side]
        cells = self.fives(1 - side) or [cell for cell in self._order if pull[cell] >= FOUR]
        for cell in sorted(cells, key=pull.__getitem__, reverse=True) if depth else ():
            self.put(cell, side)
            answers = [] if self.fives(1 - side) else self.fives(side)
            for answer in answers if len(answers) == 1 else ():
                self.put(answer, 1 - side)
                line = self.fours(side, depth - 1)
                self.put(answer, 1 - side, -1)
                answers = [answer, *line]
            self.put(cell, side, -1)
            if len(answers) > 1:
                return (cell, *answers)
        return ()

    def _count(self) -> None:
        self.searched += 1
        if self.searched >= self.budget:
            raise _Spent


def candidates(board: Board, *, width: int = 10, seed: int = 0) -> list[int]:
    """The moves worth a search: all that win at once, else all that stop a five, else the best near stones.

    The first three stones are drawn by the seed, about the middle.
    """
    if len(board.moves) < 3:
        middle = [row * SIZE + column for row in range(5, 10) for column in range(5, 10)]
        return [cell for cell in Random(seed + len(board.moves)).sample(middle, 3) if cell not in board.moves][:1]
    position = Position(board, seed=seed, width=width)
    return position.fives(board.to_move) or position.fives(1 - board.to_move) or position.near()


def search(
    board: Board, moves: Sequence[int] = (), *, depth: int = 8, width: int = 8, budget: int = 2000, seed: int = 0
) -> Found:
    """The best of these moves (by default of `candidates`), by alpha-beta that looks one move further each time.

    It tries `width` moves at each position, and stops at `depth` moves ahead or when it has looked at `budget`
    positions: then the last depth that was finished counts. The seed decides ties.
    """
    position = Position(board, seed=seed, width=width, budget=budget)
    moves = list(moves or candidates(board, width=width, seed=seed))
    found = Found((moves[0],), 0, 0, 0)
    for ahead in range(0 if len(moves) == 1 else depth):
        try:
            score, line = position.best(moves, board.to_move, ahead)
        except _Spent:
            break
        found = Found(line, score, 0, ahead + 1)
        if found.decided:
            break
        moves.sort(key=line[0].__ne__)
    return replace(found, searched=position.searched)


def forced_win(board: Board, side: int, *, depth: int = 8, budget: int = 400) -> Found:
    """A win by fours alone for a side if it may move now; an empty line where none was found."""
    position = Position(board, budget=budget)
    try:
        line = position.fours(side, depth)
    except _Spent:
        line = ()
    return Found(line, WIN if line else 0, position.searched, len(line))
