"""What a caller calls: a verb of a graph on a host, with its arguments and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.runtime import RunControl

from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["CallSpec"]


@dataclass
class CallSpec:
    """A call of a verb of a graph on the host.

    Attributes:
        agent: the name of the exported graph.
        verb: the graph's method.
        version: what this process speaks.
        run_id: unique for this run.
        path: the nodes from the exported graph to the nested graph that is meant.
        args: positional arguments without the config.
        kwargs: keyword arguments without the config and without `control`.
        config: the run's config; None when the verb takes none.
        is_run: whether the verb runs nodes.
        control: a run control that the user gave; drains cross both ways.
        timeout: seconds for the whole run; None is no limit.
        forward: see `CallerConfig`.
        store_prefix: see `CallerConfig`.
        has_memory: see `CallerConfig`.
    """

    agent: str
    verb: str
    version: pb.Version
    run_id: str
    path: tuple[str, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    config: RunnableConfig | None = None
    is_run: bool = False
    control: RunControl | None = None
    timeout: float | None = None
    forward: frozenset[str] | None = None
    store_prefix: tuple[str, ...] | None = None
    has_memory: bool = False
