"""What the players say to each other: plain sentences, so that any agent may read them and be understood.

A sentence with "play h8" argues for a move. A message also carries, in `additional_kwargs` and for the eye only, the
positions `searched` for it and where its author `ran`.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from .rules import SIDES, Board, moves_in, name_of

_GAME = re.compile(r"^Gobang on 15x15, game (-?\d+)", re.MULTILINE)
_PLAY = re.compile(r"\bplays?\W+([a-o]-?1?\d)\b", re.IGNORECASE)
_SO_FAR = re.compile(r"^Moves so far:(.*)$", re.MULTILINE)


def position(board: Board, seed: int = 0) -> HumanMessage:
    """The referee's message to the team that is to move. The seed is the number of the game."""
    side = f"{SIDES[board.to_move]} ({'xo'[board.to_move]})"
    task = f"Gobang on 15x15, game {seed}: {side} is to make move {len(board.moves) + 1}."
    text = f"{task}\nMoves so far: {' '.join(board.names)}\n{board}"
    return HumanMessage(text, name="referee")


def board_in(messages: Sequence[AnyMessage]) -> Board:
    """The position that a conversation is about: of its last message that names the moves so far, else the empty one.

    Raises:
        ValueError: the moves break the rules.
    """
    found = (_SO_FAR.findall(message.text) for message in reversed(messages))
    return Board.of(next((lines[-1].split() for lines in found if lines), ()))


def seed_in(messages: Sequence[AnyMessage]) -> int:
    """The number of the game that a conversation is about, 0 where none is named."""
    found = (_GAME.search(message.text) for message in reversed(messages))
    return next((int(match[1]) for match in found if match), 0)


def move_in(text: str, board: Board) -> int | None:
    """The legal move that a text argues for: what it says last to play, else the last one that it names."""
    played = moves_in(" ".join(_PLAY.findall(text)))
    named = [cell for cell in [*moves_in(text), *played] if cell not in board.moves]
    return named[-1] if named else None


def argued(messages: Sequence[AnyMessage]) -> list[int]:
    """The moves that have been argued for since the referee's message, the first one first, none of them twice."""
    board, moves = board_in(messages), list[int | None]()
    for message in messages:
        moves = [] if _SO_FAR.search(message.text) else [*moves, move_in(message.text, board)]
    return list(dict.fromkeys(cell for cell in moves if cell is not None))


def stamp(searched: int = 0) -> dict[str, Any]:
    """What a message carries beside its text."""
    return {"searched": searched, "ran": {"host": platform.node(), "pid": os.getpid()}}


def say(text: str, searched: int = 0) -> AIMessage:
    """A player's message."""
    return AIMessage(text, additional_kwargs=stamp(searched))


def spell(line: Sequence[int]) -> str:
    """A line of moves, the other side's answers in brackets: `"h8 (g7) i9"`."""
    return " ".join(f"({name_of(cell)})" if number % 2 else name_of(cell) for number, cell in enumerate(line))
