"""Updates folded to a state, in an order that no timing decides. Pure; knows no engine."""

from __future__ import annotations

from typing import Any

__all__ = ["unchanged"]


def unchanged(returned: Any, given: Any) -> bool:
    """Whether an agent handed back the very value that it was given, also where it was copied on the way."""
    if returned is given:
        return True
    if type(returned) is not type(given):
        return False
    try:
        return bool(returned == given)
    except Exception:  # an array, or any type whose == is no yes or no
        return False
