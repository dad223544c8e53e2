"""Run controls that tell of a drain request: LangGraph's `RunControl` has slots and no hook.

A drain may be requested from any thread. `request_drain` runs its listeners on that thread, in the order of
`watch_drain`.
"""

from __future__ import annotations

from collections.abc import Callable

from langgraph.runtime import RunControl

__all__ = ["RunControlProxy", "WatchedRunControl", "set_drained", "watch_drain"]


class WatchedRunControl(RunControl):
    """A `RunControl` that tells its listeners of a drain request. `watch_drain` turns a plain one into this."""

    __slots__ = ()

    def request_drain(self, reason: str = "shutdown") -> None:
        super().request_drain(reason)
        _tell_listeners(self, reason)


class RunControlProxy(RunControl):
    """A run control on the host: a drain that is requested there is told to the caller.

    Args:
        on_drain: called with the reason of a drain that is requested on the host.
    """

    __slots__ = ("_on_drain",)

    def __init__(self, on_drain: Callable[[str], None]) -> None:
        super().__init__()
        self._on_drain = on_drain

    def request_drain(self, reason: str = "shutdown") -> None:
        super().request_drain(reason)
        _tell_listeners(self, reason)
        self._on_drain(reason)


# By id: a control has slots, and no weak references.
_drain_listeners: dict[int, list[Callable[[str], None]]] = {}


def _tell_listeners(control: RunControl, reason: str) -> None:
    for listener in list(_drain_listeners.get(id(control), ())):
        listener(reason)


def watch_drain(control: RunControl, listener: Callable[[str], None]) -> Callable[[], None]:
    """Calls `listener(reason)` when a drain of this control is requested; returns what ends the watching.

    The class of a plain control is exchanged for a subclass of the same layout.
    """
    if type(control) is RunControl:
        control.__class__ = WatchedRunControl
    listeners = _drain_listeners.setdefault(id(control), [])
    listeners.append(listener)

    def unwatch() -> None:
        listeners.remove(listener)
        if not listeners:
            _drain_listeners.pop(id(control), None)

    return unwatch


def set_drained(control: RunControl, reason: str) -> None:
    """Requests a drain of a proxy without telling its caller: the request came from there."""
    RunControl.request_drain(control, reason)
    _tell_listeners(control, reason)
