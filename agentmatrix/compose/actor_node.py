"""The node that stands for many agents by key: it hands an actor its message, keeps its state, and passes on what it
sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import ParentCommand
from langgraph.types import Command, Send

from agentmatrix.agent import AgentSpec
from agentmatrix.agent.agent_kinds import AgentKinds, set_instructions
from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.engine.actor_messages import message_writes
from agentmatrix.engine.actor_middleware import BLOCKED
from agentmatrix.engine.actor_states import ActorAnswer, ActorState, ActorStates
from agentmatrix.engine.channels import RUN, dismissal, dismissed_by
from agentmatrix.engine.task_sends import TaskSends
from agentmatrix.errors import SendError
from agentmatrix.live.send_scope import current_send_scope
from agentmatrix.pregel.checkpoint_order import await_checkpoints, wait_for_checkpoints
from agentmatrix.pregel.compiled_graph import TASKS, Graph, Mapper, answer_mappers
from agentmatrix.pregel.node_functions import is_async_only
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.task_config import (
    command_for_node,
    loop_of,
    read_channel,
    send_writes,
    task_id_of,
    updates_of,
    writes_of,
)
from agentmatrix.scheduling.actors import Actor
from agentmatrix.scheduling.mailboxes import ActorMessage
from agentmatrix.scheduling.scheduled_activation import Write

__all__ = ["ActorNode", "plain_of"]


def plain_of(
    name: str, keys: frozenset[str], make: Callable[[str, Any], Any] | None
) -> Callable[[str, Any], Any] | None:
    """A function of the user's that says who an actor is, as one that gives plain values.

    Args:
        name: the node that stands for the actors.
        keys: those of their state.
        make: returns an `AgentSpec`, a dict of the actor's state, or None.
    """
    if make is None:
        return None

    def plain(key: str, message: Any) -> Any:
        try:
            made = make(key, message)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise SendError(
                f"{name + '/' + key!r} was not hired: make({key!r}, ...) has raised {why}", "refused"
            ) from error
        if isinstance(made, AgentSpec):
            return {"spec": made.model_dump()}
        if made is None:
            return None
        if isinstance(made, Mapping):
            if unknown := sorted(str(key) for key in made if key not in keys):
                raise SendError(
                    f"{name + '/' + key!r} was not hired: make({key!r}, ...) returned the key {unknown[0]!r}, which "
                    f"its state has not got (there are: {', '.join(sorted(keys))})",
                    "refused",
                )
            return {"state": dict(made)}
        raise SendError(
            f"{name + '/' + key!r} was not hired: make({key!r}, ...) returned the type {type(made).__name__}: return "
            "an AgentSpec, a dict of the actor's state, or None to refuse",
            "refused",
        )

    return plain


class ActorNode:
    """Runs the actors of one name.

    Args:
        name: the node that stands for them.
        graph: a graph of one node of that name, which is the agent, over the actors' state.
        models: the chat models that an `AgentSpec` may name.
        tools: the tools that it may name.
        compile: makes such a graph of another agent.

    Attributes:
        graph: that graph; None where each actor has an agent of its own.
    """

    def __init__(
        self,
        name: str,
        graph: Graph | None,
        models: Models | None,
        tools: Tools | None,
        compile: Callable[[Any], Graph],
    ) -> None:
        self.name, self.graph = name, graph
        self._kinds = AgentKinds(compile, models, tools)

    def as_runnable(self) -> Runnable[Any, Any]:
        """What LangGraph runs."""
        call = None if self.graph is not None and is_async_only(self.graph) else self._call
        return runnable(call, self._acall, name=self.name)

    def _call(self, value: Any, config: RunnableConfig) -> Any:
        reading = self._reading(config)
        reading.load()
        if (answered := reading.answered()) is not None:
            return answered
        try:
            answer = reading.agent.invoke(reading.input(), config)
        except ParentCommand as error:
            answer = reading.caught(error, config)
        command = reading.finish(answer)
        # Its namespace is the same before and after a kill: it is never ahead of the graph that it is in.
        wait_for_checkpoints(config)
        reading.states.put(reading.address, reading.state)
        return command

    async def _acall(self, value: Any, config: RunnableConfig) -> Any:
        reading = self._reading(config)
        await reading.aload()
        if (answered := reading.answered()) is not None:
            return answered
        try:
            answer = await reading.agent.ainvoke(reading.input(), config)
        except ParentCommand as error:
            answer = reading.caught(error, config)
        command = reading.finish(answer)
        await await_checkpoints(config)
        await reading.states.aput(reading.address, reading.state)
        return command

    def _reading(self, config: RunnableConfig) -> _Reading:
        activation, _ = read_channel(config, RUN)
        loop = loop_of(config)
        actor = loop.actor_of(activation.node)
        made = actor.made or {}
        graph = self._graph_of(made.get("spec"))
        states = loop.actor_states(self.name, channels_of(graph))
        return _Reading(activation, actor, graph, self, states, config)

    def specs_of(self, actor: Actor) -> dict[str, Any]:
        """The empty channels of an actor's state."""
        return channels_of(self._graph_of((actor.made or {}).get("spec")))

    def first_state(self, actor: Actor) -> ActorState:
        """The state of an actor that has read nothing."""
        graph = self._graph_of((actor.made or {}).get("spec"))
        state = ActorStates(channels_of(graph), None, RunnableConfig(), durable=False).new()
        if "state" not in (actor.made or {}):
            return state
        update_of, _ = answer_mappers(graph, self.name)
        return state.updated(update_of(actor.made["state"]) or ())

    def _graph_of(self, plain: dict[str, Any] | None) -> Graph:
        """The graph that runs an actor."""
        if plain is None:
            set_instructions("")
            if self.graph is None:
                raise SendError(
                    f"make of the actors {self.name!r} gives a state, and they have no agent: return a spec",
                    "refused",
                )
            return self.graph
        spec = AgentSpec(**plain)
        set_instructions(spec.system_prompt)
        return self._kinds.of(spec)


def channels_of(graph: Graph) -> dict[str, Any]:
    """The empty channels of the keys of a graph's state."""
    known: Any = graph
    return {key: known.channels[key] for key in known.builder.channels}


class _Reading:
    """One actor reads one message."""

    def __init__(
        self,
        activation: Any,
        actor: Actor,
        graph: Graph,
        actors: ActorNode,
        states: ActorStates,
        config: RunnableConfig,
    ) -> None:
        self._activation, self._actor, self._actors, self._config = activation, actor, actors, config
        self._node = graph.nodes[actors.name]
        self.agent, self.states = self._node.bound, states
        self.address: str = activation.node
        self.message: ActorMessage = activation.message
        self.state: ActorState
        mappers: tuple[Mapper, Mapper] = answer_mappers(graph, actors.name)
        self._update_of, self._control_of = mappers

    def load(self) -> None:
        found = self.states.load(self.address, is_new=self._actor.is_new)
        self.state = found or self._actors.first_state(self._actor)

    async def aload(self) -> None:
        found = await self.states.aload(self.address, is_new=self._actor.is_new)
        self.state = found or self._actors.first_state(self._actor)

    def answered(self) -> Command[Any] | None:
        """What the actor has answered to this message before the process was killed; None where it has not."""
        answer = self.state.answer
        if answer is None or answer.message != task_id_of(self._config):
            return None
        commands = answer.commands
        send_writes(self._config, [dismissal(path) for path in commands["dismissed"]])
        sends = [Send(path, value) for path, value in commands["sends"]]
        update = [(key, value) for key, value in commands["update"]]
        return Command(goto=[*commands["goto"], *sends], update=update)

    def input(self) -> Any:
        """What the agent is given: its state, with the message."""
        state = self.state
        writes = message_writes(self.message.path, state.channels, self.message.value, self.message.sender)
        self._read = state.updated([(key, self._identified(value)) for key, value in writes])
        self._activation.number = state.count + 1
        values, mapper = self._read.values(), self._node.mapper
        return values if mapper is None else mapper(values)

    def _identified(self, value: Any) -> Any:
        """Messages with ids that are the same when they are read again, as after a kill."""
        if not isinstance(value, list):
            return value
        id = task_id_of(self._config)
        return [
            message.model_copy(update={"id": f"{id}-{place}"})
            if isinstance(message, BaseMessage) and message.id is None
            else message
            for place, message in enumerate(value)
        ]

    def caught(self, error: ParentCommand, config: RunnableConfig) -> Command[Any]:
        """What a graph inside the actor tells the graph around it."""
        if (command := command_for_node(error, config)) is None:
            raise error
        return Command(graph=Command.PARENT, update=command.update, goto=command.goto)

    def finish(self, answer: Any) -> Command[Any] | None:
        """Fold the answer into the state. Returns what the graph around is told."""
        own: list[Any] = []
        goto: list[Any] = []
        update: list[Write] = []
        for part in answer if isinstance(answer, list | tuple) else (answer,):
            if not isinstance(part, Command):
                own.append(part)
                continue
            goto += part.goto if isinstance(part.goto, list | tuple) else [part.goto]
            if part.graph == Command.PARENT:
                update += updates_of(part)
            else:
                own.append(Command(update=part.update))
        sends = [target for target in goto if isinstance(target, Send)]
        if isinstance(scope := current_send_scope.get(), TaskSends):
            # Before the answer is kept: an actor whose sends nobody takes has failed.
            passed = [(send.node, scope.passed(send.node, send.arg)) for send in sends]
            sends = [Send(path, value) for path, value in passed if value is not BLOCKED]
            for send in sends:
                scope.check(send.node, send.arg)
        writes = [write for part in own for write in self._update_of(part) or ()]
        state = self._read.updated(writes)
        state.count += 1
        sent = writes_of(self._config)
        direct = [value for channel, value in sent if channel == TASKS]
        dismissed = [path for channel, value in sent if (path := dismissed_by(channel, value)) is not None]
        commands = {
            "goto": [target for target in goto if not isinstance(target, Send)],
            "sends": [[send.node, send.arg] for send in (*sends, *direct)],
            "update": [[key, value] for key, value in update],
            "dismissed": dismissed,
        }
        state.answer = ActorAnswer(task_id_of(self._config), commands)
        self.state = state
        loop_of(self._config).show(task_id_of(self._config), writes)
        return Command(goto=[*commands["goto"], *sends], update=update) if goto or update else None
