"""How a command ends when something goes wrong: one sentence on stderr and an exit code, no traceback."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

import typer

from agentmatrix.errors import AgentMatrixError

FAILED = 1
USAGE = 2
PAUSED = 3
STOPPED = 130

P = ParamSpec("P")


class CommandError(Exception):
    """What stops a command, as a sentence for the person who typed it.

    Args:
        message: what is wrong and what to do.
        code: the exit code of the process.
    """

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def debugging() -> bool:
    """Whether tracebacks are wanted: `--debug`, or AGENTMATRIX_DEBUG in the environment."""
    return os.environ.get("AGENTMATRIX_DEBUG", "") not in ("", "0")


def sentence(error: BaseException) -> str:
    """What went wrong, in one line: our own errors in their words, others with their type and the node they left."""
    text = " ".join(str(error).split())
    if isinstance(error, AgentMatrixError | CommandError) and text:
        return text
    notes = " ".join(getattr(error, "__notes__", ()))
    node = re.search(r"During task with name '([^']+)'", notes)
    where = f"in node {node[1]!r}: " if node else ""
    return f"{where}{type(error).__name__}{f': {text}' if text else ''}"


def complain(text: str) -> None:
    """Prints an error sentence to stderr."""
    print(f"error: {text}", file=sys.stderr, flush=True)


def stop(error: BaseException) -> NoReturn:
    """Ends the command for this error.

    Raises:
        typer.Exit: with the exit code; or the error itself when tracebacks are wanted.
    """
    if debugging():
        raise error
    complain(sentence(error))
    raise typer.Exit(error.code if isinstance(error, CommandError) else FAILED) from None


def guarded(command: Callable[P, Any]) -> Callable[P, None]:
    """A typer command whose errors become one sentence and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(STOPPED) from None
        except (Exception, SystemExit) as error:
            stop(error)

    return run
