"""Who the actors of a thread are: what `graph.actors(config)` tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

from agentmatrix.compose.actor_node import ActorNode
from agentmatrix.engine.actor_states import ActorState, ActorStates
from agentmatrix.engine.branches import ALL, Fork, Span, afind_forks, find_forks, spans_of
from agentmatrix.engine.checkpoint import schedule_of
from agentmatrix.engine.staff_checkpoints import forks_in, staff_config, staff_in
from agentmatrix.engine.state_update import reopened
from agentmatrix.explanation import ActorSnapshot
from agentmatrix.pregel.execution import CONFIG_KEY_CHECKPOINT_ID, saver_and_config, with_configurable
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
        self.newest = with_configurable(self.config, {CONFIG_KEY_CHECKPOINT_ID: None})
        self._listed: list[list[Any]] = []
        self._spans: Sequence[Span] = ALL
        self._states: dict[tuple[str, int], ActorStates] = {}

    def staff(
        self, saved: Any, newest: Any, listed: Mapping[str, list[Any]], forks: list[Fork]
    ) -> tuple[Staff, Mailboxes | None]:
        """Who there is, as a checkpoint says, and what lies beside it if none has followed it.

        Args:
            saved: the checkpoint.
            newest: the last one of the thread.
            listed: what the checkpointer has of the actors of each name, newest first.
            forks: those that led to the checkpoint.
        """
        if saved is not None:
            is_newest = saved.checkpoint["id"] == newest.checkpoint["id"]
            self._spans = spans_of([*forks_in(listed), *forks], saved.checkpoint["id"], is_open=is_newest)
            if not is_newest:
                saved = saved._replace(pending_writes=[])
        for found in listed.values():
            self._listed += staff_in(found, self._spans)
        return self._staff(saved)

    def _staff(self, saved: Any) -> tuple[Staff, Mailboxes | None]:
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
            self._states[key] = ActorStates(specs, self.saver, self.config, durable=True, spans=self._spans)
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
    saver = reader.saver
    listed = {name: list(saver.list(staff_config(reader.config, name))) for name in nodes}
    saved, newest = saver.get_tuple(reader.config), saver.get_tuple(reader.newest)
    staff, mailboxes = reader.staff(saved, newest, listed, find_forks(saver, saved, forks_in(listed)))
    found: dict[str, ActorSnapshot] = {}
    for actor in staff:
        node, states = reader.states(actor)
        found[actor.path] = _snapshot(actor, node, states.load(address_of(actor.path), is_new=False), mailboxes)
    return found


async def aactors(graph: Any, nodes: Mapping[str, ActorNode], config: RunnableConfig) -> dict[str, ActorSnapshot]:
    """The same as `actors`, async."""
    reader = _Reader(graph, nodes, config)
    saver = reader.saver
    listed = {name: [saved async for saved in saver.alist(staff_config(reader.config, name))] for name in nodes}
    saved, newest = await saver.aget_tuple(reader.config), await saver.aget_tuple(reader.newest)
    staff, mailboxes = reader.staff(saved, newest, listed, await afind_forks(saver, saved, forks_in(listed)))
    found: dict[str, ActorSnapshot] = {}
    for actor in staff:
        node, states = reader.states(actor)
        found[actor.path] = _snapshot(actor, node, await states.aload(address_of(actor.path), is_new=False), mailboxes)
    return found
