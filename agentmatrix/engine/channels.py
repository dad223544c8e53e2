"""The one hidden channel of a graph, empty unless a run is paused; and what never changes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.channels.base import BaseChannel
from langgraph.errors import EmptyChannelError

from agentmatrix.pregel.compiled_graph import branch_channel
from agentmatrix.pregel.execution import MISSING
from agentmatrix.scheduling.graph_scheduler import RulesFactory
from agentmatrix.scheduling.state import StateKeys
from agentmatrix.scheduling.topology import Topology

__all__ = ["HELD", "REACHED_END", "RUN", "RunChannel", "Schedule", "dismissal", "dismissed_by", "is_record"]

RUN = "agentmatrix:run"
"""The name of the hidden channel. A task reads its own activation under it."""
REACHED_END = "reached END"
"""What a task writes to it when a router or a command of it has led to END."""
_DISMISSED = "dismissed "
HELD = "agentmatrix:held"
"""Under this name lies, beside a checkpoint, what graphs inside a node have sent while the node is at work."""


def is_record(channel: str, value: Any) -> bool:
    """Whether a write of a task is what was decided because it has ended."""
    return channel == RUN and isinstance(value, Mapping)


def dismissal(path: str) -> tuple[str, str]:
    """What a task writes that dismisses an actor."""
    return RUN, _DISMISSED + path


def dismissed_by(channel: str, value: Any) -> str | None:
    """The path of the actor that a write dismisses, or None."""
    if channel != RUN or not isinstance(value, str) or not value.startswith(_DISMISSED):
        return None
    return value.removeprefix(_DISMISSED)


InputRouter = Callable[[Mapping[str, Any], RunnableConfig], list[tuple[str, Any]] | None]
"""See `Schedule.route_input`."""


@dataclass(frozen=True)
class Schedule:
    """What never changes of a graph: made once, when it is compiled.

    Attributes:
        topology: its shape.
        keys: how the channels of its state take writes.
        rules: makes the rules that start its nodes.
        joins: by channel of a join (an edge from several nodes), the node that it leads to.
        barriers: whether all that becomes ready in a step waits for the step to end.
        untraced: by name, its nodes for a run that nobody watches.
        write_input: what START writes of a run's input; None where LangGraph is to run it.
        route_input: what START writes in place of its edges, of the state after the input and the config of the run;
            None where its edges lead on.
    """

    topology: Topology
    keys: StateKeys
    rules: RulesFactory
    joins: Mapping[str, str]
    barriers: bool = False
    untraced: Mapping[str, Any] = field(default_factory=dict)
    write_input: Callable[[Any], list[tuple[str, Any]]] | None = None
    route_input: InputRouter | None = None

    @cached_property
    def branch_channels(self) -> Sequence[tuple[str, str]]:
        """The nodes, each with the channel that an edge, a router or a command writes to."""
        return [(node, branch_channel(node)) for node in self.topology.nodes]

    @cached_property
    def joins_of(self) -> Mapping[str, Sequence[str]]:
        """By node that joins lead to, the channels of these."""
        found: dict[str, list[str]] = {}
        for join, node in self.joins.items():
            found.setdefault(node, []).append(join)
        return found

    @cached_property
    def targets(self) -> Mapping[str, str]:
        """By channel that an edge, a router or a command writes to, the node that it leads to."""
        return {channel: node for node, channel in self.branch_channels}


class RunChannel(BaseChannel[Any, Any, Any]):
    """What a paused run needs besides its state; empty at all other times.

    Args:
        schedule: that of the graph.
        value: what a pause has kept.
    """

    __slots__ = ("schedule", "value")

    def __init__(self, schedule: Schedule, value: Any = MISSING) -> None:
        super().__init__(dict, RUN)
        self.schedule, self.value = schedule, value

    @property
    def ValueType(self) -> Any:
        return dict

    @property
    def UpdateType(self) -> Any:
        return dict

    def copy(self) -> Self:
        return type(self)(self.schedule, self.value)

    def checkpoint(self) -> Any:
        return self.value

    def from_checkpoint(self, checkpoint: Any) -> Self:
        return type(self)(self.schedule, checkpoint)

    def get(self) -> Any:
        if self.value is MISSING:
            raise EmptyChannelError
        return self.value

    def is_available(self) -> bool:
        return self.value is not MISSING

    def update(self, values: Sequence[Any]) -> bool:
        # LangGraph says so when a step has passed without us, as by `update_state`. That empties the triggers of all
        # nodes that wait; the new version tells that those which are kept here still stand.
        return self.value is not MISSING

    def clear(self) -> None:
        """The run is over."""
        self.value = MISSING

    def stand_for(self, writes: Mapping[str, Sequence[tuple[str, Any]]]) -> None:
        """Somebody has written in the name of these nodes: they are not to run any more.

        Args:
            writes: by node, what was written.
        """
        seen = {node: version for node, version in self.value["seen"].items() if node not in writes}
        kept = {
            node: [[key, value] for key, value in written if key not in self.schedule.keys.untracked]
            for node, written in writes.items()
            if node in self.value["seen"]
        }
        updates = {**self.value.get("updates", {}), **kept}
        done = sorted({*self.value.get("done", ()), *writes})
        self.value = {**self.value, "seen": seen, "done": done, "updates": updates}
