"""How something has ended that a watcher saw begin: the kind of its event, and what there is to say of it."""

from __future__ import annotations

from typing import Any

from langgraph.errors import GraphBubbleUp, GraphInterrupt

from agentmatrix.watch.run_event import plain

__all__ = ["ending", "sentence"]


def ending(outcome: Any) -> tuple[str, dict[str, Any]]:
    """The kind of event with which something ends that has returned or raised this, and its data."""
    if isinstance(outcome, GraphInterrupt):
        asked = outcome.args[0] if outcome.args else ()
        return "ask", {"questions": [_question(interrupt) for interrupt in asked]}
    if not isinstance(outcome, BaseException) or isinstance(outcome, GraphBubbleUp):
        # A command for a graph further out ends a node as it is meant to.
        return "end", {}
    return ("cancel", {}) if _is_cancellation(outcome) else ("fail", {"error": sentence(outcome)})


def _question(interrupt: Any) -> dict[str, Any]:
    """An interrupt as plain values."""
    asked = {"id": str(getattr(interrupt, "id", "")), "value": plain(getattr(interrupt, "value", None))}
    schema = getattr(interrupt, "response_schema", None)
    return {**asked, "schema": plain(schema)} if isinstance(schema, dict) else asked


def _is_cancellation(error: BaseException) -> bool:
    """Whether what was raised says that something was cut off: a cancellation, or a stream that nobody reads on."""
    return type(error).__name__ in ("CancelledError", "GeneratorExit", "KeyboardInterrupt")


def sentence(error: BaseException) -> str:
    """An error in one line: its type, and what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
