"""The target and the options for remote ones, which the commands share that call hosts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from agentmatrix.cli.error_report import CommandError

REMOTE = "Options for a remote target"
"""The panel of `--help` that these options are in."""

Target = Annotated[str, typer.Argument(help="module:attribute, path.py:attribute or host:port/agent")]
Thread = Annotated[str | None, typer.Option(help="Thread to go on with, where the graph has a checkpointer.")]

_LIST_TIMEOUT = 10.0
"""Seconds to wait for a host's list of agents."""


def _option(*names: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=REMOTE, **settings)


@dataclass(frozen=True)
class HostOptions:
    """How to connect to a host: the values of the options that commands have by `takes_host_options`."""

    token_file: Annotated[
        Path | None, _option(help="File with the host's token; or set AGENTMATRIX_TOKEN (see docs/security.md).")
    ] = None
    ssl_ca: Annotated[Path | None, _option(help="Speak TLS and trust the certificates of this PEM file.")] = None
    ssl_certfile: Annotated[Path | None, _option(help="Our own certificate, for mutual TLS.")] = None
    ssl_keyfile: Annotated[Path | None, _option(help="The key of our own certificate.")] = None
    server_name: Annotated[
        str | None, _option(help="Name to expect in the host's certificate, as behind a tunnel.")
    ] = None
    insecure: Annotated[
        bool, _option("--insecure", help="Send a token without TLS to another machine all the same.")
    ] = False
    timeout: Annotated[float | None, _option(min=0.001, help="Longest time that a run may take, in seconds.")] = None
    reconnect_timeout: Annotated[
        float | None,
        _option(
            min=0,
            help="Seconds in which to take up what a cut line has stopped; 0 for none. By default as long as the host "
            "keeps it.",
        ),
    ] = None
    allow: Annotated[list[str] | None, _option(help="A module whose classes may cross the wire; may be repeated.")] = (
        None
    )

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
            reconnect_timeout=self.reconnect_timeout,
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
            reconnect_timeout=self.reconnect_timeout,
        )
        transport = connect(found, options)
        try:
            reply = transport.list_agents(self.timeout or _LIST_TIMEOUT).result()
        finally:
            transport.close()
        return {agent.name: agent.description for agent in reply.agents}


def takes_host_options(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of `HostOptions`, which it takes as one argument, `options`.

    Args:
        left_out: those that it does not have.
    """

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        hints = get_type_hints(HostOptions, include_extras=True)
        parameters = {name: each for name, each in own.parameters.items() if name != "options"}
        shared = {
            each.name: inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name]
            )
            for each in fields(HostOptions)
            if each.name not in left_out
        }

        @functools.wraps(command)
        def called(**values: Any) -> None:
            options = HostOptions(**{name: values.pop(name) for name in shared})
            command(**values, options=options)

        parameters |= shared
        called.__signature__ = own.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
        called.__annotations__ = {name: each.annotation for name, each in parameters.items()}
        return called

    return with_options


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
