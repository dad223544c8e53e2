"""Options of `serve` as environment variables: AGENTMATRIX_PORT is `--port`, AGENTMATRIX_MAX_RUNS `--max-runs`."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any, Final

__all__ = ["ENVIRONMENT", "warn_of_unknown_variables"]

ENVIRONMENT: Final = "AGENTMATRIX"
"""What the names of the variables begin with."""
_OTHERS: Final = {"TOKEN", "DEBUG"}

_logger = logging.getLogger("agentmatrix.host")


def warn_of_unknown_variables(command: Callable[..., Any]) -> None:
    """Names the variables in the environment that look like options of a command and are none."""
    known = {f"{ENVIRONMENT}_{name.upper()}" for name in inspect.signature(command).parameters}
    known |= {f"{ENVIRONMENT}_{name}" for name in _OTHERS}
    for name in sorted(os.environ):
        if name.startswith(f"{ENVIRONMENT}_") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            _logger.warning(
                "the variable %s is none of an option%s", name, f"; did you mean {close[0]}?" if close else ""
            )
