"""Graphs in notebooks: the mix-in that draws them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from agentmatrix.display import mimebundle
from agentmatrix.errors import AgentMatrixError

__all__ = ["BuilderRepr", "NotebookRepr"]


class NotebookRepr:
    """A graph whose representation in a notebook is its drawing, made without a network.

    LangGraph's own `_repr_mimebundle_` asks a web service for the picture. A graph class that has this one before
    `Pregel` among its bases gives the notebook SVG and text instead, and the front end takes what it can show.
    """

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None, **_: Any
    ) -> dict[str, str]:
        bundle = mimebundle(self)  # type: ignore[arg-type]
        return {
            kind: text
            for kind, text in bundle.items()
            if (include is None or kind in include) and (exclude is None or kind not in exclude)
        }


class BuilderRepr:
    """A builder whose representation in a notebook is the drawing of what it compiles to."""

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None, **options: Any
    ) -> dict[str, str]:
        builder: Any = self
        try:
            graph = builder.compile()
        except (AgentMatrixError, ValueError) as error:
            # What is half built says what is missing.
            return {"text/plain": f"{type(self).__name__}: {error}"}
        bundle: dict[str, str] = graph._repr_mimebundle_(include, exclude, **options)
        return bundle
