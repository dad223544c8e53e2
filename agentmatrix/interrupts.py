"""Interrupts of nodes that were cancelled after they had paused.

A trigger group with `cancel_rest=True` cancels the sources that it did not need, also one that has already paused for a
person. By then LangGraph has streamed the interrupt, and would return it from `invoke`: a question that needs no answer
any more. The engine adds the ids of such interrupts to the set in `cancelled_interrupts`. The code that makes a result
out of a stream (`invoke`, a live run) binds a set of its own there before it starts the stream, and removes these
interrupts at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from contextvars import ContextVar
from typing import Any, Final

from langgraph.types import GraphOutput

__all__ = ["cancelled_interrupts", "remaining_interrupts"]

_INTERRUPT: Final = "__interrupt__"

cancelled_interrupts: ContextVar[set[str] | None] = ContextVar("cancelled_interrupts", default=None)
"""The ids of the interrupts that were cancelled in the run of this context; None where no result is made."""


def remaining_interrupts(result: Any, cancelled: Collection[str]) -> Any:
    """The result of a run without the interrupts of cancelled nodes.

    Args:
        result: what `invoke` returns, under v1 or v2.
        cancelled: the ids of the interrupts to leave out.

    Returns:
        The result; a copy if anything was left out.
    """
    if cancelled and isinstance(result, GraphOutput):
        return dataclasses.replace(result, interrupts=tuple(i for i in result.interrupts if i.id not in cancelled))
    if cancelled and isinstance(result, dict) and _INTERRUPT in result:
        remaining = [interrupt for interrupt in result[_INTERRUPT] if interrupt.id not in cancelled]
        others = {key: value for key, value in result.items() if key != _INTERRUPT}
        return {**others, _INTERRUPT: remaining} if remaining else others
    return result
