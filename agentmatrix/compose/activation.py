"""What a node can know of its own activation: which trigger group fired, and what each source delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langgraph.config import get_config

from agentmatrix.compose.entries import Firing, Item, Pending
from agentmatrix.compose.ledger import Ledger
from agentmatrix.compose.triggered import TriggeredLedger
from agentmatrix.pregel.task_config import node_config, node_of, read_channel, send_index

__all__ = ["LEDGER", "Activation", "activation_of", "error_of", "get_activation"]

LEDGER = "dag:ledger"


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
        RuntimeError: no node of a `Dag`, or of a `CyclicGraph` with triggers, is at work here.
    """
    try:
        config = node_config(get_config())
        found: Any = read_channel(config, LEDGER)
    except (KeyError, RuntimeError):
        raise RuntimeError(
            "get_activation() tells what started a node, and works only in a node of a Dag, or of a CyclicGraph that "
            "has triggers, and in what it calls; a graph that stands in such a node is told by its input_map="
        ) from None
    node = str(node_of(config))
    if isinstance(found, Ledger):
        packet = send_index(config)
        pending = None if packet is None else found.plan().pending[packet]
        return activation_of(found, node, None if pending else _due(found, node), pending)
    activation: Activation = found.activated(node)
    return activation


def error_of(found: Any, node: str) -> Exception | None:
    """What a node raises instead of running, of the ledger or the reading that its task has."""
    if isinstance(found, Ledger):
        firing = _due(found, node)
        return firing.error if firing else None
    error: Exception | None = found.error(node)
    return error


def _due(ledger: Ledger, node: str) -> Firing | None:
    return next((firing for firing in ledger.plan().fired if firing.node == node), None)


def activation_of(ledger: Ledger, node: str, firing: Firing | None, packet: Pending | None) -> Activation:
    """The activation of a node that is about to run.

    Args:
        ledger: the ledger as it was when the node became ready.
        node: the node.
        firing: what trigger groups have started, if it is that.
        packet: the packet that started it, if one did.
    """
    if packet is not None:
        return Activation(node, packet.number)
    if firing is None:
        return Activation(node, ledger.times(node) + 1, None, _values(ledger, ledger.delivered_to(node)))
    return Activation(node, firing.number, firing.group, _values(ledger, firing.items))


def _values(ledger: Ledger, items: Mapping[str, Item]) -> dict[str, Any]:
    return {label: _value(ledger, label, item) for label, item in items.items()}


def _value(ledger: Ledger, label: str, item: Item) -> Any:
    if item.number and isinstance(ledger, TriggeredLedger):
        return ledger.arrivals.value(label, item)
    updates = [dict(ledger.activations[i].writes) for i in item.entries]
    return updates if item.several else updates[0]
