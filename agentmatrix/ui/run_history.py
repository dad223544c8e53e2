"""A checkpoint of a thread as the page shows it."""

from __future__ import annotations

import json
from typing import Any, Final

from langchain_core.messages import BaseMessage

from agentmatrix.watch.run_event import plain

__all__ = ["history_entry"]

_LARGEST: Final = 100_000


def history_entry(snapshot: Any) -> dict[str, Any]:
    """What there is to see of a snapshot: when, what comes next, and its values as JSON.

    Values that are too large to be looked at are named only, and cannot be edited.
    """
    metadata = snapshot.metadata or {}
    values = snapshot.values if isinstance(snapshot.values, dict) else {}
    shown: dict[str, Any] = {}
    too_large = []
    for key, value in values.items():
        as_json = _editable(value)
        if len(json.dumps(as_json, ensure_ascii=False, default=repr)) > _LARGEST:
            too_large.append(key)
        else:
            shown[key] = as_json
    return {
        "checkpoint": snapshot.config["configurable"].get("checkpoint_id", ""),
        "step": metadata.get("step"),
        "source": metadata.get("source", ""),
        "at": snapshot.created_at or "",
        "next": list(snapshot.next),
        "questions": len(snapshot.interrupts),
        "values": shown,
        "tooLarge": too_large,
    }


def _editable(value: Any) -> Any:
    """JSON that a state takes again: messages by type, content and id."""
    if isinstance(value, BaseMessage):
        kept = {"type": value.type, "content": plain(value.content), "id": value.id, "name": value.name}
        calls = plain(getattr(value, "tool_calls", None) or [])
        tool_id = getattr(value, "tool_call_id", None)
        kept |= {"tool_calls": calls} if calls else {}
        kept |= {"tool_call_id": tool_id} if tool_id else {}
        return {key: part for key, part in kept.items() if part is not None}
    if isinstance(value, list):
        return [_editable(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _editable(one) for key, one in value.items()}
    return plain(value)
