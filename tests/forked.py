"""Processes that start at once: forked off one that has imported the package, and has done nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Self

__all__ = ["Forked"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", "tests.interaction.listeners", "tests.interaction.served"])


class Forked:
    """A function in a process of its own, with the three standard streams. It is killed at the end of a `with`.

    Args:
        function: a function of a module.
        arguments: what can be pickled.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        (ours, theirs), (errors, their_errors) = socket.socketpair(), socket.socketpair()
        self._talk = ours
        self.stdin, self.stdout, self.stderr = ours.makefile("w"), ours.makefile("r"), errors.makefile("r")
        self._process = _context.Process(target=_run, args=(theirs, their_errors, function, arguments), daemon=True)
        self._process.start()
        for one in (theirs, their_errors, errors):
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit: object) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait(20)
        for stream in (self.stdin, self.stdout, self.stderr, self._talk):
            stream.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still is."""
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end. Returns its exit code, negative for the signal that ended it; None if it goes on."""
        self._process.join(seconds)
        return self._process.exitcode

    def communicate(self, seconds: float) -> tuple[str, str]:
        """End its input, and wait for its end. Returns all that it says besides what was read, and its errors."""
        self._talk.shutdown(socket.SHUT_WR)
        self._talk.settimeout(seconds)
        said = self.stdout.read(), self.stderr.read()
        self.wait(seconds)
        return said


def _run(talk: socket.socket, errors: socket.socket, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout = talk.makefile("r"), talk.makefile("w")
    sys.stderr = errors.makefile("w")
    function(*arguments)
    sys.stdout.flush()
