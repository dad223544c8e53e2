"""The demo: two processes, one game, and what can go wrong."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from rich.console import Console

from agentmatrix import Host
from agentmatrix.errors import AgentMatrixError, HostUnreachable
from graphs.gobang import build, demo, team
from graphs.gobang.show import Show
from tests.forked import Forked, command

ROOT = Path(__file__).parents[2]


def shown(**options: object) -> tuple[int, str]:
    """Plays the demo onto a console that is no terminal."""
    output = io.StringIO()
    code = demo.main(console=Console(file=output, width=100, highlight=False), **options)  # type: ignore[arg-type]
    return code, output.getvalue()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def game() -> tuple[int, str]:
    return shown(seed=2)


def test_a_game_between_two_processes_ends_well(game: tuple[int, str]) -> None:
    code, text = game
    assert code == 0
    assert "wins in 21 moves" in text
    assert "same moves: yes" in text


def test_it_shows_who_said_what_and_where_it_ran(game: tuple[int, str]) -> None:
    _, text = game
    here, there = (set(re.findall(rf"^ +\d+ {place}, process (\d+) on", text, re.M)) for place in PLACES)
    assert here == {str(os.getpid())}
    assert len(there) == 2, "one was killed, another went on"
    assert not there & here
    assert len(re.findall(r"^    captain   (?:Black|White) plays [a-o]\d+\.$", text, re.M)) == 21
    assert text.count("    proposer  I propose to play ") == 21


PLACES = ("black here", r"white at 127\.0\.0\.1:\d+")


def test_it_draws_the_nested_graph_and_the_board(game: tuple[int, str]) -> None:
    _, text = game
    assert re.search(r"white @127\.0\.0\.1:\d+", text)
    assert "alpha_beta" in text
    assert text.count("X") == 5
    assert "   a b c d e f g h i j k l m n o" in text


def test_on_a_terminal_the_board_stands_below_what_is_said() -> None:
    output = io.StringIO()
    show = Show(Console(file=output, width=100, force_terminal=True, color_system=None), {})
    parts: Any = build(budget=100).stream({"moves": []}, stream_mode="updates", subgraphs=True)
    with show.playing():
        for namespace, update in parts:
            show.part(namespace, update)
            if len(show.record["moves"]) == 3:
                break
    said, _, below = output.getvalue().rpartition("   15 ")
    assert said.count("captain") == 3
    assert below.count("●") == 2
    assert below.count("○") == 1
    assert "a b c d e f g h i j k l m n o" in below


def test_words_cannot_steer_the_terminal() -> None:
    output = io.StringIO()
    show = Show(Console(file=output, width=100), {})
    show.part(("white:1",), {"attack": {"messages": [AIMessage("\x1b[2Jplay\nh8 [bold]now[/bold]", name="attack")]}})
    assert output.getvalue().endswith("attack    [2Jplay h8 [bold]now[/bold]\n")


def test_its_table_says_what_it_took(game: tuple[int, str]) -> None:
    _, text = game
    assert re.search(r"calls\W+11 local\W+11 remote", text)
    assert re.search(r"positions searched\W+\d+,\d{3}\W+\d+,\d{3}", text)
    assert re.search(r"overhead of a remote call\W+-\W+-?\d+\.\d ms", text)
    assert re.search(r"moves computed twice\W+0 of 11\W+0 of 10", text)
    assert "Moves computed twice: 0, counted from 126 lines" in text


def test_the_second_process_ends_with_the_game(game: tuple[int, str]) -> None:
    _, text = game
    started = set(re.findall(rf"{PLACES[1]}, process (\d+) on", text))
    assert started
    assert not any(alive(int(process)) for process in started)


def test_it_plays_against_a_team_that_is_served_elsewhere() -> None:
    with Host({"white": team(), "other": team(budget=50)}) as host:
        code, text = shown(seed=2, host=host.address)
        assert code == 0
        assert f"white at {host.address}, process {os.getpid()} on" in text
        assert "same moves: yes" in text

        code, text = shown(seed=2, host=f"grpc://{host.address}/other")
        assert code == 0
        assert f"white at {host.address}, process {os.getpid()} on" in text
        assert "same moves: no (the team elsewhere plays in its own way)" in text


def test_a_host_that_is_down_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(HostUnreachable, match=f"127.0.0.1:{port}"):
        shown(host=f"127.0.0.1:{port}")


def test_a_host_without_that_agent_is_one_sentence() -> None:
    with Host({"black": team()}) as host, pytest.raises(LookupError, match="black"):
        shown(host=host.address)


def test_a_model_that_cannot_be_had_is_said_before_anything_starts() -> None:
    with pytest.raises(AgentMatrixError, match="the chat model 'nobody:nothing'"):
        shown(model="nobody:nothing")


def test_a_person_plays_black(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter("nonsense a1 a2 b1 c1 d1 e1 a15 o15 o1 n1 m1 l1 k1 j1 i1 h1 g1 f1 f15".split())
    monkeypatch.setattr("builtins.input", lambda *prompt: next(answers))
    code, text = shown(opponent="human")
    assert code == 0
    assert "Black is to move. Your move, such as h8?" in text
    assert "'nonsense' is no move" in text
    assert re.search(r"White wins in \d+ moves", text)
    assert "same moves: yes" in text


def test_a_person_who_stops_answering_has_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    with pytest.raises(demo.GaveUp, match="given up"):
        shown(opponent="human")


def test_the_program_that_it_prints_runs(tmp_path: Path) -> None:
    code, program = shown(code=True)
    assert code == 0
    assert len(program.splitlines()) < 50
    path = tmp_path / "game.py"
    path.write_text(program)
    with Host({"white": team()}) as host:
        ran = subprocess.run(
            [sys.executable, str(path), f"{host.address}/white"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert ran.returncode == 0, ran.stderr
    assert "black captain: Black plays g6." in ran.stdout
    assert re.search(r"(black|white) wins in \d+ moves", ran.stdout)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_demo_that_is_ended_ends_its_second_process(ending: signal.Signals) -> None:
    with Forked(command, "demo") as process:
        second = next(int(m[1]) for line in process.stdout if (m := re.search(r"white at .*process (\d+)", line)))
        process.send_signal(ending)
        _, errors = process.communicate(30)
        assert process.wait(100) == {signal.SIGINT: 130}.get(ending, 128 + ending)
    assert "Traceback" not in errors
    assert not alive(second)
