"""Who the actors of a thread are: what `graph.actors(config)` tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig

from agentmatrix.compose.actor_node import ActorNode
from agentmatrix.engine.actor_states import ActorState, ActorStates
from agentmatrix.engine.actors_loop import staff_config, staff_in
from agentmatrix.engine.checkpoint import schedule_of
from agentmatrix.engine.state_update import reopened
from agentmatrix.explanation import ActorSnapshot
from agentmatrix.pregel.execution import saver_and_config
from agentmatrix.scheduling.actors import Actor, Staff, address_of, split_path
from agentmatrix.scheduling.mailboxes import Mailboxes

__all__ = ["aactors", "actors"]


class _Reader:
    """What both twins share.

    Args:
        graph: a compiled graph.
        nodes: by name, what runs its actors.
        config: names the thread.
    """

    def __init__(self, graph: Any, nodes: Mapping[str, ActorNode], config: RunnableConfig) -> None:
        self.graph, self.nodes = graph, nodes
        self.saver, self.config = saver_and_config(graph, config)
        self._listed: list[list[Any]] = []
        self._states: dict[tuple[str, int], ActorStates] = {}

    def add(self, found: list[Any]) -> None:
        """What the checkpointer has listed of the actors of one name, newest first."""
        for saved in reversed(found):
            self._listed += staff_in(saved)

    def staff(self, saved: Any) -> tuple[Staff, Mailboxes | None]:
        """Who there is, as a checkpoint and what lies beside it say."""
        found = reopened(self.graph, saved, self.saver, actors=self._listed) if saved is not None else None
        if found is not None and (known := found[0].scheduler.rules.staff) is not None:
            return known, found[0].scheduler.rules.mailboxes
        staff = Staff(schedule_of(self.graph.channels).topology.actors)
        staff.know(self._listed)
        return staff, None

    def states(self, actor: Actor) -> tuple[ActorNode, ActorStates]:
        """What knows the state of an actor."""
        node = self.nodes[split_path(actor.path)[0]]
        specs = node.specs_of(actor)
        key = node.name, id(specs)
        if key not in self._states:
            self._states[key] = ActorStates(specs, self.saver, self.config, durable=True)
        return node, self._states[key]


def _snapshot(actor: Actor, node: ActorNode, state: ActorState | None, mailboxes: Mailboxes | None) -> ActorSnapshot:
    address = address_of(actor.path)
    return ActorSnapshot(
        actor.path,
        split_path(actor.path)[1],
        state.values() if state is not None else node.first_state(actor).values(),
        state.count if state is not None else 0,
        tuple(message.value for message in mailboxes.unread(address)) if mailboxes is not None else (),
        mailboxes is not None and address in mailboxes.reading,
        actor.hired_by or None,
        actor.depth,
        actor.dismissed,
    )


def actors(graph: Any, nodes: Mapping[str, ActorNode], config: RunnableConfig) -> dict[str, ActorSnapshot]:
    """By path, the actors of a thread."""
    reader = _Reader(graph, nodes, config)
    for name in nodes:
        reader.add(list(reader.saver.list(staff_config(reader.config, name))))
    staff, mailboxes = reader.staff(reader.saver.get_tuple(reader.config))
    found: dict[str, ActorSnapshot] = {}
    for actor in staff:
        node, states = reader.states(actor)
        found[actor.path] = _snapshot(actor, node, states.load(address_of(actor.path), is_new=False), mailboxes)
    return found


async def aactors(graph: Any, nodes: Mapping[str, ActorNode], config: RunnableConfig) -> dict[str, ActorSnapshot]:
    """The same as `actors`, async."""
    reader = _Reader(graph, nodes, config)
    for name in nodes:
        reader.add([saved async for saved in reader.saver.alist(staff_config(reader.config, name))])
    staff, mailboxes = reader.staff(await reader.saver.aget_tuple(reader.config))
    found: dict[str, ActorSnapshot] = {}
    for actor in staff:
        node, states = reader.states(actor)
        found[actor.path] = _snapshot(actor, node, await states.aload(address_of(actor.path), is_new=False), mailboxes)
    return found
