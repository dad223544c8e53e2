"""MegaAgent: a boss recruits admins, they recruit workers, and all of them write to each other and into one workspace.

    python -m graphs.megaagent                   # the paper's countable claims, as a table
    python -m graphs.megaagent --model local     # a small real model in the scripted one's place (extra `local`)
    agentmatrix run graphs.megaagent:graph --input '{"task": "Write a program that plays Gobang."}'

The system of arXiv 2408.09955 on actors: each employee is one, and comes into being when somebody recruits it. What is
the paper's, and what is our reading of it, is in docs/papers.md.
"""

from __future__ import annotations

from typing import Any

from .firm import build
from .gobang_firm import staff
from .workspace import Workspace

__all__ = ["Workspace", "build", "graph", "main"]


def main() -> None:
    """Prints the table."""
    from .__main__ import main

    main()


def __getattr__(name: str) -> Any:
    if name == "graph":
        return build(staff(), Workspace(execute=True))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
