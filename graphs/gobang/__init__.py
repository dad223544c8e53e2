"""Gobang, five in a row: two teams of agents, each a chat group, under a referee that loops until the game ends.

`graph` is a whole game in one process, `black` and `white` are its teams, each servable by itself:

    agentmatrix example gobang
    agentmatrix serve graphs.gobang:white
    agentmatrix run graphs.gobang:graph --input '{"moves": []}'

GOBANG_MODEL=provider:name in the environment puts that chat model into the critics' seats.
"""

from __future__ import annotations

import os

from .referee import build
from .team import MODEL, chat_model, human, team

__all__ = ["black", "build", "graph", "human", "main", "team", "white"]


def main() -> int:
    """Plays the demo, a game against a second process; returns its exit code."""
    from .demo import main

    return main()


_model = chat_model(os.environ[MODEL]) if os.environ.get(MODEL) else None

black = team(critic_model=_model)
white = team(critic_model=_model)
graph = build(black, white)
