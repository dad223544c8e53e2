"""The first difference between the cards of two replicas, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from agentmatrix.card import AgentCard

__all__ = ["first_difference"]

_NOT_COMPARED: Final = frozenset({"langgraph"})
"""Replicas may run on several patch versions of langgraph, as during an upgrade; the runs compare what matters."""
_LONGEST: Final = 80


def first_difference(one: AgentCard, other: AgentCard) -> str | None:
    """Where two cards differ first, `"input_keys is ['a'] at one and ['b'] at the other"`; None where they do not."""
    for field in fields(AgentCard):
        if field.name in _NOT_COMPARED:
            continue
        found = _difference(field.name, getattr(one, field.name), getattr(other, field.name))
        if found is not None:
            path, here, there = found
            return f"{path} is {_brief(here)} at one and {_brief(there)} at the other"
    return None


def _difference(path: str, one: Any, other: Any) -> tuple[str, Any, Any] | None:
    if isinstance(one, AgentCard) and isinstance(other, AgentCard):
        for field in fields(AgentCard):
            if field.name not in _NOT_COMPARED:
                found = _difference(f"{path}.{field.name}", getattr(one, field.name), getattr(other, field.name))
                if found is not None:
                    return found
        return None
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            if key not in one or key not in other:
                return f"{path}.{key}", one.get(key, "missing"), other.get(key, "missing")
            found = _difference(f"{path}.{key}", one[key], other[key])
            if found is not None:
                return found
        return None
    if _is_sequence(one) and _is_sequence(other) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for n, pair in pairs if (found := _difference(f"{path}[{n}]", *pair)) is not None), None)
    return None if one == other else (path, one, other)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _brief(value: Any) -> str:
    text = repr(sorted(value) if isinstance(value, frozenset) else value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
