"""Compiled graphs in pickles: the mark by which a write passes on what its node returns stays the same object.

LangGraph compares with that mark by identity, so that a graph which was unpickled in another process fails at its first
write. Importing this module mends the pickles of this process, which other processes then read.
"""

from __future__ import annotations

import copyreg
from typing import Any

from langgraph.graph.state import ChannelWriteEntry, ChannelWriteTupleEntry  # type: ignore[attr-defined]

__all__ = ["mend_pickles"]

_PASSTHROUGH = ChannelWriteEntry("any").value
"""The mark: what a write writes unless it is told otherwise."""


def _reduced(entry: Any) -> tuple[Any, ...]:
    fields = entry._asdict()
    passed = [name for name, value in fields.items() if value is _PASSTHROUGH]
    return _entry, (type(entry), {name: value for name, value in fields.items() if name not in passed}, passed)


def _entry(kind: Any, fields: dict[str, Any], passed: list[str]) -> Any:
    return kind(**fields, **dict.fromkeys(passed, _PASSTHROUGH))


def mend_pickles() -> None:
    """Have writes of graphs pickled so that they are the same in another process."""
    for kind in (ChannelWriteEntry, ChannelWriteTupleEntry):
        copyreg.pickle(kind, _reduced)
