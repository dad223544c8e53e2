"""`agentmatrix draw`: the drawing of a graph on stdout."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from agentmatrix.cli.host_options import HostOptions, Target, takes_host_options
from agentmatrix.cli.terminal_text import terminal_text

__all__ = ["draw"]


class Format(StrEnum):
    """The notations of a drawing."""

    text = "text"
    ascii = "ascii"
    mermaid = "mermaid"
    svg = "svg"


@takes_host_options("timeout", "allow")
def draw(
    target: Target,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to draw it.")] = Format.text,
    *,
    options: HostOptions,
) -> None:
    """Draw a graph, offline; nodes that run on another machine are marked."""
    from agentmatrix.cli.resolve import resolve
    from agentmatrix.display import draw_mermaid, draw_svg, draw_text

    graph = resolve(target, options)
    if format is Format.mermaid:
        drawn = draw_mermaid(graph)
    elif format is Format.svg:
        drawn = draw_svg(graph)
    else:
        drawn = draw_text(graph, ascii=format is Format.ascii)
    print(terminal_text(drawn))
