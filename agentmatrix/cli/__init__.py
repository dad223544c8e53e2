"""The command line: `agentmatrix demo | example | run | chat | ui | refine | serve | certs | describe | draw`.

One file a command.

Only typer and rich are imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys

from agentmatrix.cli.commands import app
from agentmatrix.cli.error_report import KEYBOARD_INTERRUPT
from agentmatrix.cli.process_end import end_process

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line on `sys.argv` and exit with its code: 0 ok, 1 failed, 2 usage, 3 paused, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal, a code page of Windows
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app(prog_name="agentmatrix")
    except KeyboardInterrupt:
        end_process(KEYBOARD_INTERRUPT)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code:
            end_process(end.code)
        raise
