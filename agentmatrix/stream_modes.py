"""Stream modes: asks a graph for more modes than the reader wants, and gives the reader the parts that it asked for.

The shape of a part depends on how the stream was asked for (one mode or a list, subgraphs, version). It is read and
restored here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

__all__ = ["StreamModes", "SuperstepBoundary"]

_UNKNOWN: Final = object()


class StreamModes:
    """The modes that a reader asked for, and the modes that were added for the framework's own use.

    Args:
        kwargs: the keyword arguments of `stream` or `astream`, as the reader gave them.
        default: the mode that an omitted `stream_mode` means.
        extra: modes to add.

    Attributes:
        kwargs: the keyword arguments to stream with.
    """

    def __init__(self, kwargs: dict[str, Any], default: Any, extra: Sequence[str]) -> None:
        asked = kwargs.get("stream_mode")
        asked = default if asked is None else asked
        self._modes = [asked] if isinstance(asked, str) else list(asked)
        # LangGraph names the mode in each part only if it got a list: not for a tuple, not for a single mode.
        self._names_mode = isinstance(asked, list)
        self._subgraphs = bool(kwargs.get("subgraphs"))
        self._v2 = kwargs.get("version") == "v2"
        self.kwargs = {**kwargs, "stream_mode": [*self._modes, *(mode for mode in extra if mode not in self._modes)]}

    def read(self, part: Any) -> tuple[tuple[str, ...], str, Any]:
        """Namespace, mode and payload of a part."""
        if self._v2:
            return part["ns"], part["type"], part["data"]
        if self._subgraphs:
            namespace, mode, payload = part
            return namespace, mode, payload
        mode, payload = part
        return (), mode, payload

    def is_extra(self, mode: str) -> bool:
        """Whether the mode was added, so that its parts are not for the reader."""
        return mode not in self._modes

    def project(self, part: Any) -> Any:
        """The part in the shape that the reader asked for."""
        if self._v2 or self._names_mode:
            return part
        namespace, _, payload = self.read(part)
        return (namespace, payload) if self._subgraphs else payload


class SuperstepBoundary:
    """Finds the places in a stream where a local generator would wait for its reader: before a superstep's tasks start.

    LangGraph's generators are lazy by superstep. While the reader holds a part back, the current step runs to its end
    and the next one does not start. So a host sends freely within a step, and waits for the reader between two steps.

    Args:
        kwargs: the keyword arguments of `stream` or `astream`, as the reader gave them.
        default: the mode that an omitted `stream_mode` means.

    Attributes:
        modes: the modes to stream with.
    """

    def __init__(self, kwargs: dict[str, Any], default: Any) -> None:
        self.modes = StreamModes(kwargs, default, ("tasks",))
        # The namespace of the graph that streams: that of its first part.
        self._root: Any = _UNKNOWN

    def read(self, part: Any) -> tuple[Any, bool, bool]:
        """The part as the reader sees it, whether the reader asked for it, and whether a step is about to start."""
        namespace, mode, payload = self.modes.read(part)
        if self._root is _UNKNOWN:
            self._root = namespace
        starts = namespace == self._root and _is_task_start(mode, payload)
        if self.modes.is_extra(mode):
            return None, False, starts
        return self.modes.project(part), True, starts


def _is_task_start(mode: str, payload: Any) -> bool:
    if mode == "debug":
        return isinstance(payload, dict) and payload.get("type") == "task"
    return mode == "tasks" and isinstance(payload, dict) and "triggers" in payload
