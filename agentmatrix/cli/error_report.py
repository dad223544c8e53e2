"""How a command ends on an error: one sentence on stderr and an exit code, no traceback."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

import typer

from agentmatrix.cli.terminal_text import terminal_text
from agentmatrix.errors import AgentMatrixError

# Exit codes of the process, as `agentmatrix --help` explains them.
FAILED = 1
USAGE = 2
PAUSED = 3
KEYBOARD_INTERRUPT = 130

P = ParamSpec("P")


class CommandError(Exception):
    """An error that ends a command, as a sentence for the person at the terminal.

    Args:
        message: what is wrong and what to do.
        code: the exit code of the process.
    """

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def wants_traceback() -> bool:
    """Whether errors end with a traceback: `--debug`, or AGENTMATRIX_DEBUG in the environment."""
    return os.environ.get("AGENTMATRIX_DEBUG", "") not in ("", "0")


def error_sentence(error: BaseException) -> str:
    """An error in one line: the message alone of errors of this package, others with their type and their node."""
    text = " ".join(str(error).split())
    notes = " ".join(getattr(error, "__notes__", ()))
    if at_start := re.search(r"At (the start of the host, in its .*?\(line \d+ of .*?\))", notes):
        return f"at {at_start[1]}: {type(error).__name__}{f': {text}' if text else ''}"
    if isinstance(error, AgentMatrixError | CommandError) and text:
        return text
    if isinstance(error, OSError) and error.strerror and not notes and (error.filename or type(error) is OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    node = re.search(r"During task with name '([^']+)'", notes)
    where = f"in node {node[1]!r}: " if node else ""
    return f"{where}{type(error).__name__}{f': {text}' if text else ''}"


def print_error(text: str) -> None:
    """Print an error sentence to stderr."""
    print(f"error: {terminal_text(text)}", file=sys.stderr, flush=True)


def exit_with(error: BaseException) -> NoReturn:
    """End the command with this error.

    Raises:
        typer.Exit: with the exit code. Where a traceback is wanted, the error itself is raised.
    """
    if wants_traceback():
        raise error
    print_error(error_sentence(error))
    raise typer.Exit(error.code if isinstance(error, CommandError) else FAILED) from None


def reports_errors(command: Callable[P, Any]) -> Callable[P, None]:
    """Decorate a command: its errors become one sentence and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(KEYBOARD_INTERRUPT) from None
        except (Exception, SystemExit) as error:
            exit_with(error)

    return run
