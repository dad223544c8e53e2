"""The graph of a target: loaded in this process, or a remote agent."""

from __future__ import annotations

from typing import Any

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.host_options import HostOptions
from agentmatrix.cli.targets import is_remote, load_graph

__all__ = ["resolve"]


def resolve(target: str, options: HostOptions, *, remote: bool = False) -> Any:
    """The graph of a target. The card of a remote agent is fetched now, so that errors come before a run.

    Args:
        target: `module:attribute`, `path.py:attribute` or `host:port/agent`.
        options: how to connect to the host of a remote agent.
        remote: the target is remote, also where it does not look so.

    Raises:
        CommandError: a local target cannot be loaded, or an address names no agent.
        HostError: the host of a remote agent cannot be reached.
    """
    from agentmatrix.transport import parse_target

    if not remote and not is_remote(target):
        return load_graph(target)
    if not parse_target(target).agent:
        raise CommandError(f"{target!r} names a host and no agent; `agentmatrix describe {target}` lists its agents")
    agent = options.agent(target)
    _ = agent.card
    return agent
