"""The rules of the game, as a player knows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.gobang.rules import BLACK, CELLS, SIZE, THROUGH, WHITE, WINDOWS, Board, moves_in, name_of

games = st.lists(st.integers(0, CELLS - 1), unique=True, max_size=120)


def played(cells: list[int]) -> Board:
    board = Board()
    for cell in cells:
        if board.over:
            break
        board = board.play(cell)
    return board


def runs_of_five(stones: set[int]) -> bool:
    at = {divmod(cell, SIZE) for cell in stones}
    ways = ((0, 1), (1, 0), (1, 1), (1, -1))
    return any(
        all((row + k * up, column + k * right) in at for k in range(5)) for row, column in at for up, right in ways
    )


def test_a_board_has_572_windows_and_the_middle_is_in_twenty() -> None:
    assert len(WINDOWS) == 572
    assert len(THROUGH[moves_in("h8")[0]]) == 20
    assert len(THROUGH[moves_in("a1")[0]]) == 3


@given(st.integers(0, CELLS - 1))
def test_a_cell_and_its_name_are_the_same_thing(cell: int) -> None:
    assert moves_in(name_of(cell)) == [cell]


def test_moves_are_found_in_anybodys_words() -> None:
    text = "I'd rather play H8, or j-10; a0, p3, h16 and b2b are no crossings. **O15**!"
    assert [name_of(cell) for cell in moves_in(text)] == ["h8", "j10", "o15"]


@pytest.mark.parametrize(
    ("names", "winner"),
    [
        ("a1 a2 b1 b2 c1 c2 d1 d2 e1", BLACK),
        ("a1 o1 b2 o2 c3 o3 d4 o4 k9 o5", WHITE),
        ("o1 a1 n2 b2 m3 c3 l4 d4 k5", BLACK),
        ("a1 a2 b1 b2 c1 c2 d1 d2 f1 o9", None),
        ("a1 a2 b1 b2 c1 c2 e1 d2 f1 o9 d1", BLACK),
        ("n1 a2 o1 b2 a5 c2 b5 d2 c5", None),
    ],
    ids=["row", "column", "diagonal", "gap", "six", "no wrap at the edge"],
)
def test_five_or_more_in_a_row_win(names: str, winner: int | None) -> None:
    assert Board.of(names.split()).winner == winner


@given(games)
def test_the_winner_is_who_has_a_run_of_five(cells: list[int]) -> None:
    board = played(cells)
    has_five = [runs_of_five(set(board.moves[side::2])) for side in (BLACK, WHITE)]
    assert board.winner == (has_five.index(True) if any(has_five) else None)
    assert Board.of(board.names) == board


def test_nobody_plays_on_a_stone_or_after_the_end() -> None:
    with pytest.raises(ValueError, match="h8 is taken"):
        Board.of(["h8", "g8", "h8"])
    with pytest.raises(ValueError, match="the game is over"):
        Board.of("a1 a2 b1 b2 c1 c2 d1 d2 e1 e2".split())


def test_a_full_board_without_five_is_over_and_has_no_winner() -> None:
    black = [row * SIZE + column for row in range(SIZE) for column in range(SIZE) if (column + 2 * row) % 4 < 2]
    white = [cell for cell in range(CELLS) if cell not in set(black)]
    order = [cell for pair in zip(black, white, strict=False) for cell in pair]
    rest = [cell for cell in range(CELLS) if cell not in set(order)]
    board = played([*order, *rest])
    assert len(board.moves) == CELLS
    assert board.over
    assert board.winner is None


def test_the_drawing_has_the_first_row_below_and_the_last_move_in_a_capital() -> None:
    rows = str(Board.of(["a1", "o15", "b1"])).splitlines()
    assert rows[0] == "15 " + " ".join("." * 14 + "o")
    assert rows[-2] == " 1 " + " ".join("xX" + "." * 13)
    assert rows[-1] == "   a b c d e f g h i j k l m n o"
