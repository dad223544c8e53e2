"""The commands and their options. Each loads what it needs when it runs."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentmatrix import __version__
from agentmatrix.cli.error_report import CommandError, guarded

__all__ = ["app"]

app = typer.Typer(
    name="agentmatrix",
    help="Agents are graphs and graphs are agents, here or on another machine.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 paused at a question, 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

REMOTE = "Options for a remote target"
SAFETY = "Safety"

Target = Annotated[str, typer.Argument(help="module:attribute, path.py:attribute or host:port/agent")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File with the host's token; or set AGENTMATRIX_TOKEN.", rich_help_panel=REMOTE),
]
SslCa = Annotated[
    Path | None,
    typer.Option(help="Speak TLS and trust the certificates of this PEM file.", rich_help_panel=REMOTE),
]
SslCertfile = Annotated[Path | None, typer.Option(help="Our own certificate, for mutual TLS.", rich_help_panel=REMOTE)]
SslKeyfile = Annotated[Path | None, typer.Option(help="The key of our own certificate.", rich_help_panel=REMOTE)]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Send a token without TLS to another machine all the same.", rich_help_panel=REMOTE
    ),
]
Timeout = Annotated[
    float | None, typer.Option(min=0.001, help="Longest time that a run may take, in seconds.", rich_help_panel=REMOTE)
]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="A module whose classes may cross the wire; may be repeated.", rich_help_panel=REMOTE),
]
Thread = Annotated[str | None, typer.Option(help="Thread to go on with, where the graph has a checkpointer.")]


class Format(StrEnum):
    """How `draw` writes a graph."""

    text = "text"
    ascii = "ascii"
    mermaid = "mermaid"
    svg = "svg"


class Opponent(StrEnum):
    """Who plays black in the demo."""

    team = "team"
    human = "human"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"agentmatrix {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (also AGENTMATRIX_DEBUG=1).")] = False,
) -> None:
    """Agents are graphs and graphs are agents, here or on another machine."""
    if debug:
        os.environ["AGENTMATRIX_DEBUG"] = "1"


@app.command()
@guarded
def demo(
    seed: Annotated[int, typer.Option(help="The number of the game.")] = 0,
    code: Annotated[bool, typer.Option("--code", help="Print the short program that builds the game.")] = False,
    host: Annotated[
        str | None, typer.Option(help="Play against the team at host:port or host:port/agent.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Chat model for the critics, provider:name (needs the extra `models`).", show_default=False),
    ] = None,
    opponent: Annotated[Opponent, typer.Option(help="Who plays black.")] = Opponent.team,
    no_kill: Annotated[
        bool,
        typer.Option("--no-kill", help="Let the second process live (a team at --host is never killed)."),
    ] = False,
) -> None:
    """Watch two teams of agents, one of them in a second process, play a game of Gobang.

    At move 6 that process is killed in the middle of its turn; another goes on.
    """
    from graphs.gobang.demo import main

    try:
        ended = main(seed=seed, code=code, host=host, model=model, opponent=opponent.value, kill=not no_kill)
    except SystemExit as error:
        # SIGTERM and SIGHUP end the second process first and then this one, with their own exit code.
        raise typer.Exit(error.code if isinstance(error.code, int) else 1) from None
    raise typer.Exit(ended)


@app.command()
@guarded
def run(
    target: Annotated[
        str | None, typer.Argument(help="module:attribute, path.py:attribute or host:port/agent", show_default=False)
    ] = None,
    remote: Annotated[str | None, typer.Option(help="The graph is at host:port/agent.", rich_help_panel=REMOTE)] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", "-i", help="JSON, a file (or @file), - for stdin, or plain text as a user's message."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines, for machines.")] = False,
    thread: Thread = None,
    resume: Annotated[
        list[str] | None,
        typer.Option(help="Answer to what the graph asks (JSON or text); repeat it for several questions."),
    ] = None,
    token_file: TokenFile = None,
    ssl_ca: SslCa = None,
    ssl_certfile: SslCertfile = None,
    ssl_keyfile: SslKeyfile = None,
    insecure: Insecure = False,
    timeout: Timeout = None,
    allow: Allow = None,
) -> None:
    """Run a graph once; who says what is shown as it comes."""
    from agentmatrix.cli import run as talking
    from agentmatrix.cli.resolve import Connection, reach

    if (target is None) == (remote is None):
        raise CommandError("give one graph: module:attribute, or --remote host:port/agent")
    connection = Connection(token_file, ssl_ca, ssl_certfile, ssl_keyfile, insecure, timeout, allow)
    graph = reach(target or remote or "", connection, remote=remote is not None)
    talking.run(graph, target or f"--remote {remote}", input, thread, resume or [], json)


@app.command()
@guarded
def chat(
    target: Target,
    thread: Thread = None,
    token_file: TokenFile = None,
    ssl_ca: SslCa = None,
    ssl_certfile: SslCertfile = None,
    ssl_keyfile: SslKeyfile = None,
    insecure: Insecure = False,
    timeout: Timeout = None,
    allow: Allow = None,
) -> None:
    """Talk with a graph that takes messages; what it asks is answered in place. Ctrl-D ends."""
    from agentmatrix.cli import run as talking
    from agentmatrix.cli.resolve import Connection, reach

    connection = Connection(token_file, ssl_ca, ssl_certfile, ssl_keyfile, insecure, timeout, allow)
    talking.chat(reach(target, connection), thread)


@app.command()
@guarded
def serve(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help=r"\[name=]module:attribute or \[name=]path.py:attribute, one or several; or a langgraph.json,"
            " which is also what is read when nothing is named.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 50051,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen beyond this machine without TLS or token.", rich_help_panel=SAFETY),
    ] = False,
    ssl_certfile: Annotated[Path | None, typer.Option(help="Certificate (PEM).", rich_help_panel=SAFETY)] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=SAFETY)] = None,
    ssl_ca: Annotated[
        Path | None,
        typer.Option(help="Ask callers for a certificate signed by these authorities (PEM).", rich_help_panel=SAFETY),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that callers must show; or set AGENTMATRIX_TOKEN.", rich_help_panel=SAFETY
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A module whose classes may cross the wire; may be repeated.", rich_help_panel=SAFETY),
    ] = None,
    max_runs: Annotated[int, typer.Option(min=1, help="Most runs at once; further ones are refused.")] = 1000,
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
    from agentmatrix.cli import serve as serving
    from agentmatrix.cli.resolve import token

    serving.serve(
        targets or [],
        f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}",
        grace,
        until_eof,
        token=token(token_file),
        certificate=ssl_certfile,
        private_key=ssl_keyfile,
        client_ca=ssl_ca,
        insecure=insecure,
        allow=allow or [],
        max_runs=max_runs,
        allow_version_skew=allow_version_skew,
    )


@app.command()
@guarded
def describe(
    target: Annotated[
        str, typer.Argument(help="module:attribute, path.py:attribute, host:port/agent, or host:port for its agents")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    token_file: TokenFile = None,
    ssl_ca: SslCa = None,
    ssl_certfile: SslCertfile = None,
    ssl_keyfile: SslKeyfile = None,
    insecure: Insecure = False,
    timeout: Timeout = None,
) -> None:
    """Show what an agent is: name, description, input and output; or which agents a host has."""
    from agentmatrix.cli import describe as showing
    from agentmatrix.cli.resolve import Connection

    connection = Connection(token_file, ssl_ca, ssl_certfile, ssl_keyfile, insecure, timeout, None)
    showing.describe(target, connection, json)


@app.command()
@guarded
def draw(
    target: Target,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to draw it.")] = Format.text,
    token_file: TokenFile = None,
    ssl_ca: SslCa = None,
    ssl_certfile: SslCertfile = None,
    ssl_keyfile: SslKeyfile = None,
    insecure: Insecure = False,
) -> None:
    """Draw a graph, offline; nodes that run on another machine are marked."""
    from agentmatrix.cli import describe as showing
    from agentmatrix.cli.resolve import Connection

    connection = Connection(token_file, ssl_ca, ssl_certfile, ssl_keyfile, insecure, None, None)
    showing.draw(target, connection, format.value)
