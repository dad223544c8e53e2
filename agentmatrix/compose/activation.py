"""What a node can know of its own activation: which trigger group fired, and what each source delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from langgraph.config import get_config
from langgraph.errors import EmptyChannelError

from agentmatrix.engine.channels import RUN
from agentmatrix.errors import SendError
from agentmatrix.live.send_scope import Sender, SendScope, current_send_scope
from agentmatrix.pregel.task_config import read_channel

__all__ = ["Activation", "get_activation"]

_NONE_HERE = (
    "get_activation() tells what started a node, and works only in a node of a Dag or a CyclicGraph, and in "
    "what it calls; a graph that stands in such a node is told by its input_map="
)


@dataclass(frozen=True)
class Activation:
    """One run of a node, and what started it.

    Attributes:
        node: the node; of an actor its path, `"staff/ann"`.
        number: which of its activations in this run it is, from 1; of an actor, which of its messages.
        group: the name of the trigger group that fired; None where an edge, a `Send` or a command started the node.
        items: by label of the source, what it delivered: of a node its update, as a dict; of a node that `Send` has
            started several times the list of those, in Send order; of a signal its value; of a timer how often it has
            fired. A source without an item is not in it.
        key: of an actor its key, `"ann"`.
        sender: of an actor, the path of whoever has sent the message; None for the run's input.
        message: of an actor, what was sent.
        hired_by: of an actor, the path of whoever has sent its first message; None for the run's input.
    """

    node: str
    number: int = 1
    group: str | None = None
    items: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    sender: str | None = None
    message: Any = None
    hired_by: str | None = None

    def send(self, path: str, value: Any) -> None:
        """Send to a node, or to an actor, of this graph or of one around it. What is sent starts when this activation
        has ended, and is saved with it: an activation that fails, or is asked once more after a kill, has sent nothing.

        Args:
            path: a node, `"office"`, or an actor, `"staff/ann"`. The innermost graph that has it counts.
            value: what the node is given, as by LangGraph's `Send`; for an actor a text, a message, several, or a dict
                of its state.

        Raises:
            SendError: nobody takes it: the message says why.
            BoundError: it would hire one actor too many.
        """
        _scope_for(path).send(path, value, Sender.of(get_config()))

    async def asend(self, path: str, value: Any) -> None:
        """The same as `send`, async: it does not hold up the event loop where a host has to answer."""
        await _scope_for(path).asend(path, value, Sender.of(get_config()))

    def dismiss(self, path: str) -> None:
        """Let an actor take no more messages, from when this activation has ended. What it has not read is dropped.

        Raises:
            SendError: there is no such actor.
        """
        _scope_for(path).dismiss(path, Sender.of(get_config()))

    async def adismiss(self, path: str) -> None:
        """The same as `dismiss`, async."""
        await _scope_for(path).adismiss(path, Sender.of(get_config()))


def _scope_for(path: str) -> SendScope:
    if (scope := current_send_scope.get()) is None:
        raise RuntimeError(_NONE_HERE)
    if not isinstance(path, str):
        raise SendError(f"{path!r} is no path: name a node, as in 'office', or an actor, as in 'staff/ann'")
    return scope


class _InnerActivation(Activation):
    """That of a node of another graph, which stands in a node of a `Dag` or a `CyclicGraph`: it can send."""

    def __init__(self) -> None:
        """Nothing is known of it."""

    def __getattribute__(self, name: str) -> Any:
        if name in Activation.__dataclass_fields__:
            _raise_none_here()
        return super().__getattribute__(name)


def _raise_none_here() -> NoReturn:
    raise RuntimeError(_NONE_HERE)


def get_activation() -> Activation:
    """The activation of the node that this is called in, by itself, by a tool or by a `@task` that it calls.

    The nodes and tools of a graph that stands in a node cannot ask for the activation of that node, wherever the graph
    runs: `input_map=` hands them what they are to know. They can send.

    Raises:
        RuntimeError: no node of a `Dag` or a `CyclicGraph` is at work here.
    """
    try:
        activation, given = read_channel(get_config(), RUN)
    except (KeyError, RuntimeError, EmptyChannelError, TypeError):
        if current_send_scope.get() is not None:
            return _InnerActivation()
        raise RuntimeError(_NONE_HERE) from None
    if (message := activation.message) is None:
        return Activation(activation.node, activation.number, activation.group, given(activation))
    return Activation(
        message.path,
        activation.number,
        key=message.path.partition("/")[2],
        sender=message.sender or None,
        message=message.value,
        hired_by=message.hired_by or None,
    )
