"""What `add_actors` was told, and the node that is made of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

from langgraph.graph import START

from agentmatrix.agent import AgentSpec, as_agent
from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.compose.actor_node import ActorNode, channels_of, plain_of
from agentmatrix.engine.actor_messages import message_writes
from agentmatrix.errors import BuildError
from agentmatrix.middleware import Middleware, MiddlewareChain
from agentmatrix.pregel.compiled_graph import Graph
from agentmatrix.scheduling.actors import Actors

__all__ = ["DeclaredActors"]


@dataclass
class DeclaredActors:
    """Actors of one name, before they are compiled. See `CyclicGraph.add_actors`."""

    name: str
    agent: Any
    make: Callable[[str, Any], Any] | None
    state: Any
    max_actors: int
    max_depth: int
    on_error: str
    middleware: tuple[Middleware, ...]
    builder: Callable[..., Any]
    keys: frozenset[str] = field(default=frozenset(), init=False)

    def check(self, nodes: Container[str]) -> None:
        """Raise a BuildError for what cannot work."""
        name = self.name
        if not isinstance(name, str):
            raise BuildError(f"add_actors takes a name first, as the nodes have one, not a {type(name).__name__}")
        if "/" in name:
            raise BuildError(f"{name!r} cannot name actors, whose paths are '<name>/<key>': leave out the '/'")
        for bound in ("max_actors", "max_depth"):
            value = getattr(self, bound)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BuildError(f"{bound}={value!r} of the actors {name!r} lets nobody in: give a positive number")
        if self.on_error not in ("error", "skip", "dismiss"):
            raise BuildError(f"on_error={self.on_error!r} of the actors {name!r}: choose 'error', 'skip' or 'dismiss'")
        if self.make is not None and (not callable(self.make) or inspect.iscoroutinefunction(self.make)):
            raise BuildError(f"make= of the actors {name!r} is a function of a key and a message, and not async")
        if any(inspect.iscoroutinefunction(function) for function in self.middleware):
            raise BuildError(f"middleware= of the actors {name!r} has an async function: messages are passed at once")
        MiddlewareChain(self.middleware)
        if self.agent is None and self.make is None:
            raise BuildError(f"the actors {name!r} have no agent: give one, or a make= that returns an AgentSpec")
        if getattr(self.agent, "checkpointer", None) is True:
            raise BuildError(
                f"the agent of the actors {name!r} was compiled with checkpointer=True, and an actor keeps its state "
                "itself: compile it without"
            )
        if self.agent is not None and not isinstance(self.agent, AgentSpec):
            as_agent(self.agent, name=name)

    def stand_in(self, state: Any) -> Any:
        """What LangGraph is told that the node runs, until it is compiled."""
        raise BuildError(f"the actors {self.name!r} run once the graph is compiled")

    def graph_of(self, agent: Any) -> Graph:
        """An agent as a graph over the state of an actor: its one node has the actors' name."""
        builder = self.builder(self.state, name=self.name)
        graph: Graph = builder.add_node(self.name, agent).add_edge(START, self.name).compile()
        return graph

    def node(self, models: Models | None, tools: Tools | None) -> tuple[ActorNode, Actors]:
        """What runs the actors, and what the scheduler knows of them."""
        agent = self.agent.compile(models, tools) if isinstance(self.agent, AgentSpec) else self.agent
        graph = self.graph_of(_nothing if agent is None else agent)
        keys, name = frozenset(channels_of(graph)), self.name

        def check(path: str, value: Any, sender: str) -> None:
            message_writes(path, keys, value, sender)

        node = ActorNode(name, graph if agent is not None else None, models, tools, self.graph_of)
        plain = plain_of(name, keys, self.make)
        chain = MiddlewareChain(self.middleware) if self.middleware else None
        return node, Actors(name, plain, self.max_actors, self.max_depth, self.on_error, check, chain)


def _nothing(state: Any) -> None:
    """Stands for the agent of actors that each have one of their own."""
