"""The settings that all rows of one output share: what is recorded of them, and what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentmatrix.errors import DatasetError

__all__ = ["check_answers", "check_numbers", "check_same_settings", "described", "parse_shard", "read_answers"]


def described(value: Any) -> Any:
    """A setting as plain data. Of a function it is the name: code is not compared."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [described(item) for item in value]
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def schema_digest(schema: Any) -> str | None:
    """A JSON schema in a few characters, without its descriptions' order."""
    if schema is None:
        return None
    return hashlib.blake2b(json.dumps(schema, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def check_same_settings(recorded: Mapping[str, Any], now: Mapping[str, Any], settled: int, output: Path) -> None:
    """Check that a run goes on with the settings of those before it.

    Raises:
        DatasetError: they differ; the message says in what.
    """
    for name, value in now.items():
        before = recorded.get(name)
        if before != value:
            shown = "has changed" if name.startswith("the graph's") else f"was {before!r} and is {value!r}"
            raise DatasetError(
                f"{name} {shown} since the first {settled} rows of {output}: restart, or give another output"
            )


def check_numbers(
    *,
    max_concurrency: Any,
    repetitions: Any,
    limit: Any,
    order: Any,
    max_failures: Any,
    max_crashes: Any,
    timeout: Any,
    budget: Any,
    grace: Any,
) -> None:
    """Check the numbers among the arguments.

    Raises:
        DatasetError: the first that cannot be.
    """
    counts = {
        "max_concurrency": max_concurrency,
        "repetitions": repetitions,
        "limit": limit,
        "max_crashes": max_crashes,
    }
    for name, value in counts.items():
        if value is None and name == "limit":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DatasetError(f"{name} is a whole number from 1, not {value!r}")
    for name, seconds in {"timeout": timeout, "budget": budget, "grace": grace}.items():
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0):
            raise DatasetError(f"{name} is a number from 0, not {seconds!r}")
    if not isinstance(max_failures, int | float) or not 0 < max_failures:
        raise DatasetError(
            f"max_failures is a share above 0, such as 0.5, not {max_failures!r}; above 1 it is no limit"
        )
    if order not in ("done", "input"):
        raise DatasetError(f"order is 'done' or 'input', not {order!r}")


def parse_shard(shard: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """`"3/8"` or `(3, 8)` as the third of eight parts.

    Raises:
        DatasetError: it is neither.
    """
    if shard is None:
        return None
    try:
        index, of = (int(part) for part in (shard.split("/") if isinstance(shard, str) else shard))
        if 1 <= index <= of:
            return index, of
    except (TypeError, ValueError):
        pass
    raise DatasetError(f"a shard is written 3/8, for the third of eight parts, not {shard!r}")


def read_answers(answers: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    """Answers to the questions of paused rows, by their ids.

    They are given so, or in a file of lines `{"id": ..., "answer": ...}`.

    Raises:
        DatasetError: the file cannot be read, or has another line.
    """
    if answers is None or isinstance(answers, Mapping):
        return answers or {}
    found: dict[str, Any] = {}
    try:
        lines = Path(answers).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DatasetError(f"the answers {answers} cannot be read: {reason}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                answer = json.loads(line)
                found[str(answer["id"])] = answer["answer"]
            except (ValueError, KeyError, TypeError):
                raise DatasetError(
                    f'line {number} of {answers} is no answer: write {{"id": "...", "answer": ...}}'
                ) from None
    return found


def check_answers(answers: Mapping[str, Any], paused: set[str]) -> None:
    """Check that each answer is to a row that is paused.

    Raises:
        DatasetError: one is not.
    """
    if unknown := sorted(set(answers) - paused):
        raise DatasetError(f"there is an answer for the row {unknown[0]!r}, which is not paused")
