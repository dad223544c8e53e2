"""`RemoteAgent`: a graph that runs on another host and stands wherever a local graph may stand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.graph import Graph
from langgraph.types import RetryPolicy

from agentmatrix.card import AgentCard
from agentmatrix.display.notebook import NotebookRepr
from agentmatrix.errors import AddressError
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.config_values import ensure_config, merge_configs
from agentmatrix.remote.attributes import unreached_drawing
from agentmatrix.remote.calls import RemoteCalls
from agentmatrix.remote.connection import AgentConnection
from agentmatrix.remote.printing import aprinted, printed, wants_printing
from agentmatrix.remote.replica_targets import ReplicaTargets, Resolver, parse_targets
from agentmatrix.remote.replicas import ReplicaStatus
from agentmatrix.session.checkpointer import HostCheckpointerRpc, checkpointer_proxy
from agentmatrix.transport.options import ClientOptions, Pem
from agentmatrix.transport.target import Target
from agentmatrix.watch.watch_mixin import WatchMixin
from agentmatrix.wire.codec import Unlisted

if TYPE_CHECKING:
    from agentmatrix.explanation import ActorSnapshot, Explanation

__all__ = ["RemoteAgent"]


class RemoteAgent(WatchMixin, NotebookRepr, RemoteCalls):
    """An agent on another host, used as if it were local.

    It is a LangGraph graph: a node of any other graph, with every verb. Making, adding, compiling, drawing and pickling
    it touch no network; its card is fetched beside the first call.

    Args:
        agent: `"host:port/name"`, or the agent's name when `url` says where. Or several replicas of it, which keep
            nothing, or all in one database: a list of targets; `"dns:///name:port/agent"`, all addresses of a name;
            or a function, sync or async, that returns targets. It is asked again when a replica is lost, and at most
            30 s later while runs begin; it runs on a thread of its own, an async one on an event loop of its own.
        url: `"grpc://host:port"`, `"grpcs://..."` (TLS), `"unix:/path.sock"` or `"inproc://name"`.
        token: the host's token, as text or the path of a file that is read for each call; by default the environment
            variable AGENTMATRIX_TOKEN, for a host on this machine or in AGENTMATRIX_TOKEN_HOSTS ("gpu-box, 10.0.0.5").
            A pickle keeps no token, no secret header and no key but the paths of files.
        api_key: the same, by RemoteGraph's name.
        headers: metadata sent with each call.
        credentials: a `grpc.ChannelCredentials`, instead of the certificates below.
        config: a config that every run begins with, as `with_config` would set it.
        name: the node's and the run's name; by default the agent's.
        timeout: seconds for a whole run; None is no limit.
        allow: classes, modules or names of modules whose types the host may send, besides those of the state of the
            graph that the agent stands in.
        unlisted: what an object of another class arrives as: `"dict"` is an `UnlistedValue`, a dict that names the
            class; `"error"` ends the call.
        forward: the keys of `config["configurable"]` that go along; None for all.
        store_prefix: the namespaces of the parent's store that the host may use begin so: `["notes"]`, or `()` for
            all of it. None, the default, closes the store.
        ssl_ca: PEM of the authorities to trust, bytes or path.
        ssl_certfile: PEM of this caller's certificate (mutual TLS), bytes or path.
        ssl_keyfile: PEM of its key, bytes or path.
        server_name: the name to expect in the host's certificate where it is not that of the address, as in a tunnel.
        insecure: send the token although the connection is plaintext and leaves this machine.
        connect_timeout: seconds until a host that does not answer counts as unreachable; one that does may take six
            times as long for an agent's card, since a large graph is slow to draw.
        retry_policy: when to send a run again that the host has not begun: it was busy (`HostBusy`), or did not answer
            (`HostUnreachable`). None, the default, raises at once. A busy host says when to come again, and is asked
            no sooner.
        reconnect_timeout: seconds in which to take up runs whose line was cut; 0 to lose them at once. None, the
            default, for as long as the host keeps them, unless it is found to be gone.
        max_value: bytes of one value that the host may send (a result, a part of a stream, a checkpoint).
        max_bytes: bytes of values on their way to and from the host that this process holds; by default a quarter of
            the machine's memory.

    Raises:
        AddressError: the address cannot be understood.
    """

    is_remote: ClassVar[bool] = True
    reports_written_keys: ClassVar[bool] = True

    def __init__(
        self,
        agent: str | Sequence[str] | Resolver,
        /,
        *,
        url: str | None = None,
        token: str | os.PathLike[str] | None = None,
        api_key: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        credentials: object | None = None,
        config: RunnableConfig | None = None,
        name: str | None = None,
        timeout: float | None = None,
        allow: Iterable[object] = (),
        unlisted: Unlisted = "dict",
        forward: Collection[str] | None = None,
        store_prefix: Sequence[str] | None = None,
        ssl_ca: Pem | None = None,
        ssl_certfile: Pem | None = None,
        ssl_keyfile: Pem | None = None,
        server_name: str | None = None,
        insecure: bool = False,
        connect_timeout: float = 5.0,
        reconnect_timeout: float | None = None,
        retry_policy: RetryPolicy | None = None,
        max_value: int = 1 << 30,
        max_bytes: int | None = None,
    ) -> None:
        targets = parse_targets(agent, url)
        options = ClientOptions(
            token=token or api_key, headers=dict(headers or {}), credentials=credentials,
            root_certificates=ssl_ca, certificate=ssl_certfile, private_key=ssl_keyfile, server_name=server_name,
            insecure=insecure, connect_timeout=connect_timeout, reconnect_timeout=reconnect_timeout,
            max_frame=max_value, max_bytes=max_bytes,
        )  # fmt: skip
        self._connection = AgentConnection(targets, options, tuple(allow), unlisted)
        self._path: tuple[str, ...] = ()
        self._nested: AgentCard | None = None
        self.name = name or targets.agent
        self.config = config
        self.timeout, self._retries = timeout, retry_policy
        self.forward = None if forward is None else frozenset(forward)
        self.store_prefix = None if store_prefix is None else tuple(store_prefix)
        self._set_pregel_attributes()

    def _set_pregel_attributes(self) -> None:
        """Sets what LangGraph reads of any graph. Nothing of it is local: `Pregel.__init__` is not called."""
        self.nodes, self.channels = {}, {}
        self.store = self.cache = self.context_schema = None
        self.stream_transformers = ()
        self.debug = False
        self._set_identity()

    def _set_identity(self) -> None:
        # By this name LangGraph tells the agents in nodes of one name apart, in the keys of a cache.
        self.__qualname__ = f"RemoteAgent({self.url}/{'/'.join((self.agent, *self._path))})"

    # Address and card.

    @property
    def url(self) -> str:
        """The host, as a URL; several with commas between them."""
        return self._connection.targets.url

    @property
    def agent(self) -> str:
        """The agent's name on the host."""
        return self._connection.targets.agent

    @property
    def replicas(self) -> list[ReplicaStatus]:
        """The hosts that are known, with the runs that this agent has there. Touches no network."""
        return self._connection.replicas.status()

    @property
    def reached(self) -> bool:
        """Whether the host has answered, so that the agent's card is known."""
        return self._known is not None

    @property
    def card(self) -> AgentCard:
        """The agent's card; fetched when it is not known yet.

        Raises:
            HostUnreachable, AgentNotFound, Unauthenticated: as their names say.
        """
        if self._known is None:
            self._connection.set_card(self._connection.describe().result())
        return self._card_at_path()

    async def acard(self) -> AgentCard:
        """The agent's card, awaited."""
        if self._known is None:
            self._connection.set_card(await asyncio.wrap_future(self._connection.describe()))
        return self._card_at_path()

    @property
    def _known(self) -> AgentCard | None:
        return self._nested or (self._connection.card if not self._path else None)

    def _card_at_path(self) -> AgentCard:
        card = self._known
        if card is None:
            card = self._connection.card
            for node in self._path:
                assert card is not None
                card = card.subgraphs[node]
            self._nested = card if self._path else None
        assert card is not None
        return card

    def ping(self, timeout: float = 5.0) -> float:
        """Seconds of a round trip to the host.

        Raises:
            HostUnreachable, Unauthenticated: as their names say.
        """
        return self._connection.transport.ping(timeout).result()

    async def aping(self, timeout: float = 5.0) -> float:
        """Seconds of a round trip to the host, awaited."""
        return await asyncio.wrap_future(self._connection.transport.ping(timeout))

    def close(self) -> None:
        """Gives the connection up; the next call makes a new one."""
        self._connection.close()

    async def aclose(self) -> None:
        """The same, from a coroutine."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        path = "".join(f"|{node}" for node in self._path)
        return f"RemoteAgent({self._connection.targets!s}{path!s}, {self._connection.state})"

    # Copies are remote as well and share the connection.

    def copy(self, update: dict[str, Any] | None = None) -> Self:
        """A copy with these attributes changed."""
        new: Self = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.__dict__.update(update or {})
        new._set_identity()
        return new

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Self:
        """A copy whose runs begin with this config."""
        return self.copy({"config": merge_configs(self.config, config, cast(RunnableConfig, kwargs))})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        connection = self._connection
        state = {key: value for key, value in self.__dict__.items() if key not in ("_connection", "_types")}
        options = connection.given.without_secrets()
        return (_unpickle, ((connection.targets, options, connection.allow, connection.unlisted), state))

    # Attributes that LangGraph reads of a graph (more in `CardAttributes`).

    @property
    def checkpointer(self) -> Any:  # type: ignore[override]
        """As the graph was compiled there: None, True, False, or a proxy of a checkpointer of its own."""
        card = self._known
        if card is None or card.checkpointer != "own":
            return None if card is None else card.checkpointer
        return checkpointer_proxy(HostCheckpointerRpc(self._call, self._acall), card.saver)

    # Structure.

    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """The drawing. Touches no network: a host that was not reached yet shows as one node that says so."""
        card = self._known
        return unreached_drawing(self.name, self._connection.address) if card is None else card.drawing(xray)

    async def aget_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        return self.get_graph(config, xray=xray)

    def get_subgraphs(
        self, *, namespace: str | None = None, recurse: bool = False
    ) -> Iterator[tuple[str, RemoteAgent]]:
        """The nested graphs on the host, each a `RemoteAgent`."""
        for node, card in self.card.subgraphs.items():
            if namespace is not None and namespace != node and not namespace.startswith(node + config_keys.NS_SEP):
                continue
            nested = self.copy({"_path": (*self._path, node), "_nested": card, "name": card.name, "config": None})
            if namespace in (None, node):
                yield node, nested
            if namespace == node:
                return
            if recurse:
                rest = None if namespace is None else namespace[len(node) + 1 :]
                for deeper, graph in nested.get_subgraphs(namespace=rest, recurse=True):
                    yield f"{node}{config_keys.NS_SEP}{deeper}", graph

    async def aget_subgraphs(
        self, *, namespace: str | None = None, recurse: bool = False
    ) -> AsyncIterator[tuple[str, RemoteAgent]]:
        """The nested graphs on the host, awaited."""
        await self.acard()
        for found in self.get_subgraphs(namespace=namespace, recurse=recurse):
            yield found

    # Verbs. Each runs the same verb on the host.

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Runs the agent to its end. Arguments, result and errors as of a local graph's `invoke`."""
        if wants_printing(kwargs):
            return super().invoke(input, config, **kwargs)
        config = ensure_config(self.config, config)
        self._learn_input_keys()
        return self._call("invoke", input, config=config, is_run=True, **kwargs).result()

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Runs the agent to its end, awaited."""
        if wants_printing(kwargs):
            return await super().ainvoke(input, config, **kwargs)
        config = ensure_config(self.config, config)
        await self._alearn_input_keys()
        return await self._acall("ainvoke", input, config=config, is_run=True, **kwargs).result()

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Runs the agent and yields the parts of its stream while it works, lazily as a local graph does."""
        config = ensure_config(self.config, config)
        if wants_printing(kwargs):
            yield from printed(partial(self.stream, input, config), kwargs, self.stream_mode)
            return
        self._learn_input_keys()
        yield from self._call("stream", input, config=config, is_run=True, **kwargs).parts()

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Runs the agent and yields the parts of its stream, asynchronously."""
        config = ensure_config(self.config, config)
        if wants_printing(kwargs):
            async for part in aprinted(partial(self.astream, input, config), kwargs, self.stream_mode):
                yield part
            return
        await self._alearn_input_keys()
        parts = self._acall("astream", input, config=config, is_run=True, **kwargs).parts()
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> Any:
        """The state of a thread, as of a local graph's `get_state`."""
        return self._call("get_state", config=self._state_config(config), subgraphs=subgraphs).result()

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> Any:
        """The state of a thread, awaited."""
        return await self._acall("aget_state", config=self._state_config(config), subgraphs=subgraphs).result()

    def get_state_history(self, config: RunnableConfig, **options: Any) -> Iterator[Any]:
        """The past states of a thread, newest first."""
        yield from self._call("get_state_history", config=self._state_config(config), **options).parts()

    async def aget_state_history(self, config: RunnableConfig, **options: Any) -> AsyncIterator[Any]:
        """The past states of a thread, newest first, asynchronously."""
        parts = self._acall("aget_state_history", config=self._state_config(config), **options).parts()
        try:
            async for state in parts:
                yield state
        finally:
            await parts.aclose()

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[Any]]) -> RunnableConfig:
        """Writes states into a thread, superstep by superstep; `update_state` comes down to this."""
        new: RunnableConfig = self._call(
            "bulk_update_state", config=self._state_config(config), supersteps=[[*step] for step in supersteps]
        ).result()
        return new

    async def abulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[Any]]) -> RunnableConfig:
        """Writes states into a thread, superstep by superstep, awaited."""
        new: RunnableConfig = await self._acall(
            "abulk_update_state", config=self._state_config(config), supersteps=[[*step] for step in supersteps]
        ).result()
        return new

    def explain(self, config: RunnableConfig) -> Explanation:
        """Why each node has run, was skipped, or waits: as of a local graph's `explain`."""
        from agentmatrix.explanation import Explanation

        return Explanation.from_dict(self._call("explain", config=self._state_config(config)).result())

    async def aexplain(self, config: RunnableConfig) -> Explanation:
        """The same, awaited."""
        from agentmatrix.explanation import Explanation

        return Explanation.from_dict(await self._acall("aexplain", config=self._state_config(config)).result())

    def actors(self, config: RunnableConfig) -> dict[str, ActorSnapshot]:
        """The actors of a thread, by path: as of a local graph's `actors`."""
        from agentmatrix.explanation import ActorSnapshot

        found = self._call("actors", config=self._state_config(config)).result()
        return {path: ActorSnapshot.from_dict(plain) for path, plain in found.items()}

    async def aactors(self, config: RunnableConfig) -> dict[str, ActorSnapshot]:
        """The same, awaited."""
        from agentmatrix.explanation import ActorSnapshot

        found = await self._acall("aactors", config=self._state_config(config)).result()
        return {path: ActorSnapshot.from_dict(plain) for path, plain in found.items()}

    def _state_config(self, config: RunnableConfig) -> RunnableConfig:
        return merge_configs(self.config, config)

    def clear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Empties the agent's cache on the host."""
        self._call("clear_cache", nodes).result()

    async def aclear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Empties the agent's cache on the host, awaited."""
        await self._acall("aclear_cache", nodes).result()


def with_replicas(agents: Sequence[RemoteAgent]) -> RemoteAgent:
    """One agent at all the hosts of these, which are replicas of it. Each host is called with its own options.

    Raises:
        AddressError: one of them asks a resolver or the DNS for its hosts.
    """
    first = agents[0]
    options: dict[Target, ClientOptions] = {}
    for agent in agents:
        connection = agent._connection
        if not connection.targets.are_fixed:
            raise AddressError(f"{agent!r} finds its hosts itself: give it alone, not in a list")
        for target in connection.targets.known:
            options[target] = connection.options_for(target)
    own = first._connection
    return first.copy(
        {"_connection": AgentConnection(ReplicaTargets(tuple(options)), own.given, own.allow, own.unlisted, options)}
    )


def _unpickle(
    origin: tuple[ReplicaTargets, ClientOptions, tuple[object, ...], Unlisted], state: dict[str, Any]
) -> RemoteAgent:
    remote = object.__new__(RemoteAgent)
    remote.__dict__.update(state)
    remote._connection = AgentConnection(*origin)
    return remote
