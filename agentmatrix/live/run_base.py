"""What async and sync live runs share: the config of the run, its signals, its parts, its result and its failure.

One driver (an asyncio task, or a thread) streams the graph and calls `_on_part` and `_end`. Readers and senders call
the other methods: of an async run on its event loop, of a sync run on any thread. Parts go from the driver to the
reader through a deque; `_notify` wakes readers after each change of `_parts` or `_ended`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from langgraph.types import GraphOutput

from agentmatrix.errors import SignalError
from agentmatrix.interrupts import remaining_interrupts
from agentmatrix.live.address import check_address
from agentmatrix.live.signal_router import SIGNAL_ROUTER, SignalRouter, node_path
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.config_values import ensure_config
from agentmatrix.stream_modes import StreamModes

__all__ = ["END_OF_PARTS", "LiveRunBase", "timed_out"]

END_OF_PARTS: Final = object()


class LiveRunBase:
    """A live run that has been entered.

    Args:
        graph: a compiled graph.
        input: as of `astream`.
        config: as of `astream`.
        kwargs: keyword arguments of `astream`.
    """

    def __init__(self, graph: Any, input: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> None:
        inherited = ensure_config(graph.config, config).get("configurable") or {}
        self._namespace: str = inherited.get(config_keys.CHECKPOINT_NS) or ""
        self._router = SignalRouter(node_path(self._namespace))
        self._graph, self._input, self._kwargs = graph, input, dict(kwargs)
        self._config = config
        if inherited or not isinstance(graph.checkpointer, BaseCheckpointSaver):
            # Otherwise `configurable` stays empty, so that LangGraph says that a checkpointer needs a thread_id.
            configurable = {**(config or {}).get("configurable", {}), SIGNAL_ROUTER: self._router}
            self._config = {**(config or {}), "configurable": configurable}
        self._control: RunControl = self._kwargs.setdefault("control", RunControl())
        self._result: _StreamResult | None = None
        self._parts: deque[Any] = deque()
        self._checked_addresses: set[str] = set()
        self._ended = self._failure_raised = self._stopped = self._cancelled = False
        self._failure: BaseException | None = None
        self._cancelled_interrupts: set[str] = set()

    def close_input(self) -> None:
        """No more signals will come: the run ends once nothing in it runs or can start. Idempotent."""
        self._router.close()

    def _send(self, address: str, value: Any, id: str) -> Future[None]:
        for name, given in (("address", address), ("id", id)):
            if not isinstance(given, str):
                raise SignalError(f"the {name} of a signal is a str, not {given!r}")
        if address not in self._checked_addresses:
            check_address(self._graph, address)
            self._checked_addresses.add(address)
        return self._router.send(address, value, id)

    def _drain(self, reason: str) -> None:
        self._control.request_drain(reason)
        self._router.close()

    # called by the driver

    def _stream_kwargs(self) -> dict[str, Any]:
        """The keyword arguments to stream with: the reader's modes, and the modes that the result is made from."""
        namespace = tuple(self._namespace.split(config_keys.NS_SEP)) if self._namespace else ()
        self._result = _StreamResult(self._kwargs, self._graph.stream_mode, namespace)
        return self._result.modes.kwargs

    def _on_part(self, part: Any) -> None:
        assert self._result is not None
        if self._result.add(part):
            self._parts.append(self._result.modes.project(part))
            self._notify()

    def _end(self, failure: BaseException | None) -> None:
        self._failure, self._ended = failure, True
        reason: BaseException = SignalError("the run has ended")
        if self._cancelled or isinstance(failure, asyncio.CancelledError):
            reason = SignalError("the run was cancelled")
        elif isinstance(failure, GraphDrained):
            reason = SignalError("the run was stopped")
        elif failure is not None:
            reason = failure
        self._router.end(reason)
        self._notify()

    def _notify(self) -> None:
        """Wakes the readers: there is a new part, or the run has ended."""
        raise NotImplementedError

    # called by readers

    def _next_part(self) -> Any:
        """The next part that was streamed. After the last one raises the failure of the run, or is END_OF_PARTS."""
        if self._parts:
            return self._parts.popleft()
        failure = self._failure_to_raise()
        if failure is not None:
            self._failure_raised = True
            raise failure
        return END_OF_PARTS

    def _final_value(self) -> Any:
        """What `invoke` would return or raise, once the run has ended."""
        if self._failure is not None:
            self._failure_raised = True
            raise self._failure
        if self._result is None:
            return None
        return remaining_interrupts(self._result.value(), self._cancelled_interrupts)

    def _failure_to_raise(self) -> BaseException | None:
        """The failure of the run, unless it is the drain that `stop` asked for."""
        return None if self._stopped and isinstance(self._failure, GraphDrained) else self._failure

    def _raise_unseen_failure(self, error: BaseException | None) -> None:
        """Raises the failure of a run that has ended, if it was not raised yet, when the block is left.

        Args:
            error: the exception that leaves the block. A SignalError that the failure has caused gives way to it; any
                other exception gets a note.
        """
        failure = None if self._failure_raised else self._failure_to_raise()
        if failure is None:
            return
        if error is None or (isinstance(error, SignalError) and error.__cause__ is failure):
            if error is not None:
                error.__cause__ = None
            raise failure
        error.add_note(f"before this, the live run had failed with {type(failure).__name__}: {failure}")


class _StreamResult:
    """The value that `invoke` would return, collected from the parts of a stream."""

    def __init__(self, kwargs: dict[str, Any], default: Any, namespace: tuple[str, ...]) -> None:
        self.modes = StreamModes(kwargs, default, ("values", "updates"))
        self._root = namespace if kwargs.get("subgraphs") or kwargs.get("version") == "v2" else ()
        self._v2 = kwargs.get("version") == "v2"
        self._latest: Any = None
        self._interrupts: list[Any] = []

    def add(self, part: Any) -> bool:
        """Adds a part; returns whether the reader asked for it."""
        namespace, mode, payload = self.modes.read(part)
        if tuple(namespace) == self._root:
            if mode == "values":
                self._latest = payload
                self._interrupts.extend(part.get("interrupts", ()) if self._v2 else ())
            elif mode == "updates" and not self._v2 and isinstance(payload, dict):
                self._interrupts.extend(payload.get("__interrupt__") or ())
        return not self.modes.is_extra(mode)

    def value(self) -> Any:
        if self._v2:
            return GraphOutput(value=self._latest, interrupts=tuple(self._interrupts))
        if not self._interrupts:
            return self._latest
        return {**(self._latest if isinstance(self._latest, dict) else {}), "__interrupt__": self._interrupts}


def timed_out(address: str, id: str, timeout: float | None) -> TimeoutError:
    """The error for a signal that was not acknowledged in time."""
    return TimeoutError(
        f"the signal {address!r} was not acknowledged within {timeout:g} s; it may have been taken all the same. Sent "
        f"again with id={id!r} it counts once"
    )
