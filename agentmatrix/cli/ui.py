"""`agentmatrix ui`: the page of graphs and their runs, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.host_options import HostOptions, checked_token, takes_host_options
from agentmatrix.cli.process_end import end_process

__all__ = ["ui"]

_PAGE = "The page"


@takes_host_options("timeout")
def ui(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help=r"\[name=]module:attribute, path.py:attribute, host:port or host:port/agent, one or several.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(help="host:port of the page; port 0 takes a free one.", rich_help_panel=_PAGE)
    ] = "127.0.0.1:8321",
    reload: Annotated[
        bool, typer.Option("--reload", help="Load graphs again when a file changes.", rich_help_panel=_PAGE)
    ] = False,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which all runs are kept, to be found again after a restart.", rich_help_panel=_PAGE
        ),
    ] = None,
    page_token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token of the page; without it one is made.", rich_help_panel=_PAGE),
    ] = None,
    page_certfile: Annotated[
        Path | None, typer.Option(help="Certificate of the page (PEM).", rich_help_panel=_PAGE)
    ] = None,
    page_keyfile: Annotated[Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=_PAGE)] = None,
    *,
    options: HostOptions,
) -> None:
    """Show graphs and their runs on a page of this machine: run, answer, stop, go back."""
    from agentmatrix.cli.page_targets import page_graphs, shared_runs
    from agentmatrix.ui.page_server import PageServer

    server = PageServer(
        page_graphs(targets or [], options),
        address=address,
        token=_text(page_token_file),
        certificate=page_certfile,
        private_key=page_keyfile,
        reloads=reload,
        folder=runs,
    )
    with server:
        for host in shared_runs(targets or [], options):
            host.start(server.remote_runs)
        print(f"the page is at {server.url}", flush=True)
        for graph in server.catalog:
            if graph.error:
                print(f"{graph.target} cannot be loaded: {graph.error.strip().splitlines()[-1]}", flush=True)
        _wait()
    end_process(0)


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    text: str = checked_token(path).read_text().strip()
    if len(text) < 16:
        raise CommandError(f"the token in {path} is too short: take 16 characters or more")
    return text


def _wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    import signal
    import threading

    ended = threading.Event()

    def end(*_: Any) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    while not ended.wait(0.5):
        pass
