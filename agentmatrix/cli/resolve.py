"""From a target and the options about hosts to a graph, in this process or remote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.targets import is_remote, load

__all__ = ["Connection", "reach", "token"]


_PATIENCE = 10.0
"""Seconds to wait for a host's list of agents."""


@dataclass(frozen=True)
class Connection:
    """How to speak with a host: the options that `run`, `chat`, `describe` and `draw` share."""

    token_file: Path | None = None
    ssl_ca: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    insecure: bool = False
    timeout: float | None = None
    allow: list[str] | None = None

    def agent(self, target: str) -> Any:
        """The `RemoteAgent` at the target. Nothing is sent."""
        from agentmatrix import RemoteAgent

        return RemoteAgent(
            target,
            api_key=token(self.token_file),
            ssl_ca=self.ssl_ca,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
            insecure=self.insecure,
            timeout=self.timeout,
            allow=self.allow or [],
        )

    def agents(self, target: str) -> dict[str, str]:
        """The names and descriptions of all agents of a host.

        Raises:
            HostError: the host cannot be reached.
        """
        from agentmatrix.transport import ClientOptions, connect, parse_target

        options = ClientOptions(
            token=token(self.token_file),
            root_certificates=self.ssl_ca,
            certificate=self.ssl_certfile,
            private_key=self.ssl_keyfile,
            insecure=self.insecure,
        )
        transport = connect(parse_target(target), options)
        try:
            reply = transport.list_agents(self.timeout or _PATIENCE).result()
        finally:
            transport.close()
        return {agent.name: agent.description for agent in reply.agents}


def token(path: Path | None) -> str | None:
    """The token in the file, or in AGENTMATRIX_TOKEN, or None.

    Raises:
        CommandError: the file cannot be read or is empty.
    """
    if path is None:
        return os.environ.get("AGENTMATRIX_TOKEN") or None
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"the token file {path} cannot be read: {reason}") from None
    if not text:
        raise CommandError(f"the token file {path} is empty")
    return text


def reach(target: str, connection: Connection, *, remote: bool = False) -> Any:
    """The graph at a target, with its card fetched where it is remote, so that what is wrong is said before a run.

    Raises:
        CommandError: a local target that cannot be loaded, or an address without an agent.
        HostError: a remote one that cannot be reached.
    """
    from agentmatrix.transport import parse_target

    if not remote and not is_remote(target):
        return load(target)
    if not parse_target(target).agent:
        raise CommandError(f"{target!r} names a host and no agent; `agentmatrix describe {target}` lists its agents")
    agent = connection.agent(target)
    _ = agent.card
    return agent
