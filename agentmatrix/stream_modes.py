"""Reads and widens the modes of a stream, whose parts change shape with how the stream was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from typing import Any, Final

from langgraph.types import GraphOutput

__all__ = ["Parts", "Steps", "standing", "withdrawn"]

_NOTHING: Final = object()
_INTERRUPT: Final = "__interrupt__"

withdrawn: ContextVar[set[str] | None] = ContextVar("withdrawn", default=None)
"""Where whoever makes a result of a stream is told the ids of interrupts that nobody is to answer any more."""


class Parts:
    """The parts of a stream that was asked for with more modes than its reader wants to see.

    Args:
        kwargs: the keyword arguments of `stream` or `astream`.
        default: the mode that an omitted `stream_mode` means.
        extra: modes to add.

    Attributes:
        widened: the keyword arguments to ask with.
    """

    def __init__(self, kwargs: dict[str, Any], default: Any, extra: Sequence[str]) -> None:
        asked = kwargs.get("stream_mode")
        asked = default if asked is None else asked
        self._modes = [asked] if isinstance(asked, str) else list(asked)
        # Only a list makes langgraph name the mode in each part; a tuple or a single mode does not.
        self._names_mode = isinstance(asked, list)
        self._subgraphs = bool(kwargs.get("subgraphs"))
        self._v2 = kwargs.get("version") == "v2"
        self.widened = {**kwargs, "stream_mode": [*self._modes, *(mode for mode in extra if mode not in self._modes)]}

    def read(self, part: Any) -> tuple[tuple[str, ...], str, Any]:
        """Namespace, mode and payload of a part."""
        if self._v2:
            return part["ns"], part["type"], part["data"]
        if self._subgraphs:
            namespace, mode, payload = part
            return namespace, mode, payload
        mode, payload = part
        return (), mode, payload

    def hidden(self, mode: str) -> bool:
        """Whether the reader did not ask for this mode."""
        return mode not in self._modes

    def shown(self, part: Any) -> Any:
        """The part in the shape that the reader asked for."""
        if self._v2 or self._names_mode:
            return part
        namespace, _, payload = self.read(part)
        return (namespace, payload) if self._subgraphs else payload


class Steps:
    """Finds the places in a stream where a local generator would wait for its reader: before a superstep's tasks start.

    langgraph's generators are lazy by superstep: with a part held back, the current step runs to its end and the next
    does not start. So a host sends on freely within a step, and waits for the reader when the next one is ready.
    """

    def __init__(self, kwargs: dict[str, Any], default: Any) -> None:
        self.parts = Parts(kwargs, default, ("tasks",))
        self._root: Any = _NOTHING

    def take(self, part: Any) -> tuple[Any, bool, bool]:
        """Returns the part as the reader sees it, whether it is to be shown, and whether a step is about to start."""
        namespace, mode, payload = self.parts.read(part)
        if self._root is _NOTHING:
            self._root = namespace
        starts = namespace == self._root and _is_task_start(mode, payload)
        if self.parts.hidden(mode):
            return None, False, starts
        return self.parts.shown(part), True, starts


def _is_task_start(mode: str, payload: Any) -> bool:
    if mode == "debug":
        return isinstance(payload, dict) and payload.get("type") == "task"
    return mode == "tasks" and isinstance(payload, dict) and "triggers" in payload


def standing(result: Any, gone: Collection[str]) -> Any:
    """What `invoke` returns, without the interrupts of nodes that were called off after they had paused."""
    if gone and isinstance(result, GraphOutput):
        return dataclasses.replace(result, interrupts=tuple(i for i in result.interrupts if i.id not in gone))
    if gone and isinstance(result, dict) and _INTERRUPT in result:
        left = [interrupt for interrupt in result[_INTERRUPT] if interrupt.id not in gone]
        others = {key: value for key, value in result.items() if key != _INTERRUPT}
        return {**others, _INTERRUPT: left} if left else others
    return result
