"""`agentmatrix serve`: a host in the foreground, until a signal ends it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.host_options import checked_token
from agentmatrix.cli.log_output import LogFormat, LogLevel, logging_to_stderr
from agentmatrix.cli.option_variables import warn_of_unknown_variables

__all__ = ["serve"]

_SAFETY = "Safety"
_LIMITS = "Limits"
_LIFE = "Start and end"
_LOG = "Log and metrics"


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
        int, typer.Option(min=1, help="Most runs at once; further ones wait.", rich_help_panel=_LIMITS)
    ] = 1000,
    concurrency: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[AGENT=]NUMBER",
            help="Most runs at once of an agent, or of each: expert=1 for a card of its own. May be repeated.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Most runs that wait; further ones are refused.", rich_help_panel=_LIMITS)
    ] = 100,
    queue_timeout: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds that a run may wait; 0 for no limit.", rich_help_panel=_LIMITS),
    ] = 600.0,
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
    linger: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Seconds that the runs of a caller go on whose line was cut, so that it can take them up again.",
            rich_help_panel=_LIMITS,
        ),
    ] = 30.0,
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds that runs go on as they are after SIGTERM or Ctrl-C; then they stop at a checkpoint.",
            rich_help_panel=_LIFE,
        ),
    ] = 10.0,
    drain_timeout: Annotated[
        float,
        typer.Option(min=0, help="Seconds until the host stops then, whatever is left.", rich_help_panel=_LIFE),
    ] = 30.0,
    lifespan: Annotated[
        str | None,
        typer.Option(
            help="module:attribute or path.py:attribute of an async context manager of the host: what it does first, "
            "such as loading a model, is done before the host serves.",
            rich_help_panel=_LIFE,
        ),
    ] = None,
    checkpointer: Annotated[
        str | None,
        typer.Option(
            help="Keep threads of graphs without a checkpointer here: sqlite:///runs.db or postgresql://...; by "
            "default they are kept by the callers.",
            rich_help_panel=_LIFE,
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="Least level of the log on stderr.", rich_help_panel=_LOG)
    ] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat, typer.Option(help="Text, or JSON with an object a line.", rich_help_panel=_LOG)
    ] = LogFormat.TEXT,
    metrics: Annotated[
        str | None,
        typer.Option(help="Address for Prometheus, such as 127.0.0.1:9464 (extra metrics).", rich_help_panel=_LOG),
    ] = None,
    ui: Annotated[
        str | None,
        typer.Option(
            help="Show what runs here on a page, at an address such as 127.0.0.1:8321 (extra ui).",
            rich_help_panel=_LOG,
            # The variable AGENTMATRIX_UI names the page of another process.
            allow_from_autoenv=False,
        ),
    ] = None,
    share_runs: Annotated[
        bool,
        typer.Option(
            "--share-runs",
            help="Let whoever may call here see the runs of all callers on a page of their own: agentmatrix ui"
            " host:port (extra ui).",
            rich_help_panel=_SAFETY,
        ),
    ] = False,
    allow_version_skew: Annotated[
        bool,
        typer.Option("--allow-version-skew", help="Log another langgraph version at the caller, do not refuse it."),
    ] = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", hidden=True, help="End with stdin too, as with the process that holds it.")
    ] = False,
) -> None:
    """Serve graphs over gRPC until Ctrl-C or SIGTERM."""
    from agentmatrix.cli.foreground import serve_in_foreground
    from agentmatrix.cli.metrics_server import serve_metrics
    from agentmatrix.cli.served import Served
    from agentmatrix.cli.targets import load_function

    with logging_to_stderr(log_level, log_format):
        warn_of_unknown_variables(serve)
        served = Served.load(targets or [])
        if metrics is not None:
            serve_metrics(metrics)
        options = {
            "descriptions": served.descriptions,
            "checkpointer": checkpointer or served.checkpointer,
            "store": served.store,
            "lifespan": None if lifespan is None else load_function(lifespan),
            "authenticate": served.authenticate,
            "address": f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}",
            "token": _own_token(tokens_file or served.authenticate)
            if token_file is None
            else checked_token(token_file),
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
            "concurrency": _concurrency(concurrency or []),
            "max_queue": max_queue,
            "queue_timeout": queue_timeout or None,
            "max_streams": max_streams,
            "max_value": max_value << 20,
            "max_bytes": None if max_memory is None else max_memory << 20,
            "max_caller_bytes": None if max_caller_memory is None else max_caller_memory << 20,
            "start_timeout": start_timeout,
            "answer_timeout": answer_timeout or None,
            "linger": linger,
            "allow_version_skew": allow_version_skew,
        }
        if ui is not None and share_runs:
            raise CommandError("--ui shows the runs here and --share-runs elsewhere: choose one of the two")
        if share_runs:
            from agentmatrix.cli.shared_runs import SharedRuns

            shared = SharedRuns()
            graphs = {**served.graphs, shared.graph.get_name(): shared.graph}
            serve_in_foreground(graphs, grace, drain_timeout, until_eof, options, shared.shared)
        elif ui is not None:
            from agentmatrix.cli.served_page import served_page

            token: Any = options["token"]
            page = served_page(ui, certificate=ssl_certfile, private_key=ssl_keyfile, token=token)
            serve_in_foreground(served.graphs, grace, drain_timeout, until_eof, options, page)
        else:
            serve_in_foreground(served.graphs, grace, drain_timeout, until_eof, options)


def _concurrency(given: list[str]) -> dict[str, int] | int | None:
    """The runs at a time by agent; a number alone is for each.

    Raises:
        CommandError: one of them is no number, or a number alone is not the only one.
    """
    limits: dict[str, int] = {}
    for text in given:
        agent, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (not agent and len(given) > 1):
            raise CommandError(f"--concurrency {text}: write expert=1, once for each agent, or one number for all")
        limits[agent] = int(number)
    return limits.get("", limits) or None


def _own_token(other_way: object) -> str | None:
    """The token in AGENTMATRIX_TOKEN, for a host that has no other way to know its callers."""
    return None if other_way else os.environ.get("AGENTMATRIX_TOKEN") or None


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
