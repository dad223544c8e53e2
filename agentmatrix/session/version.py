"""The versions of this process, as the first frame of a run tells them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Final

from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["WIRE", "spoken_version"]

WIRE: Final = 1
"""The version of the frames and their rules. Both sides must speak the same."""


@cache
def spoken_version() -> pb.Version:
    """The versions of the wire, of langgraph and of agentmatrix in this process."""
    return pb.Version(wire=WIRE, langgraph=version("langgraph"), agentmatrix=version("agentmatrix"))
