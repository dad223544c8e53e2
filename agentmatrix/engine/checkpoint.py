"""Where a step begins, read from LangGraph's channels, whoever has written them; and how it ends, written to them.

At rest a thread is LangGraph's: each key in its own channel, nothing beside it. At a pause the channels hold the fold
of all that has finished, `branch:to:<node>` is available for each node that is to run, and undelivered Sends lie in
LangGraph's own channel, so that any graph of the same state can go on from there. The hidden channel then keeps the
rest: what one of the nodes to come must not see yet, what waits for other sources, and what the ids of tasks are made
from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langgraph.constants import START
from langgraph.types import Send

from agentmatrix.engine.channels import RUN, RunChannel, Schedule, is_record
from agentmatrix.engine.step import result_of
from agentmatrix.engine.tasks import TaskIds
from agentmatrix.pregel.compiled_graph import branch_channel, branch_target
from agentmatrix.pregel.execution import (
    INTERRUPT,
    MISSING,
    NULL_TASK_ID,
    TASKS,
    triggered_nodes,
)
from agentmatrix.scheduling.graph_scheduler import GraphScheduler
from agentmatrix.scheduling.paused import numbers_between_steps, tracked, whole_pause
from agentmatrix.scheduling.rules import Opening
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation

__all__ = ["close", "hand_over", "is_branch", "is_open", "levels_of", "opened", "schedule_of"]


def schedule_of(channels: Mapping[str, Any]) -> Schedule:
    """The schedule of the graph that these channels, or their specifications, belong to."""
    schedule: Schedule = channels[RUN].schedule
    return schedule


def is_open(checkpoint: Mapping[str, Any], channels: Mapping[str, Any]) -> bool:
    """Whether nodes run after this checkpoint: the input of a run is still to be taken in where it is False."""
    return bool(checkpoint["channel_versions"]) and not channels[START].is_available()


def is_branch(metadata: Mapping[str, Any]) -> bool:
    """Whether somebody has branched off at a checkpoint, or has updated it: what starts there has ids of its own."""
    return metadata.get("source") in ("fork", "update")


def levels_of(schedule: Schedule, scheduler: GraphScheduler) -> Callable[[ScheduledActivation], int]:
    """How many levels of activations of a step come before an activation: none where each level is a step."""
    return (lambda activation: 0) if schedule.barriers else scheduler.level


def opened(
    checkpoint: Mapping[str, Any],
    channels: Mapping[str, Any],
    nodes: Mapping[str, Any],
    step: int,
    pending: Iterable[tuple[str, str, Any]],
    *,
    branches: bool,
    input_open: bool | None = None,
    replays: bool = True,
    actors: Iterable[list[Any]] = (),
) -> tuple[GraphScheduler, TaskIds]:
    """The run as a checkpoint leaves it.

    Args:
        checkpoint: the checkpoint.
        channels: its channels; they are not changed.
        nodes: the nodes of the graph.
        step: the number of the step that follows it.
        pending: the writes beside it.
        branches: see `is_branch`.
        input_open: whether signals may come; None where that is not known.
        replays: whether what lies beside the checkpoint is to be told again.
        actors: who was hired before, as plain values.

    Returns:
        A scheduler, and what the ids of the step's tasks are made from.
    """
    schedule = schedule_of(channels)
    topology = schedule.topology
    versions, seen = checkpoint["channel_versions"], checkpoint["versions_seen"]
    ready = triggered_nodes(channels, checkpoint, topology.nodes, nodes)
    # A deferred node's trigger is no value before LangGraph ends the run.
    ready += [n for n in topology.deferred if n not in ready and _deferred_value(channels, n) is not MISSING]
    sends = [send for send in _pending_sends(channels) if topology.takes(send.node)]
    called = {branch_target(channel) for task_id, channel, _ in pending if task_id == NULL_TASK_ID}
    records = [value for _, channel, value in pending if is_record(channel, value)] if replays else []
    joined = {name: frozenset(channels[name].seen) for name in schedule.joins if channels[name].seen}
    ids = TaskIds(checkpoint["id"], step)
    base = {key: channels[key] for key in schedule.keys.all}
    paused = _whole(channels[RUN].value) if channels[RUN].is_available() else None
    if paused is not None:
        # Somebody else may have gone on from the pause, or have written in the name of a node that was to run.
        edited = versions.get(RUN) != paused["version"]
        still = [
            node
            for node, before in paused["seen"].items()
            if (stands := topology.node_of(node)) in topology.follow
            and _seen(nodes[stands], seen.get(stands, {})) == before
            and (edited or stands in ready)
        ]
        if edited:
            sends = [Send(*send) for send in paused["sends"] if topology.takes(send[0])]
        alive = bool(paused["run"].get("rules"))
        if not still and not alive and not (sends and (edited or paused["sent"] == versions.get(TASKS))):
            paused = None
    if paused is None:
        scheduler = GraphScheduler(topology, schedule.keys, schedule.rules, base)
        _prepare(scheduler, records, input_open, actors)
        activations = _sent(sends)
        begins = versions.get(START) is not None and versions[START] == max(versions.values())
        if begins:
            called.update(node for node in ready if node not in topology.allowed[START])
        ran = _ran(topology.nodes, versions.get(START), seen)
        if sends or not ran.issuperset(ready):
            # An update in the name of a node that has run starts its followers, but not those that have run as well.
            ready = [node for node in ready if node not in ran or node in called]
        opening = Opening(
            {n: ScheduledActivation(n, order=(0, n)) for n in ready}, activations, done=ran, begins=begins
        )
        opening.joined = joined
        opening.called = frozenset(node for node in ready if node in called)
        scheduler.open(opening)
        return scheduler, ids
    identities = paused["ids"] is not None and not branches
    if identities:
        ids = TaskIds(*paused["ids"])
    kept = paused["run"]
    # What somebody has written to a key since is for all to see.
    kept = {**kept, "keys": [k for k in kept["keys"] if k in base and versions.get(k) == paused["versions"].get(k)]}
    if paused["kind"] != _kind(schedule):
        # Another builder has paused it: what its rules have kept means nothing to these.
        kept = {**kept, "rules": None}
    for key in kept["keys"]:
        base[key] = base[key].from_checkpoint(kept["base"].get(key, MISSING))
    scheduler = GraphScheduler(topology, schedule.keys, schedule.rules, base)
    _prepare(scheduler, records, input_open, actors)
    updates = {n: result_of(schedule, n, n, writes, recorded=True) for n, writes in paused.get("updates", {}).items()}
    # Of members, those that were to run are known by name.
    members = sorted({*still} & topology.members.keys())
    ready = [node for node in ready if all(topology.members[name] != node for name in members)]
    run = [node for node in (*topology.nodes, *members) if node in still or node in ready]
    activations = _sent(sends)
    done = {*paused["done"], *_ran(topology.nodes, versions.get(START), seen)}
    scheduler.resume(kept, run, activations, done, called, identities=identities, joined=joined, updates=updates)
    return scheduler, ids


def _prepare(
    scheduler: GraphScheduler, records: Sequence[Any], input_open: bool | None, actors: Iterable[list[Any]]
) -> None:
    if (staff := scheduler.rules.staff) is not None:
        staff.know(actors)
    scheduler.remember(records)
    if input_open is not None:
        scheduler.set_input_open(input_open)


def _kind(schedule: Schedule) -> str:
    """The rules of a graph, by name."""
    return getattr(schedule.rules, "__name__", "")


def _ran(nodes: Iterable[str], began: Any, seen: Mapping[str, Any]) -> frozenset[str]:
    """The nodes that have run since the input was taken in, as far as LangGraph's versions tell."""
    if began is None:
        return frozenset()
    return frozenset(
        node
        for node in nodes
        if node in seen and any(version >= began for name, version in seen[node].items() if name != INTERRUPT)
    )


def _sent(sends: Sequence[Send]) -> list[ScheduledActivation]:
    numbers: dict[str, int] = {}
    activations: list[ScheduledActivation] = []
    for position, send in enumerate(sends):
        numbers[send.node] = number = numbers.get(send.node, 0) + 1
        order = (1, (), position)
        activations.append(ScheduledActivation(send.node, order=order, number=number, send=send, position=position))
    return activations


def _pending_sends(channels: Mapping[str, Any]) -> list[Send]:
    return list(channels[TASKS].get()) if TASKS in channels and channels[TASKS].is_available() else []


def _deferred_value(channels: Mapping[str, Any], node: str) -> Any:
    return getattr(channels[branch_channel(node)], "value", MISSING)


def hand_over(
    scheduler: GraphScheduler, checkpoint: Mapping[str, Any], channels: dict[str, Any], following: Any
) -> set[str]:
    """Hand the final state to the channels. No reducer runs again.

    Args:
        scheduler: what has run.
        checkpoint: the checkpoint; its versions are changed.
        channels: its channels; they are changed.
        following: the version that what changes gets.

    Returns:
        The keys that were updated.
    """
    final = scheduler.state.final()
    updated = {key for key in scheduler.state.keys.all if final[key] is not channels[key]}
    for key in updated:
        channels[key], checkpoint["channel_versions"][key] = final[key], following
    return updated


def close(
    scheduler: GraphScheduler,
    unfinished: Sequence[ScheduledActivation],
    checkpoint: Mapping[str, Any],
    channels: dict[str, Any],
    nodes: Mapping[str, Any],
    following: Any,
    ids: TaskIds | None = None,
    *,
    rests: bool = False,
) -> set[str]:
    """Hand the final state to the channels, and say in LangGraph's words what is still to run.

    Args:
        scheduler: what has run.
        unfinished: the activations that are to run, or to run again.
        checkpoint: the checkpoint; its versions are changed.
        channels: its channels; they are changed.
        nodes: the nodes of the graph.
        following: the version that what changes gets.
        rests: whether the run goes on though nothing is unfinished: more may come from outside.
        ids: at a pause, what the ids of tasks go on to be made from; None where the next step has ids of its own.

    Returns:
        The channels that were updated, triggers among them.
    """
    schedule = schedule_of(channels)
    versions, seen = checkpoint["channel_versions"], checkpoint["versions_seen"]
    updated = hand_over(scheduler, checkpoint, channels, following)
    node_of = schedule.topology.node_of
    names = {activation.node: node_of(activation.node) for activation in unfinished if activation.send is None}
    called = {*names.values()}
    waiting = scheduler.rules.waiting() if unfinished and schedule.joins else {}
    arrived = scheduler.rules.joined() if schedule.joins and (unfinished or rests) else {}
    # Between two supersteps whose edges do not join nobody asks who has run, and the log grows with the run.
    is_asked = bool(unfinished) and (ids is not None or bool(schedule.joins))
    done = scheduler.ran(sent=False) if is_asked else frozenset[str]()
    deferred = schedule.topology.deferred
    for node, name in schedule.branch_channels:
        if not (node in called or channels[name].is_available() or node in schedule.joins_of or node in deferred):
            continue
        joins, joined = schedule.joins_of.get(node, ()), False
        for join in joins:
            came = arrived.get(join) or (done if node in waiting or node in called else frozenset())
            _set_join(channels, versions, join, came, following, is_deferred=node in deferred)
            joined = joined or (node in called and channels[join].is_available())
            updated.update((join,) if joined else ())
        triggers = node in called and not joined
        if node in deferred:
            _set_deferred(channels, versions, name, following, triggers=node in called)
        elif triggers:
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
        _mark_as_run(scheduler.ran(), nodes, versions.get(START), seen)
    # LangGraph infers from these in whose name an update comes that names no node: that of the node that ran last. At a
    # pause of a Dag it need not be named, since what has finished runs no more.
    is_inferred = not unfinished or (ids is not None and not schedule.topology.max_rounds)
    last = [node for node in scheduler.log.last() if node in nodes and node not in called] if is_inferred else []
    # What only a Send has run may still be led to.
    for node in [node for node in last if node in done][-1:] if unfinished else last:
        name = branch_channel(node)
        versions[name] = seen.setdefault(node, {})[name] = following
    sends = [a.send for a in unfinished if a.send is not None and a.message is None]
    if TASKS in channels and (sends or channels[TASKS].is_available()):
        channels[TASKS].update(sends)
        versions[TASKS] = following
        if sends:
            updated.add(TASKS)
    told = schedule.barriers and ids is None
    paused = (
        _paused(scheduler, unfinished, names, nodes, versions, seen, following, ids, kind=_kind(schedule), told=told)
        if unfinished or rests
        else None
    )
    if paused is not None or channels[RUN].is_available():
        channels[RUN] = RunChannel(schedule, MISSING if paused is None else paused)
        channels[RUN].key = RUN
        versions[RUN] = following
    return updated


def _mark_as_run(done: Iterable[str], nodes: Mapping[str, Any], began: Any, seen: dict[str, dict[str, Any]]) -> None:
    """That a node has run in this run is told by a version, since the input, at which it has seen its trigger."""
    for node in done if began is not None else ():
        if node in nodes and not any(version >= began for version in seen.get(node, {}).values()):
            seen.setdefault(node, {})[branch_channel(node)] = began


def _paused(
    scheduler: GraphScheduler,
    unfinished: Sequence[ScheduledActivation],
    names: Mapping[str, str],
    nodes: Mapping[str, Any],
    versions: Mapping[str, Any],
    seen: Mapping[str, Any],
    following: Any,
    ids: TaskIds | None,
    *,
    kind: str,
    told: bool,
) -> dict[str, Any]:
    saw = {name: _seen(nodes[node], seen.get(node, {})) for name, node in names.items()}
    numbers = numbers_between_steps(scheduler.topology, scheduler.log, scheduler.rules.numbers, unfinished)
    if told and numbers is not None:
        return {"kind": kind, "seen": saw, "numbers": numbers, "version": following}
    run = scheduler.pause(unfinished)
    # Where each level is a step, versions tell what has run.
    done = frozenset[str]() if told else scheduler.ran(sent=False) - {activation.node for activation in unfinished}
    return {
        "run": run,
        "kind": kind,
        "ids": None if ids is None else list(ids),
        "done": sorted(done),
        "versions": {key: versions.get(key) for key in run["keys"]},
        "seen": saw,
        "sends": [
            [a.send.node, tracked(a.send.arg, scheduler.state.keys.untracked)]
            for a in unfinished
            if a.send is not None and a.message is None
        ],
        "sent": versions.get(TASKS),
        "version": following,
    }


def _whole(paused: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a pause has kept, also where it has kept the numbers of activations alone."""
    if "run" in paused:
        return paused
    run = whole_pause(paused["seen"], paused["numbers"])
    return {"run": run, "ids": None, "done": [], "versions": {}, "sends": [], "sent": None, **paused}


def _seen(node: Any, seen: Mapping[str, Any]) -> list[Any]:
    """The versions of its triggers that a node has run for."""
    return [seen.get(name) for name in node.triggers]


def _set_join(
    channels: dict[str, Any], versions: Any, name: str, done: frozenset[str], following: Any, *, is_deferred: bool
) -> None:
    """Let a join of LangGraph's hold the nodes that have arrived at it. A deferred node starts by its trigger."""
    arrived = {*done} & channels[name].names
    if arrived != channels[name].seen:
        channels[name] = channels[name].from_checkpoint((arrived, False) if is_deferred else arrived)
        channels[name].key = name
        versions[name] = following


def _set_deferred(channels: dict[str, Any], versions: Any, name: str, following: Any, *, triggers: bool) -> None:
    """A deferred node's trigger is a value that counts once it is finished."""
    if triggers or channels[name].value is not MISSING:
        channels[name] = channels[name].from_checkpoint((None, True) if triggers else MISSING)
        channels[name].key = name
        versions[name] = following
