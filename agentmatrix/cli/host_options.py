"""The target and the options for remote ones, which `run`, `chat`, `describe` and `draw` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from agentmatrix.cli.error_report import CommandError

REMOTE = "Options for a remote target"
"""The panel of `--help` that these options are in."""

Target = Annotated[str, typer.Argument(help="module:attribute, path.py:attribute or host:port/agent")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the host's token; or set AGENTMATRIX_TOKEN (see docs/security.md).", rich_help_panel=REMOTE
    ),
]
SslCa = Annotated[
    Path | None,
    typer.Option(help="Speak TLS and trust the certificates of this PEM file.", rich_help_panel=REMOTE),
]
SslCertfile = Annotated[Path | None, typer.Option(help="Our own certificate, for mutual TLS.", rich_help_panel=REMOTE)]
SslKeyfile = Annotated[Path | None, typer.Option(help="The key of our own certificate.", rich_help_panel=REMOTE)]
ServerName = Annotated[
    str | None,
    typer.Option(help="Name to expect in the host's certificate, as behind a tunnel.", rich_help_panel=REMOTE),
]
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

_LIST_TIMEOUT = 10.0
"""Seconds to wait for a host's list of agents."""


@dataclass(frozen=True)
class HostOptions:
    """How to connect to a host: the values of the options that `run`, `chat`, `describe` and `draw` share."""

    token_file: Path | None = None
    ssl_ca: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    server_name: str | None = None
    insecure: bool = False
    timeout: float | None = None
    allow: list[str] | None = None

    def agent(self, target: str) -> Any:
        """The `RemoteAgent` of a target. Nothing is sent yet."""
        from agentmatrix import RemoteAgent

        return RemoteAgent(
            target,
            token=None if self.token_file is None else checked_token(self.token_file),
            ssl_ca=self.ssl_ca,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
            server_name=self.server_name,
            insecure=self.insecure,
            timeout=self.timeout,
            allow=self.allow or [],
        )

    def agents(self, target: str) -> dict[str, str]:
        """The descriptions of all agents of a host, by name.

        Raises:
            HostError: the host cannot be reached.
        """
        from agentmatrix.transport import ClientOptions, connect, parse_target
        from agentmatrix.transport.environment import token_for

        found = parse_target(target)
        options = ClientOptions(
            token=token_for(found) if self.token_file is None else checked_token(self.token_file),
            root_certificates=self.ssl_ca,
            certificate=self.ssl_certfile,
            private_key=self.ssl_keyfile,
            server_name=self.server_name,
            insecure=self.insecure,
        )
        transport = connect(found, options)
        try:
            reply = transport.list_agents(self.timeout or _LIST_TIMEOUT).result()
        finally:
            transport.close()
        return {agent.name: agent.description for agent in reply.agents}


def checked_token(path: Path) -> Path:
    """A file with a token, which is read again when it changes.

    Raises:
        CommandError: the file cannot be read or is empty.
    """
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"the token file {path} cannot be read: {reason}") from None
    if not text:
        raise CommandError(f"the token file {path} is empty")
    return path
