"""The verbs that a caller may ask a host for, each with its async twin."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["ITERATED", "UNARY", "is_async_verb", "sync_verb"]

UNARY: Final = frozenset(
    {"invoke", "get_state", "bulk_update_state", "clear_cache", "get_graph", "saver", "explain", "actors"}
)
ITERATED: Final = frozenset({"stream", "get_state_history"})
"""The verbs that yield parts."""
_KEPT: Final = 64
"""Answers that are kept: a caller may send any name."""


@lru_cache(_KEPT)
def is_async_verb(verb: str) -> bool:
    """Whether it is the async twin of a verb; `actors` is none."""
    return verb.startswith("a") and verb[1:] in UNARY | ITERATED


@lru_cache(_KEPT)
def sync_verb(verb: str) -> str:
    """The sync twin."""
    return verb[1:] if is_async_verb(verb) else verb
