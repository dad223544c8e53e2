"""What a host may say to its caller: in events, in parts and in commands, for the namespaces of its node alone.

Everything that a host sends is checked before an object of the caller is touched. A violation is a `ProtocolError`,
which ends the run with a sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from langgraph.errors import InvalidUpdateError, ParentCommand
from langgraph.types import Command, Send, StateSnapshot

from agentmatrix.errors import ProtocolError
from agentmatrix.pregel import config_keys
from agentmatrix.session.namespace_scope import NamespaceScope

__all__ = ["EventScope", "check_command", "check_states"]

_EVENTS: Final[Mapping[str, tuple[int, str | None]]] = {
    "stream": (1, config_keys.STREAM),
    "writer": (2, config_keys.RUNTIME),
    "heartbeat": (0, config_keys.RUNTIME),
    "node_finished": (1, config_keys.NODE_FINISHED),
    "null_resume": (0, config_keys.SCRATCHPAD),
    "visited": (1, config_keys.REPLAY_STATE),
    "drain": (1, None),
    "queue": (1, None),
    "usage": (3, None),
    "callback": (4, None),
    "tap": (3, None),
    "replica": (2, None),
    "seen": (2, None),
    "watched": (2, None),
}
"""How many arguments an event has, and the key of the config whose object it is for."""


class EventScope:
    """Checks the events and the parts of one run.

    Args:
        scope: the namespaces of the node.
        parent_run: the run, in the sense of LangChain's callbacks, that the node's own runs are children of.
        metadata: what the node's own runs inherit; LangChain keeps a namespace of a graph further out in it.
    """

    def __init__(
        self, scope: NamespaceScope, parent_run: UUID | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.scope, self._parent_run, self._inherited = scope, parent_run, dict(metadata or {})

    def check(self, kind: str, args: Any, configurable: Mapping[str, Any]) -> None:
        """Refuses an event that is malformed, not for the host to say, or for an object that was not lent.

        Args:
            kind: of the event.
            args: its arguments.
            configurable: the caller's own, with the objects that it lends.

        Raises:
            ProtocolError: says what it was.
        """
        number, key = _EVENTS.get(kind, (-1, None))
        if type(args) is not tuple or len(args) != number:
            raise ProtocolError(f"the host sent an event of the kind {kind!r} that cannot be read")
        if key is not None and configurable.get(key) is None:
            raise ProtocolError(f"the host sent an event of the kind {kind!r} for an object that is not lent to it")
        if kind == "stream":
            self._check_chunk(args[0], configurable[config_keys.STREAM].modes)
        elif kind == "writer":
            if args[0] is not None:
                self._check_namespace(args[0])
        elif kind == "visited" and not self.scope.is_visit(args[0]):
            self._refuse(args[0])
        elif kind == "queue" and type(args[0]) is not int:
            raise ProtocolError("the host sent an event of the kind 'queue' without a number")
        elif kind in ("node_finished", "drain") and not isinstance(args[0], str):
            raise ProtocolError(f"the host sent an event of the kind {kind!r} without a text")

    def check_replica(self, chunk: Any) -> None:
        """Refuses a part of a stream handler's twin that is for another namespace, or another mode than theirs."""
        self._check_chunk(chunk, ("messages", "tools"))

    def check_callback(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuses a callback event about a run of the caller, or a node outside of the host's own."""
        self.check_run(kwargs.get("run_id"))
        metadata = kwargs.get("metadata")
        if isinstance(metadata, Mapping):
            for key in ("langgraph_checkpoint_ns", "checkpoint_ns"):
                if metadata.get(key) and metadata[key] != self._inherited.get(key):
                    self._check_namespace(metadata[key])
        for arg in args:
            if hasattr(arg, "checkpoint_ns"):  # an interrupt or a resume of a graph
                self._check_namespace(arg.checkpoint_ns)

    def check_run(self, run: object) -> None:
        """Refuses to speak for the caller's own run."""
        if run is not None and run == self._parent_run:
            raise ProtocolError("the host sent an event for a run of its caller")

    def check_part(self, namespace: object) -> None:
        """Refuses a part of another namespace."""
        if namespace != ():
            self._check_namespace(namespace)

    def _check_chunk(self, chunk: Any, modes: Collection[str]) -> None:
        if not isinstance(chunk, tuple) or len(chunk) < 3 or not isinstance(chunk[1], str):
            raise ProtocolError("the host sent a part of a stream that cannot be read")
        self._check_namespace(chunk[0])
        if chunk[1] not in modes:
            raise ProtocolError(f"the host sent a part of the stream mode {chunk[1]!r}, which nobody asked for")

    def _check_namespace(self, namespace: object) -> None:
        if not self.scope.covers(namespace):
            self._refuse(namespace)

    def _refuse(self, namespace: object) -> None:
        raise ProtocolError(
            f"the host spoke for {namespace!r}, and may speak for {self.scope.namespace!r}, its node, and what is below"
        )


def check_states(value: object, scope: NamespaceScope, thread: object) -> None:
    """Refuses states, and configs of states, of another thread or namespace: who reads them may write there next.

    Args:
        value: what a verb that reads or writes state has returned.
        scope: the namespace that was asked for.
        thread: the id of the thread that was asked for.

    Raises:
        ProtocolError: names the thread or the namespace.
    """
    if isinstance(value, StateSnapshot):
        for config in (value.config, value.parent_config):
            check_states(config, scope, thread)
        for task in value.tasks:
            check_states(task.state, scope, thread)
    elif isinstance(value, dict) and isinstance(value.get("configurable"), dict):
        said = value["configurable"]
        if said.get("thread_id") is not None and str(said["thread_id"]) != str(thread):
            raise ProtocolError(f"the host sent a state of the thread {said['thread_id']!r}, not of {thread!r}")
        if said.get("checkpoint_ns") and not scope.covers(said["checkpoint_ns"]):
            raise ProtocolError(
                f"the host sent a state of {said['checkpoint_ns']!r}, not of {scope.namespace!r} or what is below"
            )


def check_command(error: ParentCommand, scope: NamespaceScope, targets: Collection[str] | None) -> None:
    """Refuses a command to another graph than the parent of the node, or to a node that is not among its destinations.

    Args:
        error: the command as a host has sent it.
        scope: the namespaces of the node.
        targets: what the node declares as its destinations; None where it declares nothing.

    Raises:
        ProtocolError: the command is for another graph.
        InvalidUpdateError: names the target that is not declared.
    """
    command = error.args[0] if len(error.args) == 1 else None
    if not isinstance(command, Command):
        raise ProtocolError("the host sent a command that cannot be read")
    if not scope.commands(command.graph):
        raise ProtocolError(
            f"the host sent a command for the graph {command.graph!r}; a remote agent commands its direct parent alone"
        )
    if targets is None:
        return
    goto = command.goto if isinstance(command.goto, (list, tuple)) else [command.goto]
    for target in goto:
        name = target.node if isinstance(target, Send) else target
        if name not in targets and str(name).partition("/")[0] not in targets:  # an actor has its node declared
            raise InvalidUpdateError(
                f"the remote agent leads to {name!r}, which is not among the destinations= of its node"
            )
