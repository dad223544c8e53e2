"""`agentmatrix serve`: a host in the foreground, until a signal ends it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.host_options import checked_token

__all__ = ["serve"]

_SAFETY = "Safety"
_LIMITS = "Limits"


def serve(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help=r"\[name=]module:attribute or \[name=]path.py:attribute, one or several; or a langgraph.json,"
            " which is the default.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 50051,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen beyond this machine without TLS or token.", rich_help_panel=_SAFETY),
    ] = False,
    ssl_certfile: Annotated[Path | None, typer.Option(help="Certificate (PEM).", rich_help_panel=_SAFETY)] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=_SAFETY)] = None,
    ssl_ca: Annotated[
        Path | None,
        typer.Option(help="Ask callers for a certificate signed by these authorities (PEM).", rich_help_panel=_SAFETY),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that callers must show; or set AGENTMATRIX_TOKEN.", rich_help_panel=_SAFETY
        ),
    ] = None,
    tokens_file: Annotated[
        Path | None,
        typer.Option(
            help="File with a line name:token for each caller; nodes see the name, and each has its own threads.",
            rich_help_panel=_SAFETY,
        ),
    ] = None,
    authorize: Annotated[
        Path | None,
        typer.Option(
            help='JSON file of the agents that each caller may call: {"alice": ["research"], "*": ["hello"]}.',
            rich_help_panel=_SAFETY,
        ),
    ] = None,
    share_threads: Annotated[
        bool,
        typer.Option(
            "--share-threads", help="Callers share the threads that a graph here keeps.", rich_help_panel=_SAFETY
        ),
    ] = False,
    tracebacks: Annotated[
        bool,
        typer.Option(
            "--tracebacks",
            help="Send callers the traceback of an error, with paths and source lines, not its text alone.",
            rich_help_panel=_SAFETY,
        ),
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A module whose classes may cross the wire; may be repeated.", rich_help_panel=_SAFETY),
    ] = None,
    max_runs: Annotated[
        int, typer.Option(min=1, help="Most runs at once; further ones are refused.", rich_help_panel=_LIMITS)
    ] = 1000,
    max_caller_runs: Annotated[
        int | None,
        typer.Option(min=1, help="Most runs of one caller at once; by default all.", rich_help_panel=_LIMITS),
    ] = None,
    max_streams: Annotated[
        int, typer.Option(min=1, help="Most calling processes at once.", rich_help_panel=_LIMITS)
    ] = 1000,
    max_value: Annotated[
        int, typer.Option(min=1, help="Largest input, result or checkpoint, in MiB.", rich_help_panel=_LIMITS)
    ] = 1024,
    max_memory: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most values on their way in and out, in MiB; by default half of the machine's memory.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_caller_memory: Annotated[
        int | None,
        typer.Option(min=1, help="Of them for one caller, in MiB; by default half.", rich_help_panel=_LIMITS),
    ] = None,
    start_timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds in which a new connection has to start a run.", rich_help_panel=_LIMITS),
    ] = 10.0,
    answer_timeout: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Seconds in which a caller has to answer for its checkpointer or store; 0 for no limit.",
            rich_help_panel=_LIMITS,
        ),
    ] = 300.0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that runs may go on after SIGTERM or Ctrl-C.")] = 10.0,
    allow_version_skew: Annotated[
        bool,
        typer.Option("--allow-version-skew", help="Log another langgraph version at the caller, do not refuse it."),
    ] = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", hidden=True, help="End with stdin too, as with the process that holds it.")
    ] = False,
) -> None:
    """Serve graphs over gRPC until Ctrl-C or SIGTERM."""
    options = {
        "address": f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}",
        "token": _own_token(tokens_file) if token_file is None else checked_token(token_file),
        "tokens": tokens_file,
        "authorize": None if authorize is None else _read_table(authorize),
        "share_threads": share_threads,
        "tracebacks": tracebacks,
        "ssl_certfile": ssl_certfile,
        "ssl_keyfile": ssl_keyfile,
        "ssl_ca": ssl_ca,
        "insecure": insecure,
        "allow": allow or [],
        "max_runs": max_runs,
        "max_caller_runs": max_caller_runs,
        "max_streams": max_streams,
        "max_value": max_value << 20,
        "max_bytes": None if max_memory is None else max_memory << 20,
        "max_caller_bytes": None if max_caller_memory is None else max_caller_memory << 20,
        "start_timeout": start_timeout,
        "answer_timeout": answer_timeout or None,
        "allow_version_skew": allow_version_skew,
    }
    _serve(_load_graphs(targets or []), grace, until_eof, options)


def _load_graphs(targets: list[str]) -> dict[str, Any]:
    """The graphs of all targets by their names on the host; a `langgraph.json` stands for the graphs in it.

    Raises:
        CommandError: a target cannot be loaded, or two have the same name.
    """
    from agentmatrix.cli.targets import langgraph_json_targets, load_graph, split_name

    entries: list[str] = []
    for target in targets or ["langgraph.json"]:
        entries += langgraph_json_targets(Path(target)) if target.endswith(".json") else [target]
    graphs: dict[str, Any] = {}
    for entry in entries:
        name, target = split_name(entry)
        if name in graphs:
            raise CommandError(f"two graphs are named {name!r}; name one of them otherwise: other={target}")
        graphs[name] = load_graph(target)
    return graphs


def _own_token(tokens_file: Path | None) -> str | None:
    """The token in AGENTMATRIX_TOKEN, for a host of one token."""
    return None if tokens_file else os.environ.get("AGENTMATRIX_TOKEN") or None


def _read_table(path: Path) -> dict[str, Any]:
    """The agents that each caller may call, by its name.

    Raises:
        CommandError: the file cannot be read, or is no such table.
    """
    try:
        table = json.loads(path.read_text())
    except OSError as error:
        raise CommandError(f"the table {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(f"the table {path} is not JSON: {error}") from None
    lists = isinstance(table, dict) and all(isinstance(names, list) for names in table.values())
    if not lists or not all(isinstance(name, str) for names in table.values() for name in names):
        raise CommandError(f'the table {path} has to be an object of lists of agents: {{"alice": ["research"]}}')
    return dict(table)


def _serve(graphs: dict[str, Any], grace: float, until_eof: bool, options: dict[str, Any]) -> None:
    """Print one line when the host listens, and return when it has stopped.

    Args:
        graphs: the graphs by their names on the host.
        grace: seconds that runs may go on after the first signal; a second signal ends them at once.
        until_eof: the end of stdin counts as a signal, so that the host ends with the process that started it,
            however that one ends.
        options: arguments of `Host`.
    """
    from agentmatrix import Host

    # Before the host listens: a signal that comes earlier would end the process without a drain.
    stop = _StopSignal()
    if until_eof:
        threading.Thread(target=stop.set_at_eof, args=(sys.stdin.fileno(),), daemon=True).start()
    with Host(graphs, **options) as host:
        print(f"serving {', '.join(graphs)} at {host.address}", flush=True)
        stop.wait()
        drain = threading.Thread(target=host.drain, args=(grace,), daemon=True)
        stop.clear()
        drain.start()
        # The main thread must stay free: Python runs signal handlers on it alone.
        while drain.is_alive() and not stop.is_set():
            drain.join(0.05)


class _StopSignal(threading.Event):
    """An event that SIGINT and SIGTERM set."""

    def __init__(self) -> None:
        super().__init__()
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def set_at_eof(self, file: int) -> None:
        """Read a file to its end, in a thread of its own, and set the event.

        Unbuffered: a buffer's lock, held by this thread, would disturb the end of the process.
        """
        while os.read(file, 4096):
            pass
        self.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set()
