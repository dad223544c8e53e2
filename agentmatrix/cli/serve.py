"""`serve`: a host in the foreground, until a signal ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.targets import load, named, table

__all__ = ["graphs_of", "serve"]


def graphs_of(targets: list[str]) -> dict[str, Any]:
    """The graphs of all targets by their names on the host; a `langgraph.json` stands for its table.

    Raises:
        CommandError: a target cannot be loaded, or two have the same name.
    """
    entries: list[str] = []
    for target in targets or ["langgraph.json"]:
        entries += table(Path(target)) if target.endswith(".json") else [target]
    graphs: dict[str, Any] = {}
    for entry in entries:
        name, target = named(entry)
        if name in graphs:
            raise CommandError(f"two graphs are named {name!r}; name one of them otherwise: other={target}")
        graphs[name] = load(target)
    return graphs


def serve(targets: list[str], address: str, grace: float, until_eof: bool = False, **options: Any) -> None:
    """`agentmatrix serve`: prints one line when it listens, and returns when it was told to end.

    Args:
        grace: seconds that runs may go on after the first signal; a second signal ends them at once.
        until_eof: the end of stdin is such a signal too: whoever started this process has ended, however it did.
    """
    from agentmatrix import Host

    graphs = graphs_of(targets)
    ended = _Ending()
    if until_eof:
        threading.Thread(target=ended.watch, args=(sys.stdin.fileno(),), daemon=True).start()
    with Host(graphs, address=address, **options) as host:
        print(f"serving {', '.join(graphs)} at {host.address}", flush=True)
        ended.wait()
        drain = threading.Thread(target=host.drain, args=(grace,), daemon=True)
        ended.clear()
        drain.start()
        while drain.is_alive() and not ended.is_set():
            drain.join(0.05)


class _Ending(threading.Event):
    """Set by SIGINT and SIGTERM."""

    def __init__(self) -> None:
        super().__init__()
        signal.signal(signal.SIGINT, self._heard)
        signal.signal(signal.SIGTERM, self._heard)

    def watch(self, file: int) -> None:
        """Reads a file to its end. Unbuffered: a buffer's lock, held here, would disturb the end of the process."""
        while os.read(file, 4096):
            pass
        self.set()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.set()
