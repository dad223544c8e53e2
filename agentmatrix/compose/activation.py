"""What a node can know of its own activation: which trigger group fired, and what each source delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langgraph.config import get_config
from langgraph.errors import EmptyChannelError

from agentmatrix.engine.channels import RUN
from agentmatrix.pregel.task_config import read_channel

__all__ = ["Activation", "get_activation"]


@dataclass(frozen=True)
class Activation:
    """One run of a node, and what started it.

    Attributes:
        node: the node.
        number: which of its activations in this run it is, from 1.
        group: the name of the trigger group that fired; None where an edge, a `Send` or a command started the node.
        items: by label of the source, what it delivered: of a node its update, as a dict; of a node that `Send` has
            started several times the list of those, in Send order; of a signal its value; of a timer how often it has
            fired. A source without an item is not in it.
    """

    node: str
    number: int = 1
    group: str | None = None
    items: Mapping[str, Any] = field(default_factory=dict)


def get_activation() -> Activation:
    """The activation of the node that this is called in, by itself, by a tool or by a `@task` that it calls.

    The nodes and tools of a graph that stands in a node cannot ask for the activation of that node, wherever the graph
    runs: `input_map=` hands them what they are to know.

    Raises:
        RuntimeError: no node of a `Dag` or a `CyclicGraph` is at work here.
    """
    try:
        activation, given = read_channel(get_config(), RUN)
    except (KeyError, RuntimeError, EmptyChannelError, TypeError):
        raise RuntimeError(
            "get_activation() tells what started a node, and works only in a node of a Dag or a CyclicGraph, and in "
            "what it calls; a graph that stands in such a node is told by its input_map="
        ) from None
    return Activation(activation.node, activation.number, activation.group, given(activation))
