"""`Host`: offers graphs to callers on other machines.

Threads: frames move on the process's I/O thread (see `transport.iothread`); sync verbs run in a pool of worker threads
of the host, async verbs on one event loop (see `session.user_loop`); a few service threads decode signals and make
cards. So user code that blocks holds up other runs at most, never the frames, the signals and the cards. `start`,
`drain` and `stop` block; any thread may call them but the I/O thread, and the one whose loop the host uses.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.pregel import Pregel

from agentmatrix.agent import as_agent
from agentmatrix.card import describe
from agentmatrix.errors import AddressError, HostBusy, NotAnAgentError
from agentmatrix.pregel.node_functions import is_async_only
from agentmatrix.pregel.state_graph import schemas_of
from agentmatrix.session.authorization import Authorization, Authorize
from agentmatrix.session.checkpointer import describe_saver
from agentmatrix.session.host_run import STOPPING, HostRun
from agentmatrix.session.host_state import ExportedGraph, HostState
from agentmatrix.session.run_limiter import RunLimiter
from agentmatrix.session.schema_types import describe_types
from agentmatrix.session.user_loop import UserLoop
from agentmatrix.session.version import spoken_version
from agentmatrix.transport import listen
from agentmatrix.transport.admission import caller_of
from agentmatrix.transport.authentication import Authenticate
from agentmatrix.transport.base import FrameReceiver, FrameStream, Peer, Server
from agentmatrix.transport.identity import Identity
from agentmatrix.transport.options import Pem, ServerOptions
from agentmatrix.wire.codec import DEFAULT_MAX_BYTES, Codec, types_of
from agentmatrix.wire.v1.service_pb2 import AgentName, Card, DescribeReply, ListAgentsReply

__all__ = ["Host"]

_SERVICE_THREADS = 4
_CARD_THREADS = 64
"""A card may need those of agents inside, which this host may have too; one agent has one at a time."""
_MOST_RUNS = 10_000


class Host:
    """Offers graphs over gRPC. A context manager, sync and async; or `start()`, `wait()`, `stop()`.

    All async code of a host runs on one event loop: its own, or the caller's. `async with Host(...)` takes the loop
    that runs there, so that in a notebook one model object serves locally and hosted.

    A host keeps nothing: a graph compiled without a checkpointer uses its caller's, through the run's stream, as a
    local subgraph uses its parent's. So any replica may serve the next call.

    Args:
        graphs: the graphs by the names that callers use; or one graph, which goes by its own name.
        address: `"127.0.0.1:50051"` (port 0: any free one), `"unix:/path.sock"` or `"inproc://name"`.
        token: what callers must send, as text or the path of a file; None admits every caller that can connect.
        tokens: the token of each caller by its name, or the path of a file with lines of `name:token`. So callers have
            an identity, which nodes see as `runtime.server_info.user`.
        authenticate: takes the metadata of a call and its peer, sync or async; returns the identity (a name, or an
            `agentmatrix.Identity`), or None to refuse. Instead of tokens.
        authorize: takes identity, agent and verb, and returns whether the call is allowed; or a table of the agents
            that each identity may call, `{"alice": ["research"], "*": ["hello"]}`. None allows all.
        share_threads: callers share the threads of a checkpointer that a graph was compiled with. Otherwise each
            identity has its own: thread "1" of alice is stored as "alice/1".
        ssl_certfile: PEM of the host's certificate chain, bytes or path; with `ssl_keyfile` it turns TLS on.
        ssl_keyfile: PEM of its key, bytes or path.
        ssl_ca: PEM of the authority that callers' certificates must come from (mutual TLS), bytes or path. The name of
            a caller's certificate is its identity: its first alternative name, else its common name.
        certificate, private_key, client_ca: the same three, by other names.
        insecure: allow an address that others can reach without TLS and a token.
        allow: classes, modules or names of modules whose types callers may send, besides those of the graphs' schemas.
        tracebacks: callers get the traceback of an error, with files and source lines of this host, not its text alone.
        loop: the event loop for async code, which has to run as long as the host does; by default one of the host's
            own, in `async with` the running one.
        max_runs: runs at a time; more are refused with `HostBusy`. Runs that a run of this host starts here need none.
        max_caller_runs: runs of one caller at a time; by default as many as the host takes.
        max_streams: connected callers (processes) at a time.
        max_value: bytes of one value (an input, a result, a checkpoint) at most.
        max_bytes: bytes of values on their way in and out that the host holds; by default half of the machine's memory.
        max_caller_bytes: of them for one connection; by default half of `max_bytes`.
        start_timeout: seconds in which a new connection has to start its first run.
        answer_timeout: seconds in which a caller has to answer for its checkpointer, store or cache; None for no limit.
        allow_version_skew: take callers whose langgraph has another minor version.

    Raises:
        NotAnAgentError: something that is no graph and cannot be made one.
    """

    def __init__(
        self,
        graphs: Mapping[str, Any] | Any,
        *,
        address: str = "127.0.0.1:0",
        token: str | os.PathLike[str] | None = None,
        tokens: Mapping[str, str] | str | os.PathLike[str] | None = None,
        authenticate: Authenticate | None = None,
        authorize: Authorize | None = None,
        share_threads: bool = False,
        ssl_certfile: Pem | None = None,
        ssl_keyfile: Pem | None = None,
        ssl_ca: Pem | None = None,
        certificate: Pem | None = None,
        private_key: Pem | None = None,
        client_ca: Pem | None = None,
        insecure: bool = False,
        allow: Iterable[object] = (),
        tracebacks: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        max_runs: int = 1000,
        max_caller_runs: int | None = None,
        max_streams: int = 1000,
        max_value: int = 1 << 30,
        max_bytes: int | None = None,
        max_caller_bytes: int | None = None,
        start_timeout: float = 10.0,
        answer_timeout: float | None = 300.0,
        allow_version_skew: bool = False,
    ) -> None:
        self.graphs = _named(graphs)
        self.allow = tuple(allow)
        self._address = address
        self._options = ServerOptions(
            token=token, tokens=tokens, authenticate=authenticate, insecure=insecure,
            certificate=_either(ssl_certfile, certificate, "ssl_certfile", "certificate"),
            private_key=_either(ssl_keyfile, private_key, "ssl_keyfile", "private_key"),
            client_ca=_either(ssl_ca, client_ca, "ssl_ca", "client_ca"),
            max_streams=max_streams, max_frame=max_value, max_bytes=max_bytes, max_caller_bytes=max_caller_bytes,
            start_timeout=start_timeout,
        )  # fmt: skip
        self._authorization, self._share_threads, self._tracebacks = Authorization(authorize), share_threads, tracebacks
        self._max_runs, self._max_caller_runs, self._skew = max_runs, max_caller_runs, allow_version_skew
        self._answer_timeout = answer_timeout
        self._user_loop = loop
        self._server: Server | None = None
        self._state: HostState | None = None
        self._loop: UserLoop | None = None
        self._bound: str | None = None
        self._stopped = threading.Event()

    @property
    def address(self) -> str:
        """Where it really serves, `"127.0.0.1:41234"`.

        Raises:
            AddressError: it was not started.
        """
        if self._bound is None:
            raise AddressError("the host has no address before it is started; call start() or use it in a with block")
        return self._bound

    def start(self) -> Self:
        """Binds the address and serves, in threads of its own. Returns at once.

        Raises:
            AddressError: the address is in use, cannot be understood, or may not be served without TLS and a token.
        """
        if self._server is not None:
            return self
        self._stopped.clear()
        loop, places = UserLoop(self._user_loop), RunLimiter(self._max_runs, self._max_caller_runs)
        state = HostState(
            exported={name: self._export(graph) for name, graph in self.graphs.items()},
            version=spoken_version(),
            workers=ThreadPoolExecutor(places.most_of_all, thread_name_prefix="agentmatrix-run"),
            services=ThreadPoolExecutor(_SERVICE_THREADS, thread_name_prefix="agentmatrix-service"),
            loop=loop.loop,
            handovers={loop.loop: loop.handover},
            watch=loop.watch,
            places=places,
            answer_timeout=self._answer_timeout,
            allow_version_skew=self._skew,
            authorization=self._authorization,
            share_threads=self._share_threads,
            tracebacks=self._tracebacks,
        )
        self._servicer = _HostServicer(state)
        options = replace(self._options, max_runs=max(_MOST_RUNS, places.most_of_all))
        server = listen(self._address, self._servicer, options)
        try:
            self._bound = server.start()
        except BaseException:
            loop.stop()
            raise
        loop.serve(self._bound)
        self._server, self._state, self._loop = server, state, loop
        return self

    def add(self, name: str, graph: Any, *, allow: Iterable[object] = ()) -> Pregel[Any, Any, Any, Any]:
        """Offers one more graph, also while the host serves.

        Args:
            name: what callers call it; a graph of that name is replaced.
            graph: a graph, or anything that `as_agent` takes.
            allow: as for the host, for this graph alone.

        Returns:
            The graph as it is hosted.
        """
        hosted = self.graphs[name] = _as_graph(graph, name)
        if self._state is not None:
            self._state.exported[name] = self._export(hosted, *allow)
        return hosted

    def _export(self, graph: Pregel[Any, Any, Any, Any], *allow: object) -> ExportedGraph:
        types = [*graph_types(graph), *self.allow, *allow]
        codec = Codec(types, max_bytes=max(DEFAULT_MAX_BYTES, self._options.max_frame), tracebacks=self._tracebacks)
        return ExportedGraph(graph, codec, is_async_only(graph))

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the host is stopped, or `timeout` seconds. Returns whether it was stopped."""
        return self._stopped.wait(timeout)

    def drain(self, grace: float = 30.0) -> None:
        """Takes no more runs, lets those under way go on for up to `grace` seconds, then stops."""
        state, server = self._state, self._server
        if state is not None and server is not None:
            state.stopping = True
            server.drain()
            limit = time.monotonic() + grace
            while state.runs and time.monotonic() < limit:
                self._stopped.wait(0.02)
        self.stop()

    def stop(self, grace: float = 1.0) -> None:
        """Stops the runs under way, tells their callers, and gives the address up. Idempotent.

        Args:
            grace: seconds that runs get to unwind.
        """
        server, state, loop = self._server, self._state, self._loop
        self._server = self._state = self._loop = self._bound = None
        if server is None or state is None or loop is None:
            return
        state.stopping = True
        for run in list(state.runs):
            run.stop(STOPPING)
        limit = time.monotonic() + grace
        while state.runs and time.monotonic() < limit:
            time.sleep(0.005)
        server.stop(grace)
        state.workers.shutdown(wait=False, cancel_futures=True)
        state.services.shutdown(wait=False, cancel_futures=True)
        self._servicer.stop()
        loop.stop()
        self._stopped.set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self._user_loop = self._user_loop or asyncio.get_running_loop()
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.stop)

    def __repr__(self) -> str:
        return f"Host({', '.join(self.graphs)}; {self._bound or 'not started'})"


class _HostServicer:
    """The host, as a server of the transport calls it: on the I/O thread."""

    def __init__(self, state: HostState) -> None:
        self._state = state
        self._cards = ThreadPoolExecutor(_CARD_THREADS, thread_name_prefix="agentmatrix-card")
        self._making: dict[str, Future[DescribeReply]] = {}

    def stop(self) -> None:
        """Ends the threads."""
        self._cards.shutdown(wait=False, cancel_futures=True)

    def accept(self, frames: FrameStream, peer: Peer) -> FrameReceiver:
        return HostRun(frames, self._state, caller_of(peer), peer.user)

    def describe(self, agent: str, peer: Peer) -> Future[DescribeReply]:
        # On threads of their own: a function that authorizes may block, and drawing a large graph takes seconds.
        answer: Future[DescribeReply] = Future()
        if self._state.authorization.blocks:
            asked = self._state.services.submit(self._give_card, agent, peer.user, answer)
            asked.add_done_callback(lambda done: done.cancelled() and answer.cancel())
        else:
            self._give_card(agent, peer.user, answer)
        return answer

    def _give_card(self, agent: str, user: Identity | None, answer: Future[DescribeReply]) -> None:
        """Gives the card to who may have it. Who asks while it is made gets the same: it is the same for all callers.

        Two threads may come here at once; then the card is made twice.
        """
        try:
            self._state.authorization.check(user, agent, "describe")
            exported = self._state.graph(agent, user)
            making = self._making.get(agent)
            if making is None or making.done():
                making = self._making[agent] = self._cards.submit(self._describe, exported)
        except Exception as error:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return
        making.add_done_callback(lambda made: _pass_on(made, answer))

    def _describe(self, exported: ExportedGraph) -> DescribeReply:
        card = {**describe(exported.graph, describe_saver, describe_types), "langgraph": self._state.version.langgraph}
        details = exported.codec.encode(card, "card")
        named = Card(name=card["name"], description=card["description"], details=details)
        return DescribeReply(version=self._state.version, card=named)

    def list_agents(self, peer: Peer) -> Future[ListAgentsReply]:
        if self._state.authorization.blocks:
            return self._state.services.submit(self._list, peer.user)
        future: Future[ListAgentsReply] = Future()
        future.set_result(self._list(peer.user))
        return future

    def _list(self, user: Identity | None) -> ListAgentsReply:
        names = [AgentName(name=name) for name in self._state.names_for(user)]
        return ListAgentsReply(version=self._state.version, agents=names)


def _either(value: Pem | None, alias: Pem | None, name: str, alias_name: str) -> Pem | None:
    if value is not None and alias is not None:
        raise AddressError(f"{name}= and {alias_name}= are the same option; give one of them")
    return alias if value is None else value


def _pass_on(made: Future[DescribeReply], answer: Future[DescribeReply]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    if made.cancelled():
        answer.set_exception(HostBusy("the host is stopping"))
    elif (error := made.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(made.result())


def graph_types(graph: Any) -> set[type]:
    """The classes in the schemas of a graph and of its nested graphs: the types that callers may send it."""
    found = types_of(*schemas_of(graph))
    for _, nested in graph.get_subgraphs():
        if not getattr(type(nested), "is_remote", False):
            found |= graph_types(nested)
    return found


def _named(graphs: Mapping[str, Any] | Any) -> dict[str, Pregel[Any, Any, Any, Any]]:
    if not isinstance(graphs, Mapping):
        graph = _as_graph(graphs, None)
        return {graph.get_name(): graph}
    return {name: _as_graph(graph, name) for name, graph in graphs.items()}


def _as_graph(obj: Any, name: str | None) -> Pregel[Any, Any, Any, Any]:
    """A graph of anything that is an agent: a function or a model becomes the one node of a graph of messages."""
    agent = as_agent(obj, name=name)
    if isinstance(agent, Pregel):
        return agent
    builder: Any = StateGraph(MessagesState)
    node = name or getattr(obj, "__name__", None) or "agent"
    try:
        builder.add_node(node, agent).add_edge(START, node).add_edge(node, END)
    except (TypeError, ValueError) as error:
        raise NotAnAgentError(f"{obj!r} cannot be hosted: {error}") from error
    graph: Pregel[Any, Any, Any, Any] = builder.compile(name=node)
    return graph
