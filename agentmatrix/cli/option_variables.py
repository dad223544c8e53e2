"""Options of `serve` as environment variables: AGENTMATRIX_PORT is `--port`, AGENTMATRIX_MAX_RUNS `--max-runs`."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any, Final

import typer
from typer.core import TyperCommand

__all__ = ["ENVIRONMENT", "CommandWithVariables", "warn_of_unknown_variables"]

ENVIRONMENT: Final = "AGENTMATRIX"
"""What the names of the variables begin with."""
_OTHERS: Final = {"TOKEN", "DEBUG"}

_logger = logging.getLogger("agentmatrix.host")


class CommandWithVariables(TyperCommand):
    """A command that says which variable has a wrong value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = set(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            name = f"{ENVIRONMENT}_{(error.param.name or '').upper()}" if error.param else ""
            options = getattr(error.param, "opts", ())
            if name in os.environ and not any(word.partition("=")[0] in options for word in given):
                error.message = f"{error.message} (the variable {name})"
            raise


def warn_of_unknown_variables(command: Callable[..., Any]) -> None:
    """Names the variables in the environment that look like options of a command and are none."""
    known = {f"{ENVIRONMENT}_{name.upper()}" for name in inspect.signature(command).parameters}
    known |= {f"{ENVIRONMENT}_{name}" for name in _OTHERS}
    for name in sorted(os.environ):
        if name.startswith(f"{ENVIRONMENT}_") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            _logger.warning(
                "the variable %s belongs to no option%s", name, f"; did you mean {close[0]}?" if close else ""
            )
