"""What a watcher is told of a run: one record for each thing that happens, local and hosted alike, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

__all__ = ["KINDS", "RunEvent", "node_above", "node_path", "plain"]

KINDS: Final = frozenset({"begin", "end", "fail", "ask", "cancel", "call", "tool", "say", "token", "answer"})
_LONGEST_PART: Final = 110_000
"""Characters of an input, an output or a part of what is being said."""


class RunEvent(NamedTuple):
    """One thing that has happened in a run.

    Attributes:
        kind: `begin`, and then `end`, `fail`, `ask` (paused at a question) or `cancel` (cut off), of a node, or of the
            run itself; `call` of a model and `tool`, once they have ended; `say`, a message; `token`, what has come
            of one that is being said; `answer`, to questions.
        run: the id of the run that was started in the block.
        path: the nodes from the outermost graph, `"panel/expert"`; `""` is the run itself.
        namespace: the checkpoint namespace: two activations of one node have different ones.
        at: when, in seconds since the epoch; what happens on a host is told by this machine's clock.
        data: what else there is to say, as JSON types. `seconds` is measured where the node runs; `input` of a `begin`
            and `output` of an `end` are JSON text, which is cut at 100,000 characters.
    """

    kind: str
    run: str
    path: str
    namespace: str
    at: float
    data: dict[str, Any]

    @property
    def size(self) -> int:
        """The characters of its long parts."""
        data = self.data
        return sum(len(data[part]) for part in _LONG if part in data) if data else 0

    def as_json(self) -> dict[str, Any]:
        """The event as a JSON object; `from_json` makes the same event of it."""
        return {**self._asdict(), "data": plain(self.data)}

    @classmethod
    def from_json(cls, value: Any) -> RunEvent:
        """The event of a JSON object, or of a list of its fields.

        Raises:
            ValueError: it is no event.
        """
        try:
            event = cls(**value) if isinstance(value, dict) else cls(*value)
        except TypeError as error:
            raise ValueError(f"it is no event of a run: {error}") from None
        texts = (event.kind, event.run, event.path, event.namespace)
        if not (
            all(type(text) is str for text in texts)
            and event.kind in KINDS
            and isinstance(event.at, int | float)
            and type(event.data) is dict
        ):
            raise ValueError("it is no event of a run: it has a field of another type")
        # What a later version says besides is left out.
        known = {key: value for key, value in event.data.items() if key in _FITS}
        for key, value in known.items():
            if not _FITS[key](value):
                raise ValueError(f"it is no event of a run: its data {key!r} cannot be read")
        if event.kind in ("say", "token") and not {"speaker", "text"} <= known.keys():
            raise ValueError("it is no event of a run: it says nothing")
        if event.kind == "token" and not (known.get("id") and len(known["text"]) <= _LONGEST_PART):
            raise ValueError("it is no event of a run: a token has the id of its message, and is short")
        return event._replace(data=known)


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("name")) is str and isinstance(value.get("args"), dict)


def _is_question(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("id")) is str and "value" in value


_LONG: Final = ("text", "input", "output")

# What the data of events may hold. It may come from a host, or from a file.
_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("name", "error", "speaker", "text", "role", "thread_id", "host", "by"), lambda value: type(value) is str
    ),
    **dict.fromkeys(("hidden", "silent", "cached"), lambda value: type(value) is bool),
    **dict.fromkeys(("input", "output"), lambda value: type(value) is str and len(value) <= _LONGEST_PART),
    "ids": lambda value: isinstance(value, list) and all(type(id) is str for id in value),
    "id": lambda value: value is None or type(value) is str,
    "seconds": lambda value: type(value) in (int, float),
    "calls": lambda value: isinstance(value, list) and all(map(_is_call, value)),
    "questions": lambda value: isinstance(value, list) and all(map(_is_question, value)),
    "tokens": lambda value: isinstance(value, dict) and all(type(count) is int for count in value.values()),
}


def node_path(namespace: str) -> str:
    """The names of the nodes of a checkpoint namespace: `"panel:<id>|expert:<id>"` as `"panel/expert"`."""
    # A part without a name is the number of a graph that a node has called.
    return "/".join(part.partition(":")[0] for part in namespace.split("|") if not part.isdigit())


def node_above(namespace: str) -> str:
    """The namespace of the node around."""
    above = namespace.rpartition("|")[0]
    while above.rpartition("|")[2].isdigit():
        above = above.rpartition("|")[0]
    return above


def plain(value: Any) -> Any:
    """The value as JSON types; what has no JSON form becomes its text."""
    from pydantic_core import to_jsonable_python

    try:
        return to_jsonable_python(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64")
    except Exception:
        # A value of a user's, whose own methods may raise.
        return f"<{type(value).__name__}>"
