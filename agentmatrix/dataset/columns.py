"""The columns of a row as the input of the agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from agentmatrix.dataset.row_agent import RowAgent
from agentmatrix.errors import DatasetError

__all__ = ["Input", "awaited", "check_columns", "input_of"]

Input = Mapping[str, str] | Callable[[dict[str, Any]], Any] | None
"""State keys with their columns, a function of the columns, or None for the columns that the agent knows."""


async def input_of(columns: dict[str, Any], given: Input, agent: RowAgent, name: str) -> Any:
    """The agent's input for a row.

    Args:
        columns: the row.
        given: what `refine` was told.
        agent: the agent.
        name: where the row stands, for errors.

    Raises:
        DatasetError: the row lacks a column, or has none that the agent knows.
    """
    if given is None:
        if agent.input_keys is None:
            return columns
        found = {key: columns[key] for key in agent.input_keys if key in columns}
        if not found or any(key not in found for key in agent.required_keys):
            raise DatasetError(f"{name} {_lacks(found, columns, agent)}")
        return found
    if isinstance(given, Mapping):
        missing = [column for column in given.values() if column not in columns]
        if missing:
            raise DatasetError(f"{name} has no column {missing[0]!r}; it has {_names(columns)}")
        return {key: columns[column] for key, column in given.items()}
    return await awaited(given(columns))


def check_columns(given: Input, agent: RowAgent) -> None:
    """Check what can be checked without a row.

    Raises:
        DatasetError: the input names a key that the agent does not know.
    """
    if isinstance(given, Mapping) and agent.input_keys is not None:
        unknown = [key for key in given if key not in agent.input_keys]
        if unknown:
            raise DatasetError(f"the graph does not take {unknown[0]!r}; it takes {_names(agent.input_keys)}")


def _lacks(found: Collection[str], columns: Mapping[str, Any], agent: RowAgent) -> str:
    assert agent.input_keys is not None
    missing = [key for key in agent.required_keys if key not in found] or list(agent.input_keys)
    return (
        f"has no column that the graph knows: it takes {_names(agent.input_keys)}, the row has {_names(columns)}: "
        f"say which is which: input={{{missing[0]!r}: COLUMN}}"
        if not found
        else f"has no column {missing[0]!r}, which the graph needs; it has {_names(columns)}"
    )


def _names(names: Collection[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


async def awaited(value: Any) -> Any:
    """The value, or what it is when it has been awaited."""
    return await value if isinstance(value, Awaitable) else value
