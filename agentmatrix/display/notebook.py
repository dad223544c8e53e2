"""How a graph shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

__all__ = ["Shown"]


class Shown:
    """A graph that draws itself in a notebook, without a network.

    LangGraph's own `_repr_mimebundle_` asks a web service for the picture. A graph class that names this one before
    `Pregel` among its bases shows itself as Mermaid, SVG and text instead, and the front end takes what it can show.
    """

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None, **_: Any
    ) -> dict[str, str]:
        # Drawing is far above the graphs that inherit this, and nobody needs it until a graph is shown.
        from agentmatrix.display import mimebundle

        bundle = mimebundle(self)  # type: ignore[arg-type]
        return {
            kind: text
            for kind, text in bundle.items()
            if (include is None or kind in include) and (exclude is None or kind not in exclude)
        }
