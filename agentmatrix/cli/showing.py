"""`describe` and `draw`: what an agent is and looks like."""

from __future__ import annotations

import json
from typing import Any

from agentmatrix.cli.guard import CommandError
from agentmatrix.cli.reach import Connection, reach
from agentmatrix.cli.targets import is_remote

__all__ = ["describe", "draw"]


def draw(target: str, connection: Connection, format: str) -> None:
    """`agentmatrix draw`."""
    from agentmatrix.display import draw_mermaid, draw_svg, draw_text

    graph = reach(target, connection)
    match format:
        case "mermaid":
            print(draw_mermaid(graph))
        case "svg":
            print(draw_svg(graph))
        case _:
            print(draw_text(graph, ascii=format == "ascii"))
