"""`print_mode` and `debug` of a remote run: printed by the caller, not on the host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.utils.input import get_bolded_text, get_colored_text

from agentmatrix.stream_modes import StreamModes

__all__ = ["aprinted", "printed", "wants_printing"]


def wants_printing(kwargs: dict[str, Any]) -> bool:
    """Whether a verb was asked to print."""
    return bool(kwargs.get("print_mode") or kwargs.get("debug"))


def _pop_print_modes(kwargs: dict[str, Any], default: Any) -> tuple[set[str], StreamModes]:
    """The modes to print, and the parts to ask for. Removes the printing options from the keyword arguments."""
    asked = kwargs.pop("print_mode", None) or ()
    if kwargs.pop("debug", None):
        asked = ["updates", "values"]
    modes = {asked} if isinstance(asked, str) else set(asked)
    return modes, StreamModes(kwargs, default, sorted(modes))


def printed(stream: Callable[..., Iterator[Any]], kwargs: dict[str, Any], default: Any) -> Iterator[Any]:
    """Streams with the keyword arguments; prints the parts of some modes and yields the parts of others."""
    modes, parts = _pop_print_modes(kwargs, default)
    for part in stream(**parts.kwargs):
        if _print(parts, part, modes):
            yield parts.project(part)


async def aprinted(
    stream: Callable[..., AsyncIterator[Any]], kwargs: dict[str, Any], default: Any
) -> AsyncIterator[Any]:
    """The same, asynchronously."""
    modes, parts = _pop_print_modes(kwargs, default)
    async for part in stream(**parts.kwargs):
        if _print(parts, part, modes):
            yield parts.project(part)


def _print(parts: StreamModes, part: Any, modes: set[str]) -> bool:
    """Prints a part as langgraph does; returns whether it is to be yielded as well."""
    namespace, mode, payload = parts.read(part)
    if mode in modes:
        graph = [get_colored_text(f"[graph={namespace}]", color="yellow")] if namespace else []
        print(" ".join([get_bolded_text(f"[{mode}]"), *graph, repr(payload)]))  # noqa: T201 - asked for by print_mode
    return not parts.is_extra(mode)
