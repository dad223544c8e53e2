"""`serve`: a host in the foreground, until a signal ends it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from agentmatrix.cli.guard import CommandError
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


def serve(targets: list[str], address: str, grace: float, **options: Any) -> None:
    """`agentmatrix serve`: prints one line when it listens, and returns when it was told to end.

    Args:
        grace: seconds that runs may go on after the first signal; a second signal ends them at once.
    """
    from agentmatrix import Host

    graphs = graphs_of(targets)
    ended = _Ending()
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

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.set()
