"""The search: what a fair player sees it sees, and it sees the same everywhere."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.gobang.rules import BLACK, CELLS, WHITE, WINDOWS, Board, moves_in, name_of
from graphs.gobang.search import FIVE, Position, candidates, forced_win, search

stones = st.lists(st.tuples(st.integers(0, CELLS - 1), st.sampled_from((0, 1))), unique_by=lambda s: s[0], max_size=80)


def board(black: str, white: str) -> Board:
    """A position with these stones and black to move."""
    blacks, whites = moves_in(black), moves_in(white)
    assert len(blacks) == len(whites)
    return Board(tuple(cell for pair in zip(blacks, whites, strict=True) for cell in pair))


def best(position: Board) -> str:
    return name_of(search(position).line[0])


def state_of(position: Position) -> tuple[int, list[int], list[int]]:
    return position.score, list(position.pull[0]), list(position.pull[1])


def from_scratch(placed: list[tuple[int, int]]) -> int:
    """The evaluation as its definition has it, window by window."""
    side_of, worth = dict(placed), (0, 1, 8, 50, 300, FIVE)
    total = 0
    for window in WINDOWS:
        counts = [sum(side_of.get(cell) == side for cell in window) for side in (0, 1)]
        if min(counts) == 0:
            total += worth[counts[0]] - worth[counts[1]]
    return total


@given(stones, st.randoms(use_true_random=False))
def test_the_evaluation_kept_up_to_date_is_the_one_computed_anew(placed: list[tuple[int, int]], random: Random) -> None:
    position = Position(Board())
    for cell, side in placed:
        position.put(cell, side)
    assert position.score == from_scratch(placed)

    kept = [stone for stone in placed if random.random() < 0.5]
    for cell, side in [stone for stone in placed if stone not in kept]:
        position.put(cell, side, -1)
    fresh = Position(Board())
    for cell, side in kept:
        fresh.put(cell, side)
    assert state_of(position) == state_of(fresh)


@given(stones)
def test_a_cell_wins_at_once_exactly_where_it_fills_a_window(placed: list[tuple[int, int]]) -> None:
    position = Position(Board())
    for cell, side in placed:
        position.put(cell, side)
    side_of = dict(placed)
    wins = {
        cell
        for window in WINDOWS
        for cell in window
        if cell not in side_of and all(side_of.get(other) == BLACK for other in window if other != cell)
    }
    assert set(position.fives(BLACK)) == wins


def test_it_wins_in_one() -> None:
    assert best(board("c3 d3 e3 f3", "c5 d5 e5 f5")) in {"b3", "g3"}


def test_it_wins_rather_than_blocks() -> None:
    assert best(board("c3 d3 e3 g3", "c5 d5 e5 f5")) == "f3"


def test_it_blocks_a_four() -> None:
    assert best(board("b5 k10 k12 m8", "c5 d5 e5 f5")) == "g5"


def test_it_answers_an_open_three() -> None:
    assert best(board("k12 m3 d10", "g8 h8 i8")) in {"e8", "f8", "j8", "k8"}


def test_it_makes_an_open_four() -> None:
    found = search(board("g8 h8 i8", "a1 o1 a15"))
    assert name_of(found.line[0]) in {"f8", "j8"}
    assert found.decided
    assert found.score > 0


def test_it_takes_the_crossing_where_two_threats_meet() -> None:
    """Two threes of black's meet in h8, with a four on either line: white cannot stop both."""
    assert best(board("e8 f8 g8 h9 h10 h11", "d8 h12 a1 o1 o15 a15")) == "h8"


def test_it_blocks_the_crossing_where_two_threats_meet() -> None:
    threatened = board("d8 h12 a1 o1 o15 a15", "e8 f8 g8 h9 h10 h11")
    after = threatened.play(search(threatened).line[0])
    assert not forced_win(after, WHITE).line
    assert forced_win(threatened.play(moves_in("c13")[0]), WHITE).line


def test_a_win_by_fours_is_found_and_each_answer_is_forced() -> None:
    position = board("e8 f8 g8 h9 h10 h11", "d8 h12 a1 o1 o15 a15")
    line = forced_win(position, BLACK).line
    for cell in line:
        position = position.play(cell)
    assert position.winner == BLACK


def test_a_lost_position_still_has_a_move() -> None:
    found = search(board("a1 o1 a15 o15", "c5 d5 e5 f5"))
    assert found.line[0] in {moves_in("b5")[0], moves_in("g5")[0]}
    found = search(board("a1 o1 a15", "g8 h8 i8"), budget=20_000)
    assert found.line


@given(st.integers(0, 10**6))
def test_the_opening_is_drawn_by_the_seed(seed: int) -> None:
    opening = Board()
    for _ in range(3):
        (cell,) = candidates(opening, seed=seed)
        opening = opening.play(cell)
    assert all(name[0] in "fghij" and 6 <= int(name[1:]) <= 10 for name in opening.names)


def test_seeds_give_different_games() -> None:
    assert len({tuple(candidates(Board(), seed=seed)) for seed in range(20)}) > 5


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_position_seed_and_budget_give_the_same_line(seed: int) -> None:
    position = Board.of("h8 i9 g7 i7 i8 g8 h9".split())
    found = search(position, seed=seed)
    assert found == search(position, seed=seed)
    assert 0 < found.searched <= 2000


def test_a_smaller_budget_looks_less_far() -> None:
    position = Board.of("h8 i9 g7 i7 i8 g8 h9".split())
    small, large = search(position, budget=200), search(position, budget=3000)
    assert small.searched <= 200
    assert small.depth < large.depth


def test_a_board_that_is_nearly_full_can_be_searched() -> None:
    cells = list(range(CELLS))
    colours = [(cell % 15 + 2 * (cell // 15)) % 4 < 2 for cell in cells]
    black = [cell for cell in cells if colours[cell]]
    white = [cell for cell in cells if not colours[cell]]
    order = [cell for pair in zip(black, white, strict=False) for cell in pair]
    full = [*order, *(set(cells) - set(order))]
    nearly = Board(tuple(full[:-2]))
    assert search(nearly).line[0] in full[-2:]
