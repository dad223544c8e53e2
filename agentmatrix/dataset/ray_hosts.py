"""Hosts in Ray actors: Ray places them and starts them again, rows go to them over the wire."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableLambda
from langgraph.func import entrypoint
from langgraph.pregel import Pregel

from agentmatrix.dataset.row_agent import RowAgent
from agentmatrix.errors import DatasetError, MissingExtra
from agentmatrix.remote import RemoteAgent

__all__ = ["Ray", "RayHosts"]

_AGENT = "agent"
_RESTART_SECONDS = 60.0
"""How long the restart of an actor is waited for, while the others work on."""


@dataclass(frozen=True)
class Ray:
    """How `refine` uses Ray (`refine(..., engine=Ray(...))`): a graph goes to several actors, each of which is a host.

    Rows go over the wire of AgentMatrix, not through Ray's object store. An actor that dies is started again by Ray,
    and its rows go to the others meanwhile.

    Attributes:
        replicas: how many actors.
        num_cpus: what each is given of Ray's CPUs.
        num_gpus: what each is given of Ray's GPUs; a fraction is a share of one.
        address: the cluster, as of `ray.init`; by default that of this process, else a local one for this run.
        runtime_env: as of `ray.init`, for workers on other machines.
        actor_options: further options of each actor, as Ray names them.
        host_options: options of each `Host`, such as `ssl_certfile` and `ssl_keyfile`: paths on its machine, or bytes.
        agent_options: options of the `RemoteAgent` of each host, such as `ssl_ca` and `server_name`.
        insecure: let hosts on other machines speak without TLS. As all hosts they take only the token that is made for
            the run, which Ray carries to them.
        start_timeout: seconds until all actors must be there.
    """

    replicas: int = 2
    num_cpus: float = 0
    num_gpus: float = 0
    address: str | None = None
    runtime_env: Mapping[str, Any] | None = None
    actor_options: Mapping[str, Any] = field(default_factory=dict)
    host_options: Mapping[str, Any] = field(default_factory=dict)
    agent_options: Mapping[str, Any] = field(default_factory=dict)
    insecure: bool = False
    start_timeout: float = 300.0


class RayHosts:
    """The hosts of one run.

    Args:
        options: how Ray is used.

    Raises:
        MissingExtra: Ray is not installed.
    """

    def __init__(self, options: Ray) -> None:
        if options.replicas < 1:
            raise DatasetError(f"Ray needs one replica at least, not {options.replicas}")
        self._ray = _imported()
        self._options = options
        self._token = secrets.token_hex(16)
        self._actors: list[Any] = []
        self._owns_cluster = False

    async def start(self, agent: RowAgent) -> RemoteAgent:
        """Start the actors. Returns the agent at their hosts.

        Raises:
            DatasetError: the agent cannot be sent, or the cluster has not enough of what an actor needs.
        """
        ray, options = self._ray, self._options
        graph = _as_graph(agent)
        if not ray.is_initialized():
            env = dict(options.runtime_env) if options.runtime_env else None
            ray.init(options.address, runtime_env=env, include_dashboard=False, log_to_driver=False)
            self._owns_cluster = True
        self._check_resources()
        actor = ray.remote(_HostActor).options(
            num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_restarts=-1, max_task_retries=-1,
            scheduling_strategy="SPREAD", **options.actor_options,
        )  # fmt: skip
        here = ray.get_runtime_context().get_node_id()
        try:
            for _ in range(options.replicas):
                self._actors.append(actor.remote(graph, here, self._host_options()))
        except Exception as error:
            # Ray looks for the reason itself, and may fail at that.
            first: BaseException = error
            while first.__context__ is not None:
                first = first.__context__
            raise DatasetError(f"the graph cannot be sent to Ray's workers: {first}") from None
        try:
            async with asyncio.timeout(options.start_timeout):
                for actor in self._actors:
                    await self._address(actor)
        except TimeoutError:
            raise DatasetError(
                f"Ray has not placed {options.replicas} actors with {options.num_cpus:g} CPUs and {options.num_gpus:g} "
                f"GPUs within {options.start_timeout:g} s; the cluster has {ray.cluster_resources()}"
            ) from None
        given: dict[str, Any] = {"insecure": options.insecure, **options.agent_options, "token": self._token}
        remote = RemoteAgent(self.targets, **{"name": _AGENT, **given})
        await remote.acard()
        return remote

    async def targets(self) -> list[str]:
        """Where the hosts are, once those that are just starting again are there; without those that take too long."""
        asked = [asyncio.ensure_future(self._address(actor)) for actor in self._actors]
        await asyncio.wait(asked, timeout=_RESTART_SECONDS)
        found = [task.result() for task in asked if task.done() and task.exception() is None]
        for task in asked:
            task.cancel()
        return [f"{address}/{_AGENT}" for address in found]

    async def _address(self, actor: Any) -> str:
        """The address of a host, which may just be starting again.

        Raises:
            DatasetError: the actor cannot be a host.
        """
        try:
            return str(await asyncio.wrap_future(actor.address.remote().future()))
        except self._ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            raise DatasetError(f"a Ray actor cannot be a host: {reason}") from None

    def _host_options(self) -> dict[str, Any]:
        """The token is ours, whatever else is given: nobody but this run gives a host rows."""
        return {"insecure": self._options.insecure, **self._options.host_options, "token": self._token}

    def stop(self) -> None:
        """End the actors, and the cluster if it was made for this run."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._owns_cluster:
            self._ray.shutdown()

    def _check_resources(self) -> None:
        found = self._ray.cluster_resources()
        for name, wanted in (("CPU", self._options.num_cpus), ("GPU", self._options.num_gpus)):
            if wanted * self._options.replicas > found.get(name, 0):
                raise DatasetError(
                    f"{self._options.replicas} replicas with {wanted:g} {name} each are more than the cluster has: "
                    f"{found.get(name, 0):g}"
                )


class _HostActor:
    """A host in a Ray actor."""

    def __init__(self, graph: Any, driver_node: str, options: Mapping[str, Any]) -> None:
        import ray

        from agentmatrix import Host

        is_elsewhere = ray.get_runtime_context().get_node_id() != driver_node
        if is_elsewhere and not (options["insecure"] or options.get("ssl_certfile")):
            raise PermissionError(
                "it is on another machine: give it TLS by Ray(host_options=, agent_options=), or say Ray(insecure=True)"
            )
        util: Any = ray.util
        place = util.get_node_ip_address() if is_elsewhere else "127.0.0.1"
        self._host = Host({_AGENT: graph}, **{"address": f"{place}:0", **options}).start()

    def address(self) -> str:
        """Where it listens."""
        return self._host.address

    def pid(self) -> int:
        """Its process."""
        import os

        return os.getpid()


def _as_graph(agent: RowAgent) -> Any:
    if agent.checkpointer:
        raise DatasetError("a graph with a checkpointer is not sent to Ray: compile it without one")
    if isinstance(agent.runnable, RemoteAgent):
        raise DatasetError("a RemoteAgent is at a host already: give several of them as a list, without Ray")
    if isinstance(agent.runnable, Pregel):
        return agent.runnable
    if isinstance(agent.runnable, RunnableLambda):
        function: Any = getattr(agent.runnable, "afunc", None) or agent.runnable.func
        return entrypoint()(function)
    raise DatasetError(f"Ray needs a graph or a function, not {type(agent.runnable).__name__}: make it a node of a Dag")


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtra("engine='ray' needs Ray: pip install 'agentmatrix[ray]'") from None
    return ray
