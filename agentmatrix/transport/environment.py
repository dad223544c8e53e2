"""The token of the environment, AGENTMATRIX_TOKEN, and the hosts to which it goes."""

from __future__ import annotations

import os
from typing import Final

from agentmatrix.transport.target import Target, is_loopback, split_port

__all__ = ["HOSTS_VARIABLE", "TOKEN_VARIABLE", "token_for"]

TOKEN_VARIABLE: Final = "AGENTMATRIX_TOKEN"
HOSTS_VARIABLE: Final = "AGENTMATRIX_TOKEN_HOSTS"


def token_for(target: Target) -> str | None:
    """The token of the environment for a host that is called without a token of its own.

    It goes to this machine, and to the machines in AGENTMATRIX_TOKEN_HOSTS: `"gpu-box, 10.0.0.5:50051"`. A process that
    calls hosts of several owners must not show the token of one to another.

    Args:
        target: where the call goes.

    Returns:
        The token; None where there is none, or not for this host.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None or target.scheme in ("unix", "inproc"):
        return token
    host, port = split_port(target.address, target.address)
    listed = {name.strip().lower() for name in os.environ.get(HOSTS_VARIABLE, "").split(",")}
    bracketed = f"[{host}]" if ":" in host else host
    names = {host.lower(), bracketed.lower(), f"{bracketed}:{port}".lower()}
    return token if is_loopback(host) or names & listed else None
