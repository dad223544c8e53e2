"""The application: its commands in the order of `--help`, and the options before the command.

The file of a command imports nothing heavy at its head and the rest when the command runs, so that `--help` answers at
once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from agentmatrix import __version__
from agentmatrix.cli.certs import certs
from agentmatrix.cli.chat import chat
from agentmatrix.cli.demo import demo
from agentmatrix.cli.describe import describe
from agentmatrix.cli.draw import draw
from agentmatrix.cli.error_report import reports_errors
from agentmatrix.cli.example import example
from agentmatrix.cli.option_variables import ENVIRONMENT, CommandWithVariables
from agentmatrix.cli.refine import refine
from agentmatrix.cli.run import run
from agentmatrix.cli.serve import serve
from agentmatrix.cli.ui import ui

__all__ = ["app"]

app = typer.Typer(
    name="agentmatrix",
    help="Agents are graphs and graphs are agents, here or on another machine.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 paused at a question, 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"agentmatrix {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (also AGENTMATRIX_DEBUG=1).")] = False,
) -> None:
    """Agents are graphs and graphs are agents, here or on another machine."""
    if debug:
        os.environ["AGENTMATRIX_DEBUG"] = "1"


for command in (demo, example, run, chat, ui, refine, serve, certs, describe, draw):
    if command is serve:
        # Its options may come from the environment, as where it runs in a container.
        settings = {"auto_envvar_prefix": ENVIRONMENT}
        app.command(cls=CommandWithVariables, context_settings=settings)(reports_errors(command))
    else:
        app.command()(reports_errors(command))
