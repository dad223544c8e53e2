"""What a nested graph has written: it returns its whole state, and its parent must tell a write from an input.

A key counts as written if the version of its channel rose above that of the input, which is exact in a fresh run and in
a resumed one. The graph's own loop says so when it ends, to a list that its parent has put into the config.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import CancelledError
from functools import cache
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.constants import START
from langgraph.pregel import Pregel

from agentmatrix.pregel.execution import CONF, AsyncPregelLoop, PregelLoop, SyncPregelLoop, unless, with_globals

__all__ = [
    "IS_CANCELLED",
    "WRITTEN_KEYS",
    "WrittenKeysLoop",
    "observed",
    "observed_if_asked",
    "only_written",
    "with_written_keys",
]

WRITTEN_KEYS = "__pregel_agentmatrix_written_keys"
"""The key in `config["configurable"]` of the list that a graph fills. With LangGraph's own prefix it stays out of
metadata, savers and the wire."""
IS_CANCELLED = "__pregel_agentmatrix_is_cancelled"
"""The key of a function that says, in a thread, whether the graph's work is wanted no more."""


class WrittenKeysLoop(PregelLoop):
    """A loop that says which keys its graph has written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._written_keys: list[frozenset[str]] | None = self.config[CONF].get(WRITTEN_KEYS)
        if self._written_keys is not None:
            # It is asked of this graph alone, not of those inside.
            configurable = {key: value for key, value in self.config[CONF].items() if key != WRITTEN_KEYS}
            self.config = {**self.config, CONF: configurable}

    def _suppress_interrupt(self, *exit: Any) -> bool | None:
        if self._written_keys is not None and exit[0] is None:
            versions: dict[str, Any] = dict(self.checkpoint["channel_versions"])
            began = versions.get(START)
            if began is not None:
                self._written_keys.append(frozenset(key for key, version in versions.items() if version > began))
        return super()._suppress_interrupt(*exit)


class _ObservedSyncLoop(WrittenKeysLoop, SyncPregelLoop):
    """A loop that begins no step and no try any more when its graph is cancelled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_cancelled: Callable[[], bool] | None = self.config[CONF].get(IS_CANCELLED)

    def tick(self) -> bool:
        if self._is_cancelled is None:
            return super().tick()
        if self._is_cancelled():
            raise CancelledError
        goes_on = super().tick()
        for id, task in self.tasks.items():
            if task.retry_policy or self.retry_policy:
                self.tasks[id] = unless(self._is_cancelled, task)
        return goes_on


class _ObservedAsyncLoop(WrittenKeysLoop, AsyncPregelLoop):
    pass


class _ObservedPregel(Pregel[Any, Any, Any, Any]):
    stream: Any = with_globals(Pregel.stream, SyncPregelLoop=_ObservedSyncLoop)
    astream: Any = with_globals(Pregel.astream, AsyncPregelLoop=_ObservedAsyncLoop)


def observed(graph: Any) -> Any:
    """The graph, or a copy of it that runs the same and says what it has written; None for one that cannot say it."""
    kind = type(graph)
    if getattr(kind, "reports_written_keys", False):
        return graph
    if not isinstance(graph, Pregel) or not isinstance(graph.output_channels, list):
        return None
    if kind.stream is not Pregel.stream or kind.astream is not Pregel.astream:
        return None
    copy: Any = object.__new__(_observed_class(cast(Hashable, kind)))
    copy.__dict__.update(graph.__dict__)
    return copy


def observed_if_asked(graph: Any, config: RunnableConfig, is_cancelled: Callable[[], bool] | None) -> Any:
    """The graph, as one that says what it has written if the config asks for that; one that cannot is asked no more.

    Args:
        graph: the graph.
        config: the config that it is to run with.
        is_cancelled: as of `IS_CANCELLED`.
    """
    configurable: dict[str, Any] = config.get("configurable", {})
    if WRITTEN_KEYS not in configurable:
        return graph
    reporting = observed(graph)
    if reporting is None:
        del configurable[WRITTEN_KEYS]
    else:
        configurable[IS_CANCELLED] = is_cancelled
    return reporting or graph


@cache
def _observed_class(kind: Any) -> Any:
    return type(kind.__name__, (_ObservedPregel, kind), {"__module__": kind.__module__})


def with_written_keys(
    config: RunnableConfig, into: list[frozenset[str]], is_cancelled: Callable[[], bool] | None = None
) -> RunnableConfig:
    """The config of a graph that is to say what it has written.

    Args:
        config: the config of the node that it is in.
        into: the list that it fills.
        is_cancelled: as of `IS_CANCELLED`.
    """
    return {**config, CONF: {**config.get(CONF, {}), WRITTEN_KEYS: into, IS_CANCELLED: is_cancelled}}


def only_written(result: Any, said: list[frozenset[str]], besides: frozenset[str] = frozenset()) -> Any:
    """Of what a graph has returned, the keys that it has written, and some besides; all where it has not said which."""
    if not said or not isinstance(result, Mapping):
        return result
    return {key: value for key, value in result.items() if key in said[-1] or key in besides}
