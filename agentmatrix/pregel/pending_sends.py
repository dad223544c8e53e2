"""LangGraph's warning about Sends that no node takes, which it gives of those to actors too: they have no node each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["sends_known_by"]

_known: ContextVar[Callable[[str], bool] | None] = ContextVar("known_sends", default=None)
_BEGINS: Final = "Ignoring unknown node name "
_ENDS: Final = " in pending sends"


@contextmanager
def sends_known_by(takes: Callable[[str], bool]) -> Iterator[None]:
    """Inside, LangGraph does not warn of Sends whose node `takes` knows."""
    token = _known.set(takes)
    try:
        yield
    finally:
        _known.reset(token)


def _is_news(record: logging.LogRecord) -> bool:
    takes, said = _known.get(), record.getMessage()
    if takes is None or not (said.startswith(_BEGINS) and said.endswith(_ENDS)):
        return True
    return not takes(said.removeprefix(_BEGINS).removesuffix(_ENDS))


logging.getLogger("langgraph").addFilter(_is_news)
