"""What was typed as the input of a graph: a message, or JSON that fits the graph's schema."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agentmatrix.errors import AgentMatrixError
from agentmatrix.ui.graph_catalog import CatalogGraph

__all__ = ["InputError", "checked_input"]


class InputError(AgentMatrixError, ValueError):
    """An input that does not fit, said in a sentence."""


def checked_input(entry: CatalogGraph, given: Mapping[str, Any]) -> Any:
    """The input of a graph.

    Args:
        entry: the graph.
        given: `"text"`, a user's message, or `"json"`, text of JSON.

    Raises:
        InputError: it is no JSON, or does not fit the schema.
    """
    if "json" not in given:
        text = given.get("text")
        if not isinstance(text, str) or not text.strip():
            raise InputError("say something: the input is empty")
        if not entry.takes_messages:
            raise InputError(f"{entry.name} takes no messages: give its state as JSON{_keys(entry)}")
        return {"messages": [{"role": "user", "content": text}]}
    try:
        value = json.loads(given["json"]) if isinstance(given["json"], str) else given["json"]
    except ValueError as error:
        raise InputError(f"the input is not JSON: {error}") from None
    properties = (entry.schema or {}).get("properties")
    if properties is None:
        return value
    if not isinstance(value, dict):
        raise InputError(f"the input is a JSON object with the keys of the state{_keys(entry)}")
    for key in value:
        if key not in properties:
            close = difflib.get_close_matches(key, properties, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else _keys(entry)
            raise InputError(f"the state of {entry.name} has no key {key!r}{hint}")
    _check_values(entry, value)
    return value


def _check_values(entry: CatalogGraph, value: dict[str, Any]) -> None:
    """Messages are left to the reducer, which takes more than the schema says; and so are keys that are missing."""
    try:
        model = entry.graph.get_input_schema()
        root = model.model_fields.get("root")
        adapter = TypeAdapter(model if root is None else root.annotation)
    except Exception:
        return  # The graph that runs it says what is wrong.
    try:
        adapter.validate_python({key: one for key, one in value.items() if key != "messages"})
    except ValidationError as found:
        for error in found.errors():
            if error["type"] != "missing":
                where = ".".join(str(part) for part in error["loc"])
                given = json.dumps(error["input"], ensure_ascii=False, default=repr)[:80]
                raise InputError(f"{where} does not fit: {error['msg']} (it is {given})") from None


def _keys(entry: CatalogGraph) -> str:
    properties = (entry.schema or {}).get("properties", {})
    return f"; it has {', '.join(properties)}" if properties else ""
