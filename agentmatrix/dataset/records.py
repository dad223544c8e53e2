"""What the agent returned for a row, as lines of the output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from langchain_core.messages import BaseMessage, convert_to_openai_messages
from pydantic import BaseModel

from agentmatrix.dataset.columns import awaited
from agentmatrix.dataset.row import DatasetRow
from agentmatrix.errors import DatasetError

__all__ = ["Result", "lines_of", "records_of"]

Result = Callable[[dict[str, Any], Any], Any] | None
"""A function of the columns and the state that returns a record, several or None; or None for columns and state."""

_ROLES = {"human": "user", "ai": "assistant", "system": "system"}


async def records_of(row: DatasetRow, state: Any, result: Result, *, id_column: str | None, repeats: bool) -> list[Any]:
    """The records of a row: one, several or none.

    Args:
        row: the row.
        state: what the agent returned.
        result: what `refine` was told.
        id_column: the name under which the default record has the id; None where it is a mere hash.
        repeats: whether the default record says which repetition it is.

    Raises:
        DatasetError: `result` returned something that is no record.
    """
    if result is None:
        return [_default_record(row, state, id_column, repeats)]
    made = await awaited(result(row.columns, state))
    if made is None:
        return []
    if isinstance(made, Mapping):
        return [made]
    if isinstance(made, list | tuple) and all(isinstance(record, Mapping) for record in made):
        return list(made)
    raise DatasetError(
        f"the result of {row.name} is of type {type(made).__name__}: return a dict, a list of dicts, or None"
    )


def lines_of(records: Sequence[Any], row: DatasetRow, *, flat: bool) -> list[bytes]:
    """The records as lines of JSON.

    Args:
        records: the records.
        row: their row.
        flat: refuse nested values, which CSV has not.

    Raises:
        DatasetError: a value has no JSON; the message names its key and its type.
    """
    lines = []
    for record in records:
        try:
            text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_plain)
            lines.append(text.encode() + b"\n")
        except (TypeError, ValueError, RecursionError):
            _explain(record, row)
        if flat:
            _check_flat(record, row)
    return lines


def _default_record(row: DatasetRow, state: Any, id_column: str | None, repeats: bool) -> dict[str, Any]:
    record = {**row.columns, **({"repetition": row.repetition} if repeats else {}), **_items(state)}
    if id_column is not None:
        # A state may have an `id` of its own; the record is found by the row's.
        own = row.id.rpartition("/")[0] if repeats else row.id
        record[id_column] = row.columns.get(id_column, own)
    return record


def _items(state: Any) -> Mapping[str, Any]:
    if isinstance(state, Mapping):
        return state
    if isinstance(state, BaseModel) and not isinstance(state, BaseMessage):
        return {name: getattr(state, name) for name in type(state).model_fields}
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {"output": state}


def _plain(value: Any) -> Any:
    """What has no JSON of its own but a usual form: messages, models, dataclasses."""
    if isinstance(value, BaseMessage):
        if value.type in _ROLES and isinstance(value.content, str) and not getattr(value, "tool_calls", None):
            plain = {"role": _ROLES[value.type], "content": value.content}
            return {**plain, "name": value.name} if value.name else plain
        return convert_to_openai_messages(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def _explain(record: Any, row: DatasetRow) -> NoReturn:
    path, reason = _find(record, "") or ("", "is no JSON")
    raise DatasetError(
        f"the result of {row.name} is no JSON: {path} {reason}; return what is JSON by result="
    ) from None


def _find(value: Any, path: str, depth: int = 0) -> tuple[str, str] | None:
    """Where a value is no JSON, and why."""
    if depth > 200:
        return path, "is nested too deep"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str | int | float | bool | None):
                return path or "the record", f"has a key of type {type(key).__name__}"
            if found := _find(item, f"{path}.{key}" if path else str(key), depth + 1):
                return found
        return None
    if isinstance(value, list | tuple):
        return next(filter(None, (_find(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))), None)
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain).encode()
    except UnicodeEncodeError:
        return path, "is a text with half a surrogate pair"
    except ValueError:
        return path, f"is {value!r}"
    except (TypeError, RecursionError):
        return path, f"is of type {type(value).__name__}"
    return None


def _check_flat(record: Mapping[str, Any], row: DatasetRow) -> None:
    for key, value in record.items():
        if not isinstance(value, str | int | float | bool | None):
            raise DatasetError(
                f"the result of {row.name} has a nested value, {key!r}, and CSV has none: write .jsonl, "
                "or return a text by result="
            )
