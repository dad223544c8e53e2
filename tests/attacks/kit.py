"""What the attack scripts share: how an attack is named, run and reported, and small tools.

Each script has a table of attacks. By hand, `python tests/attacks/kill_host.py` runs all of them at full size and
prints a line of JSON for each; the test suite runs those that have a short size.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "Attack",
    "Attacks",
    "Figures",
    "Outcome",
    "brief",
    "eventually",
    "in_background",
    "note",
    "read_log",
    "rss",
    "tally",
    "within",
    "workplace",
]

Figures = dict[str, Any]
"""What an attack measured. `holds` says whether the product stood it."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        kind: `"value"`, `"error"` or `"hung"`.
        value: the result or the exception.
        seconds: how long it took.
    """

    kind: str
    value: Any
    seconds: float

    @property
    def is_value(self) -> bool:
        return self.kind == "value"

    def __str__(self) -> str:
        return self.kind if self.kind == "hung" else brief(self.value)


def within(seconds: float, work: Callable[[], Any]) -> Outcome:
    """Run `work` in a thread of its own and wait for it, `seconds` at most."""
    found: list[tuple[str, Any]] = []

    def run() -> None:
        try:
            found.append(("value", work()))
        except BaseException as error:
            found.append(("error", error))

    began = time.monotonic()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    kind, value = found[0] if found else ("hung", None)
    return Outcome(kind, value, time.monotonic() - began)


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until the condition holds. Returns False if it does not within `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def in_background(step: Callable[[], object], pause: float = 0.05) -> Iterator[None]:
    """Repeats `step` in a thread until the end of the `with`."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(pause):
            step()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def brief(value: object, length: int = 160) -> str:
    """The beginning of an error or a value."""
    text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    return text[:length]


def tally(outcomes: Iterable[object]) -> dict[str, int]:
    """How often each outcome came; everything but an exception is `"ok"`."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        key = brief(outcome, 110) if isinstance(outcome, BaseException) else "ok"
        counts[key] = counts.get(key, 0) + 1
    return counts


def rss(pid: int | None = None) -> int:
    """The resident memory of a process in MB; -1 if it is gone."""
    try:
        lines = Path(f"/proc/{pid or os.getpid()}/status").read_text().splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), -1)


# Logs that survive a kill: one write for each line.


def note(path: str, event: str, number: int) -> None:
    """Add a line to a log that several processes write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{time.time():.4f} {event} {number}\n".encode())
    finally:
        os.close(descriptor)


def read_log(path: str) -> list[tuple[float, str, int]]:
    """The lines of a log: time, event, number."""
    if not os.path.exists(path):
        return []
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return [(float(at), event, int(number)) for at, event, number in lines]


@cache
def workplace() -> Path:
    """A folder for logs, databases and sockets, removed at the end of the process."""
    folder = Path(tempfile.mkdtemp(prefix="attacks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# Attacks and how they are run.


@dataclass(frozen=True)
class Attack:
    """One attack of a script.

    Attributes:
        name: what it does.
        function: returns figures, with `holds` among them.
        limit: seconds after which it counts as hung.
        short: arguments of a short run; None if it takes long in any size.
    """

    name: str
    function: Callable[..., Figures]
    limit: float
    short: Mapping[str, Any] | None

    def run(self, *, short: bool = False) -> Figures:
        """Run it. Returns its figures with `gate`, `outcome` and seconds; an error or a hang does not hold."""
        arguments = self.short or {} if short else {}
        outcome = within(self.limit, lambda: self.function(**arguments))
        figures = outcome.value if outcome.is_value else {"holds": False, "why": str(outcome)}
        return {"gate": self.name, "outcome": outcome.kind, "s": round(outcome.seconds, 2), **figures}


class Attacks:
    """The attacks of one script.

    Args:
        about: what they are, for `--help`.
    """

    def __init__(self, about: str | None) -> None:
        self.about = about
        self.all: list[Attack] = []

    def add(
        self, name: str, *, limit: float = 100.0, short: Mapping[str, Any] | None = None
    ) -> Callable[[Callable[..., Figures]], Callable[..., Figures]]:
        """Decorates the function of an attack. `short={}` says that it is short as it is."""

        def added(function: Callable[..., Figures]) -> Callable[..., Figures]:
            self.all.append(Attack(name, function, limit, short))
            return function

        return added

    def main(self) -> None:
        """Run from the command line, all or those whose names contain one of the arguments."""
        parser = argparse.ArgumentParser(description=self.about)
        parser.add_argument("names", nargs="*", help="run only attacks whose names contain one of these")
        parser.add_argument("--short", action="store_true", help="run short sizes, as the test suite does")
        parser.add_argument("--list", action="store_true", help="list the names and run nothing")
        options = parser.parse_args()
        for attack in self.all:
            if options.names and not any(name in attack.name for name in options.names):
                continue
            if options.list:
                print(attack.name)
            elif not options.short or attack.short is not None:
                print(json.dumps(attack.run(short=options.short), default=str), flush=True)
