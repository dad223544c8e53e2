"""Drawings of graphs as Mermaid, SVG and text, made without a network.

>>> from agentmatrix.display import draw_text
>>> print(draw_text(graph))  # doctest: +SKIP
report
├─ START → plan
├─ plan → panel
└─ panel @gpu-box:50051 (not reached) → END
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from langgraph.pregel import Pregel

if TYPE_CHECKING:
    from agentmatrix.display.drawing import Drawing, Edge, Node, drawing_of
    from agentmatrix.display.mermaid import mermaid_of
    from agentmatrix.display.svg import svg_of
    from agentmatrix.display.text import text_of

__all__ = [
    "Drawing",
    "Edge",
    "Node",
    "draw_mermaid",
    "draw_svg",
    "draw_text",
    "drawing_of",
    "install_display",
    "mermaid_of",
    "mimebundle",
    "svg_of",
    "text_of",
]

_HOMES = {
    "Drawing": "drawing", "Edge": "drawing", "Node": "drawing", "drawing_of": "drawing",
    "mermaid_of": "mermaid", "svg_of": "svg", "text_of": "text",
}  # fmt: skip
"""The modules of what is imported when it is first used: a graph is seldom drawn, and this module often imported."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"agentmatrix.display.{_HOMES[name]}"), name)
    return value


def draw_mermaid(graph: Pregel[Any, Any, Any, Any], *, xray: bool | int = True) -> str:
    """Draw a graph as Mermaid text, which GitHub, JupyterLab 4.1 and later, and many editors show.

    Args:
        graph: a compiled graph, from LangGraph or AgentMatrix, or a remote agent.
        xray: how many levels of nested graphs to open; True for all.
    """
    from agentmatrix.display import drawing_of, mermaid_of

    return mermaid_of(drawing_of(graph, xray=xray))


def draw_svg(graph: Pregel[Any, Any, Any, Any], *, xray: bool | int = True) -> str:
    """Draw a graph as one self-contained SVG element.

    Args:
        graph: a compiled graph, from LangGraph or AgentMatrix, or a remote agent.
        xray: how many levels of nested graphs to open; True for all.
    """
    from agentmatrix.display import drawing_of, svg_of

    return svg_of(drawing_of(graph, xray=xray))


def draw_text(graph: Pregel[Any, Any, Any, Any], *, xray: bool | int = True, ascii: bool = False) -> str:
    """Draw a graph for a terminal, one line a node.

    Args:
        graph: a compiled graph, from LangGraph or AgentMatrix, or a remote agent.
        xray: how many levels of nested graphs to open; True for all.
        ascii: True for a terminal that has only ASCII.
    """
    from agentmatrix.display import drawing_of, text_of

    return text_of(drawing_of(graph, xray=xray), ascii=ascii)


def mimebundle(graph: Pregel[Any, Any, Any, Any]) -> dict[str, str]:
    """Draw a graph for notebooks: every front end shows one of the forms. Mermaid is not among them: JupyterLab would
    prefer it, and draws nested graphs worse.

    Returns:
        MIME type -> text, for `image/svg+xml` and `text/plain`.
    """
    from agentmatrix.display import drawing_of, svg_of, text_of

    drawing = drawing_of(graph)
    return {"image/svg+xml": svg_of(drawing), "text/plain": text_of(drawing)}


def install_display() -> bool:
    """Draw graphs of plain LangGraph in the same way, in the IPython session that is running.

    Returns:
        False where no IPython session is running; nothing is changed then.
    """
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()  # type: ignore[no-untyped-call,unused-ignore]
    if shell is None or shell.display_formatter is None:
        return False
    shell.display_formatter.mimebundle_formatter.for_type(Pregel, lambda graph, **_: mimebundle(graph))
    return True
