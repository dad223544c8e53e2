"""Processes that start at once: forked off one that has imported the package, and has done nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

__all__ = ["Forked", "command"]

_ROOT = Path(__file__).parents[1]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "pytest",
        "agentmatrix.cli",
        "graphs.gobang.demo",
        "tests.attacks.hosted",
        "tests.interaction.served",
        "tests.live.triggered_graphs",
    ]
)


class Forked:
    """A function in a process of its own, as `subprocess.Popen` has it. It is killed at the end of a `with`.

    Args:
        function: a function of a module.
        arguments: what can be pickled.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        (stdin, write), (read, stdout), (read_errors, stderr) = (_context.Pipe(duplex=False) for _ in range(3))
        self.stdin, self.stdout, self.stderr = _opened(write, "w"), _opened(read, "r"), _opened(read_errors, "r")
        with contextlib.chdir(_ROOT):
            forkserver.ensure_running()
        given = ((stdin, stdout, stderr), dict(os.environ), function, arguments)
        self._process = _context.Process(target=_run, args=given, daemon=True)
        self._process.start()
        for end in (stdin, stdout, stderr):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit: object) -> None:
        self.kill()
        self.wait()
        self._close_input()
        self.stdout.close()
        self.stderr.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Its exit code once it has ended, negative for the signal that ended it."""
        return self._process.exitcode

    poll = returncode.fget

    def _close_input(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 100) -> int:
        """Wait for its end. Returns its exit code, negative for the signal that ended it."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self._process.exitcode

    def communicate(self, timeout: float = 100) -> tuple[str, str]:
        """End its input, and wait for its end, which is made if it takes too long. Returns what it said, and errors."""
        self._close_input()
        patience = threading.Timer(timeout, self.kill)
        patience.start()
        # Both at once: it waits where a pipe is full that nobody reads.
        with ThreadPoolExecutor(1) as threads:
            errors = threads.submit(self.stderr.read)
            said = self.stdout.read(), errors.result()
        patience.cancel()
        self.wait(timeout)
        return said


def _opened(end: Connection, mode: str) -> Any:
    """One end of a pipe as a stream of text."""
    descriptor = os.dup(end.fileno())
    end.close()
    return open(descriptor, mode)


def command(*args: str) -> None:
    """The command line with these arguments, for a process of its own."""
    sys.argv = ["agentmatrix", *args]
    runpy.run_module("agentmatrix", run_name="__main__")


def _run(
    pipes: tuple[Connection, ...],
    environment: dict[str, str],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """In the new process: what writes to the descriptors themselves, as C libraries do, is heard too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)
    function(*arguments)
