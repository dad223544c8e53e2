"""Where a step begins, read from LangGraph's channels, whoever has written them; and how it ends, written to them.

At rest a thread is LangGraph's: each key in its own channel, nothing beside it. At a pause the channels hold the fold
of all that has finished, `branch:to:<node>` is available for each node that is to run, and undelivered Sends lie in
LangGraph's own channel, so that any graph of the same state can go on from there. The hidden channel then keeps the
rest: what one of the nodes to come must not see yet, what waits for other sources, and what the ids of tasks are made
from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.constants import START
from langgraph.types import Send

from agentmatrix.engine.channels import RUN, RunChannel, Schedule
from agentmatrix.engine.tasks import TaskIds
from agentmatrix.pregel.execution import (
    MISSING,
    TASKS,
    branch_channel,
    is_triggered,
    sanitize_untracked_values_in_send,
)
from agentmatrix.scheduling.activation import ScheduledActivation
from agentmatrix.scheduling.graph_scheduler import GraphScheduler
from agentmatrix.scheduling.rules import Opening

__all__ = ["close", "is_open", "opened", "schedule_of"]


def schedule_of(channels: Mapping[str, Any]) -> Schedule:
    """The schedule of the graph that these channels, or their specifications, belong to."""
    schedule: Schedule = channels[RUN].schedule
    return schedule


def is_open(checkpoint: Mapping[str, Any], channels: Mapping[str, Any]) -> bool:
    """Whether nodes run after this checkpoint: the input of a run is still to be taken in where it is False."""
    return bool(checkpoint["channel_versions"]) and not channels[START].is_available()


def opened(
    checkpoint: Mapping[str, Any], channels: Mapping[str, Any], nodes: Mapping[str, Any], step: int, *, branches: bool
) -> tuple[GraphScheduler, TaskIds]:
    """The run as a checkpoint leaves it.

    Args:
        checkpoint: the checkpoint.
        channels: its channels; they are not changed.
        nodes: the nodes of the graph.
        step: the number of the step that follows it.
        branches: whether somebody has branched off here (a fork, an update): then tasks have ids of their own.

    Returns:
        A scheduler, and what the ids of the step's tasks are made from.
    """
    schedule = schedule_of(channels)
    topology = schedule.topology
    versions, seen = checkpoint["channel_versions"], checkpoint["versions_seen"]
    ready = [node for node in topology.nodes if is_triggered(channels, checkpoint, node, nodes[node])]
    # A deferred node's trigger is no value before LangGraph ends the run.
    ready += [n for n in topology.deferred if n not in ready and _deferred_value(channels, n) is not MISSING]
    sends = [send for send in _pending_sends(channels) if send.node in topology.follow]
    ids = TaskIds(checkpoint["id"], step)
    base = {key: channels[key] for key in schedule.keys.all}
    paused = channels[RUN].value if channels[RUN].is_available() else None
    if paused is not None:
        # Somebody else may have gone on from the pause, or have written in the name of a node that was to run.
        edited = versions.get(RUN) != paused["version"]
        still = [
            node
            for node, version in paused["seen"].items()
            if node in topology.follow
            and seen.get(node, {}).get(branch_channel(node)) == version
            and (edited or node in ready)
        ]
        if edited:
            sends = [Send(*send) for send in paused["sends"] if send[0] in topology.follow]
        if not still and not (sends and (edited or paused["sent"] == versions.get(TASKS))):
            paused = None
    if paused is None:
        scheduler = GraphScheduler(topology, schedule.keys, schedule.rules, base)
        activations = [_sent(position, send) for position, send in enumerate(sends)]
        begins = versions.get(START) is not None and versions[START] == max(versions.values())
        scheduler.open(Opening({n: ScheduledActivation(n) for n in ready}, activations, begins=begins))
        return scheduler, ids
    if paused["ids"] is not None and not branches:
        ids = TaskIds(*paused["ids"])
    kept = paused["run"] or _NOTHING
    # What somebody has written to a key since is for all to see.
    kept = {**kept, "keys": [k for k in kept["keys"] if k in base and versions.get(k) == paused["versions"].get(k)]}
    for key in kept["keys"]:
        base[key] = base[key].from_checkpoint(kept["base"].get(key, MISSING))
    scheduler = GraphScheduler(topology, schedule.keys, schedule.rules, base)
    run = [node for node in topology.nodes if node in still or node in ready]
    updated = {*paused["seen"]} - {*still}
    activations = [_sent(position, send) for position, send in enumerate(sends)]
    scheduler.resume(kept, run, activations, {*paused["done"], *updated})
    return scheduler, ids


_NOTHING: dict[str, Any] = {
    "entries": [],
    "base": {},
    "keys": [],
    "ready": {},
    "sends": [],
    "waiting": {},
    "depth": 0,
}


def _sent(position: int, send: Send) -> ScheduledActivation:
    return ScheduledActivation(send.node, order=(1, (), position), send=send, position=position)


def _pending_sends(channels: Mapping[str, Any]) -> list[Send]:
    return list(channels[TASKS].get()) if TASKS in channels and channels[TASKS].is_available() else []


def _deferred_value(channels: Mapping[str, Any], node: str) -> Any:
    return getattr(channels[branch_channel(node)], "value", MISSING)


def close(
    scheduler: GraphScheduler,
    unfinished: Sequence[ScheduledActivation],
    checkpoint: Mapping[str, Any],
    channels: dict[str, Any],
    nodes: Mapping[str, Any],
    following: Any,
    ids: TaskIds | None = None,
) -> set[str]:
    """Hand the final state to the channels, and say in LangGraph's words what is still to run. No reducer runs again.

    Args:
        scheduler: what has run.
        unfinished: the activations that are to run, or to run again.
        checkpoint: the checkpoint; its versions are changed.
        channels: its channels; they are changed.
        nodes: the nodes of the graph.
        following: the version that what changes gets.
        ids: at a pause, what the ids of tasks go on to be made from; None where the next step has ids of its own.

    Returns:
        The channels that were updated, triggers among them.
    """
    schedule = schedule_of(channels)
    versions, seen = checkpoint["channel_versions"], checkpoint["versions_seen"]
    updated: set[str] = set()
    final = scheduler.state.final()
    for key in schedule.keys.all:
        if final[key] is not channels[key]:
            channels[key], versions[key] = final[key], following
            updated.add(key)
    called = {activation.node for activation in unfinished if activation.send is None}
    waiting = scheduler.rules.waiting() if unfinished else {}
    done = scheduler.done()
    for node in schedule.topology.nodes:
        for name in nodes[node].triggers:
            if name in schedule.joins:
                _set_join(channels, versions, name, done if node in waiting else frozenset(), following)
            elif node in schedule.topology.deferred:
                _set_deferred(channels, versions, name, following, calls=node in called)
            elif node in called:
                if not channels[name].is_available() or seen.get(node, {}).get(name) == versions.get(name):
                    channels[name].update([None])
                    versions[name] = following
                updated.add(name)
            elif channels[name].is_available():
                seen.setdefault(node, {})[name] = versions.get(name, following)
                channels[name].consume()
                channels[name].update(())
                versions[name] = following
    if not unfinished:
        # LangGraph infers from these in whose name an update comes that names no node: that of the node that ran last.
        for node in scheduler.log.last():
            if node in nodes:
                name = branch_channel(node)
                versions[name] = seen.setdefault(node, {})[name] = following
    sends = [activation.send for activation in unfinished if activation.send is not None]
    if TASKS in channels and (sends or channels[TASKS].is_available()):
        channels[TASKS].update(sends)
        versions[TASKS] = following
        if sends:
            updated.add(TASKS)
    paused = _paused(scheduler, unfinished, versions, seen, following, ids) if unfinished else None
    if paused is not None or channels[RUN].is_available():
        channels[RUN] = RunChannel(schedule, MISSING if paused is None else paused)
        channels[RUN].key = RUN
        versions[RUN] = following
    return updated


def _paused(
    scheduler: GraphScheduler,
    unfinished: Sequence[ScheduledActivation],
    versions: Mapping[str, Any],
    seen: Mapping[str, Any],
    following: Any,
    ids: TaskIds | None,
) -> dict[str, Any] | None:
    run = scheduler.pause(unfinished)
    if run is None and ids is None:
        return None
    base = scheduler.state.base
    return {
        "run": run,
        "ids": None if ids is None else list(ids),
        "done": sorted(scheduler.done() - {activation.node for activation in unfinished}),
        "versions": {key: versions.get(key) for key in (run["keys"] if run else ())},
        "seen": {a.node: seen.get(a.node, {}).get(branch_channel(a.node)) for a in unfinished if a.send is None},
        "sends": [
            [a.send.node, sanitize_untracked_values_in_send(a.send, base).arg] for a in unfinished if a.send is not None
        ],
        "sent": versions.get(TASKS),
        "version": following,
    }


def _set_join(channels: dict[str, Any], versions: Any, name: str, done: frozenset[str], following: Any) -> None:
    """Let a join of LangGraph's hold the nodes that have arrived at it."""
    arrived = done & channels[name].names
    if arrived != channels[name].seen:
        channels[name] = channels[name].from_checkpoint(arrived)
        channels[name].key = name
        versions[name] = following


def _set_deferred(channels: dict[str, Any], versions: Any, name: str, following: Any, *, calls: bool) -> None:
    """A deferred node's trigger is a value that counts once it is finished."""
    if calls or channels[name].value is not MISSING:
        channels[name] = channels[name].from_checkpoint((None, True) if calls else MISSING)
        channels[name].key = name
        versions[name] = following
