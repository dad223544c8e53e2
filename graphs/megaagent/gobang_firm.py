"""The paper's first task: a firm of seven writes a program that plays Gobang, and meets what goes wrong in a firm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage, AnyMessage

from agentmatrix.testing import ScriptedChatModel

from ..gobang.referee import build as build_game
from ..gobang.words import board_in
from .script import END, Call, Rule, add, checked, execute, read, script, status, talk, write
from .workspace import Workspace

TASK = "Write a program that plays Gobang."

BOARD = """
SIZE, COLUMNS = 15, "abcdefghijklmno"

def stones(moves):
    cells = [(COLUMNS.index(move[0]), int(move[1:]) - 1) for move in moves]
    return {cell: number % 2 for number, cell in enumerate(cells)}

def name(cell):
    return COLUMNS[cell[0]] + str(cell[1] + 1)
"""
LINES = """
WAYS = [(1, 0), (0, 1)]

def run(stones, cell, side):
    return max(1 + reach(stones, cell, side, x, y) + reach(stones, cell, side, -x, -y) for x, y in WAYS)

def reach(stones, cell, side, x, y):
    return next(n for n in range(15) if stones.get((cell[0] + (n + 1) * x, cell[1] + (n + 1) * y)) != side)
"""
MOVES = """
from board import SIZE
from lines import run

def best(stones, side):
    def worth(cell):
        mine, theirs = run(stones, cell, side), run(stones, cell, 1 - side)
        return max(2 * mine + 1, 2 * theirs), mine + theirs, -abs(cell[0] - 7) - abs(cell[1] - 7)

    free = [(x, y) for x in range(SIZE) for y in range(SIZE) if (x, y) not in stones]
    return max(free, key=worth)
"""
PLAY = """
import sys
from board import name, stones
from moves import best

moves = sys.argv[1:]
print("I play", name(best(stones(moves), len(moves) % 2)))
"""


def tell_notes(name: str) -> Callable[..., list[Call]]:
    """Says in notes.md what a file is for; somebody else does so at the same time."""
    return lambda prompt, base="", text="": [write("notes.md", f"{text}{name}.py is by {name}.\n", base)]


def done(what: str) -> Callable[..., list[Call]]:
    """Has nothing left to do."""
    return lambda prompt, *_: [status("", what), END]


def hire(*names: str) -> Callable[..., list[Call]]:
    """Recruits, and waits for their reports."""
    hired = [add(name, f"Write {name}.py.") for name in names]
    return lambda prompt: [*hired, status(", ".join(names), ""), END]


RULES: list[Rule] = [
    (r"boss\nWrite", hire("engine", "opponent", "play")),
    (r"engine\nWrite", hire("board", "lines")),
    (r"opponent\nWrite", hire("moves")),
    # Two write the same new file at once: one of them hears what is there, and adds to that.
    (r"board\nWrite", lambda prompt: [write("board.py", BOARD), *tell_notes("board")(prompt)]),
    (r"lines\nWrite", lambda prompt: [write("lines.py", LINES), *tell_notes("lines")(prompt)]),
    (r"board\nconflict: .* hash (\w+), and the text:\n(.*)", tell_notes("board")),
    (r"lines\nconflict: .* hash (\w+), and the text:\n(.*)", tell_notes("lines")),
    (r"board\nwritten", done("board.py")),
    (r"lines\nwritten", lambda prompt: done("lines.py, mended" if "Done: lines" in prompt else "lines.py")(prompt)),
    # The admin reviews a file, and has it mended: it knows no diagonals.
    (r"engine\nlines has finished", lambda prompt: [read("lines.py")]),
    (r"engine\nhash .*\(1, -1\)", lambda prompt: checked(prompt, "lines")),
    (r"engine\nhash", lambda prompt: [talk("lines", "The diagonals are missing in lines.py."), END]),
    (r"lines\nThe diagonals", lambda prompt: [read("lines.py")]),
    (
        r"lines\nhash (\w+)\n(.*)",
        lambda prompt, base, text: [write("lines.py", text.replace("(0, 1)]", "(0, 1), (1, 1), (1, -1)]"), base)],
    ),
    # One forgets to call a function, and then talks to somebody who is not near.
    (r"moves\nWrite", lambda prompt: "I shall think about it."),
    (
        r"moves\nThat has called no function",
        lambda prompt: [talk("lines", "How are you called?"), write("moves.py", MOVES), *done("moves.py")(prompt)],
    ),
    # One peer tells another that it may go on; the other peer forgets, until the office reminds it.
    (r"opponent\nmoves has", lambda prompt: [talk("play", "moves.py is ready."), *checked(prompt, "moves")]),
    (r"play\nWrite", lambda prompt: [write("play.py", PLAY), status("hear from engine and opponent", ""), END]),
    (r"play\nOthers have forgotten", lambda prompt: [execute("play.py")]),
    (r"play\nI play h8", done("play.py, which runs")),
]


def staff() -> ScriptedChatModel:
    """The scripted staff."""
    return script(RULES)


def result(workspace: Workspace) -> str:
    """How a game ends, in which the program of the firm plays black, and a team of `graphs.gobang` white."""

    def program(messages: Sequence[AnyMessage]) -> AIMessage:
        return AIMessage(workspace.run("play.py", *board_in(messages).names))

    game = build_game(program, budget=100).invoke({"moves": []})
    return str(game["result"])
