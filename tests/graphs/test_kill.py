"""White's host is killed in the middle of its turn: the game goes on, and nobody computes anything again."""

from __future__ import annotations

import asyncio
import io
import os
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from agentmatrix.errors import HostLost
from graphs.gobang import build, demo, human, team
from graphs.gobang.demo import KILLED, Match, play
from graphs.gobang.second import Second
from graphs.gobang.show import table
from graphs.gobang.work import WORK, Done, written_down

ROOT = Path(__file__).parents[2]
FAST = 150
SEARCH = {"candidates", "alpha_beta", "fours"}
WORDS = {"attack", "defence", "captain"}


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """A team that moves fast, as `serve` takes it."""
    path = tmp_path / "quick.py"
    path.write_text(f"from graphs.gobang import team\nwhite = team(budget={FAST})\n")
    return f"{path}:white"


def written(folder: Path) -> list[tuple[int, str, int]]:
    """The (move, node, process) of each line in the files, read without the product's help."""
    lines = [line.split() for path in folder.iterdir() for line in path.read_text().splitlines()]
    return [(int(move), node, int(process)) for move, node, process in lines]


def plain(file: io.StringIO) -> Console:
    return Console(file=file, width=100, highlight=False)


def test_a_killed_host_is_replaced_and_nothing_is_computed_twice(quick: str) -> None:
    output = io.StringIO()
    with asyncio.Runner() as runner, written_down() as folder, Second(quick) as second:
        first = second.address
        with Match(team(budget=FAST), first, 0, second) as match:
            show = play(match, plain(output), 0, runner, live=False)
            assert match.address == second.address != first
        lines, done = written(folder), Done.read(folder)
    moves, text = show.record["moves"], output.getvalue()

    assert moves == build(seed=0, budget=FAST).invoke({"moves": []})["moves"]
    assert f"move 6: the host at {first} was killed (kill -9) in the middle of its turn" in text
    assert f"another at {second.address} goes on from the last checkpoint" in text
    assert len(re.findall(r"^    (?:proposer|attack|defence|captain) ", text, re.M)) == 4 * len(moves)

    expected = Counter((move, node) for move in range(1, len(moves) + 1) for node in SEARCH | WORDS)
    assert Counter((move, node) for move, node, _ in lines) == expected == done.lines
    assert not done.twice("black") | done.twice("white")

    by = {node: process for move, node, process in lines if move == KILLED}
    before, after = ({by[node] for node in nodes} for nodes in (SEARCH, WORDS))
    assert len(before) == len(after) == 1
    assert before != after
    assert {process for move, _, process in lines if move % 2 == 0 and move < KILLED} == before
    assert {process for move, _, process in lines if move % 2 == 0 and move > KILLED} == after

    plain(output).print(table(show, done, 1.0))
    assert re.search(r"host killed at move\W+-\W+6\W", output.getvalue())
    half = len(moves) // 2
    assert re.search(rf"moves computed twice\W+0 of {len(moves) - half}\W+0 of {half}\W", output.getvalue())


def test_what_is_computed_twice_is_counted() -> None:
    game = build(budget=FAST)
    position = "c3 c5 d3 d5 e3 e5 f3".split()
    with written_down() as folder:
        for moves in (position, [*position, "f5"]):
            assert game.invoke({"moves": moves})["moves"][8] in ("b3", "g3")
        done = Done.read(folder)
    assert done.moves("white") == {8}
    assert done.twice("white") == set()
    assert done.moves("black") == done.twice("black") == {9}
    assert done.lines[9, "alpha_beta"] == 2
    output = io.StringIO()
    assert demo.report(plain(output), done) == 1
    assert output.getvalue().startswith("Moves computed twice: 1, counted from 18 lines")


def test_nothing_is_written_where_nobody_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(WORK, raising=False)
    with written_down() as folder:
        pass
    monkeypatch.chdir(tmp_path)
    build(budget=FAST).invoke({"moves": "a1 a2 b1 b2 c1 c2 d1 d2".split()})
    assert WORK not in os.environ
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kill", [True, False])
def test_with_a_person_at_the_table(monkeypatch: pytest.MonkeyPatch, kill: bool) -> None:
    """What a person has answered is not asked again."""
    answers = iter("a1 a15 o1 o15 a2 a14 o2 o14 a3 a13 o3 o13 b1 b15".split())
    monkeypatch.setattr("builtins.input", lambda *prompt: next(answers))
    output = io.StringIO()
    assert demo.main(opponent="human", kill=kill, console=plain(output)) == 0
    text = output.getvalue()
    assert text.count("(kill -9)") == kill
    assert ("host killed at move" in text) == kill
    assert "Moves computed twice: 0, counted from " in text
    assert "same moves: yes" in text


def test_the_host_of_somebody_else_is_left_alone_and_its_loss_is_an_error(quick: str) -> None:
    with Second(quick) as somebody:

        class Accident(io.StringIO):
            """Its owner ends the host as soon as it is seen to make move 4."""

            def write(self, text: str) -> int:
                if text.startswith("  4 white"):
                    somebody.kill()
                return super().write(text)

        output = Accident()
        with pytest.raises(HostLost, match=somebody.address):
            demo.main(host=somebody.address, console=plain(output))
    assert "killed" not in output.getvalue()


def test_another_host_that_does_not_start_is_one_sentence(quick: str) -> None:
    with Second(quick) as second:
        Path(quick.partition(":")[0]).write_text("raise RuntimeError('out of order')")
        with Match(human(), second.address, 0, second) as match, pytest.raises(ConnectionError, match="out of order"):
            second.kill()
            match.start_another()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is not a child")
def test_a_demo_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "agentmatrix", "demo", "--no-kill"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)},
    )
    with process:
        try:
            assert process.stdout is not None
            second = next(int(m[1]) for line in process.stdout if (m := re.search(r"white at .*process (\d+)", line)))
            watched = os.pidfd_open(second)
        finally:
            process.send_signal(signal.SIGKILL)
    try:
        poll = select.poll()  # `select.select` takes no descriptor above 1023.
        poll.register(watched, select.POLLIN)
        assert poll.poll(100_000), f"process {second} is still there"
    finally:
        os.close(watched)
