"""`agentmatrix demo`: two teams of agents play a game of Gobang."""

from __future__ import annotations

import importlib
from enum import StrEnum
from typing import Annotated

import typer

from agentmatrix.cli.example import exit_code, package_name

__all__ = ["demo"]


class Opponent(StrEnum):
    """The player of the black stones."""

    team = "team"
    human = "human"


def demo(
    seed: Annotated[int, typer.Option(help="The number of the game.")] = 0,
    code: Annotated[bool, typer.Option("--code", help="Print the short program that builds the game.")] = False,
    host: Annotated[
        str | None, typer.Option(help="Play against the team at host:port or host:port/agent.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Chat model for the critics: provider:name (extra `models`), or local (extra `local`, no key).",
            show_default=False,
        ),
    ] = None,
    opponent: Annotated[Opponent, typer.Option(help="Who plays black.")] = Opponent.team,
    no_kill: Annotated[
        bool,
        typer.Option("--no-kill", help="Let the second process live (a team at --host is never killed)."),
    ] = False,
) -> None:
    """Watch two teams of agents, one of them in a second process, play a game of Gobang.

    At move 6 that process is killed in the middle of its turn; another goes on.
    """
    main = importlib.import_module(f"{package_name()}.gobang.demo").main
    options = {"seed": seed, "code": code, "host": host, "model": model, "opponent": opponent.value}
    raise typer.Exit(exit_code(main, **options, kill=not no_kill))
