"""`Host`: offers graphs to callers on other machines.

Threads: frames move on the process's I/O thread (see `transport.iothread`); sync verbs run in a pool of worker threads
of the host, async verbs on one event loop (see `session.user_loop`); a few service threads decode signals and make
cards. So user code that blocks holds up other runs at most, never the frames, the signals and the cards. `start`,
`drain` and `stop` block; any thread may call them but the I/O thread, and the one whose loop the host uses.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

from langgraph.pregel import Pregel

from agentmatrix.errors import AddressError, HostBusy, HostError
from agentmatrix.host.context_task import ContextTask
from agentmatrix.host.frozen_objects import frozen_objects
from agentmatrix.host.graph_factory import GraphFactory, hosted, named_graphs
from agentmatrix.host.hosted_graph import graph_types, with_resources
from agentmatrix.host.resources import Checkpointer, Lifespan, Resources, Store
from agentmatrix.host.run_log import RunLog
from agentmatrix.host.run_metrics import run_metrics
from agentmatrix.host.servicer import HostServicer
from agentmatrix.pregel.node_functions import is_async_only
from agentmatrix.session.authorization import Authorization, Authorize
from agentmatrix.session.host_state import STOPPING_WORDS, ExportedGraph, HostState
from agentmatrix.session.run_limiter import RunLimiter
from agentmatrix.session.run_queue import RunQueue
from agentmatrix.session.run_record import RunObservers
from agentmatrix.session.stop_reasons import DRAINING, STOPPING
from agentmatrix.session.user_loop import UserLoop
from agentmatrix.session.version import spoken_version
from agentmatrix.transport import listen
from agentmatrix.transport.authentication import Authenticate
from agentmatrix.transport.base import Server
from agentmatrix.transport.options import Pem, ServerOptions
from agentmatrix.wire.codec import DEFAULT_MAX_BYTES, Codec

__all__ = ["Host"]

_logger = logging.getLogger("agentmatrix.host")

Graph = Pregel[Any, Any, Any, Any]

_SERVICE_THREADS = 4
_CLOSING_SECONDS = 30.0
"""How long a lifespan may take at its end."""
_REFUSING_SECONDS = 0.25
"""How long a host that drains refuses runs at least, before it closes its connections."""
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
        max_runs: runs at a time; more wait for their turn. Runs that a run of this host starts here need none.
        max_caller_runs: runs of one caller at a time; by default as many as the host takes.
        concurrency: runs at a time by agent, `{"expert": 1}` for one that has a card to itself; more wait. A number is
            for each agent.
        max_queue: runs that may wait; more are refused with `HostBusy`, which says when to come again.
        queue_timeout: seconds that a run may wait for its turn; None for no limit.
        max_streams: connected callers (processes) at a time.
        max_value: bytes of one value (an input, a result, a checkpoint) at most.
        max_bytes: bytes of values on their way in and out that the host holds; by default half of the machine's memory.
        max_caller_bytes: of them for one connection; by default half of `max_bytes`.
        start_timeout: seconds in which a new connection has to start its first run.
        answer_timeout: seconds in which a caller has to answer for its checkpointer, store or cache; None for no limit.
        linger: seconds that the runs of a caller whose line was cut, or who was killed, go on, so that it can take them
            up again; 0 to stop them at once.
        allow_version_skew: take callers whose langgraph has another minor version.
        checkpointer: for the graphs that were compiled without one: an object, `"sqlite:///runs.db"`,
            `"postgresql://..."`, or a function that makes one. Without it they use their callers'.
        store: likewise; an object, or a function that makes one.
        lifespan: takes the host and returns an async context manager: what it does first, such as loading a model, is
            done before the host serves; the rest after its last run.
        descriptions: sentences that say what the agents are for, by their names; by default the graphs' own.

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
        concurrency: Mapping[str, int] | int | None = None,
        max_queue: int = 100,
        queue_timeout: float | None = 600.0,
        max_streams: int = 1000,
        max_value: int = 1 << 30,
        max_bytes: int | None = None,
        max_caller_bytes: int | None = None,
        start_timeout: float = 10.0,
        answer_timeout: float | None = 300.0,
        linger: float = 30.0,
        allow_version_skew: bool = False,
        checkpointer: Checkpointer | None = None,
        store: Store | None = None,
        lifespan: Lifespan | None = None,
        descriptions: Mapping[str, str] | None = None,
    ) -> None:
        self.graphs = named_graphs(graphs)
        self.allow = tuple(allow)
        self.descriptions = dict(descriptions or {})
        self._allowed: dict[str, tuple[object, ...]] = {}
        self._address = address
        self._options = ServerOptions(
            token=token, tokens=tokens, authenticate=authenticate, insecure=insecure,
            certificate=_either(ssl_certfile, certificate, "ssl_certfile", "certificate"),
            private_key=_either(ssl_keyfile, private_key, "ssl_keyfile", "private_key"),
            client_ca=_either(ssl_ca, client_ca, "ssl_ca", "client_ca"),
            max_streams=max_streams, max_frame=max_value, max_bytes=max_bytes, max_caller_bytes=max_caller_bytes,
            start_timeout=start_timeout, linger=linger,
        )  # fmt: skip
        self._authorization, self._share_threads, self._tracebacks = Authorization(authorize), share_threads, tracebacks
        self._max_runs, self._max_caller_runs, self._skew = max_runs, max_caller_runs, allow_version_skew
        self._answer_timeout = answer_timeout
        self._queueing = max_queue, queue_timeout, concurrency
        self._user_loop = loop
        self._sources = checkpointer, store, lifespan
        self._resources: Resources | None = None
        self._opened: ContextTask[None] | None = None
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
        most, timeout, concurrency = self._queueing
        state = HostState(
            exported={},
            version=spoken_version(),
            workers=ThreadPoolExecutor(places.most_of_all, thread_name_prefix="agentmatrix-run"),
            services=ThreadPoolExecutor(_SERVICE_THREADS, thread_name_prefix="agentmatrix-service"),
            loop=loop.loop,
            handovers={loop.loop: loop.handover},
            watch=loop.watch,
            queue=RunQueue(places, concurrency, most),
            queue_timeout=timeout,
            answer_timeout=self._answer_timeout,
            linger=self._options.linger,
            allow_version_skew=self._skew,
            authorization=self._authorization,
            share_threads=self._share_threads,
            tracebacks=self._tracebacks,
            observers=RunObservers([RunLog(), *run_metrics(self.graphs)]),
            starting=True,
        )
        self._servicer = HostServicer(state, self.descriptions)
        options = replace(self._options, max_runs=max(_MOST_RUNS, places.most_of_all))
        server = listen(self._address, self._servicer, options)
        try:
            self._bound = server.start()
        except BaseException:
            loop.stop()
            raise
        loop.serve(self._bound)
        self._server, self._state, self._loop = server, state, loop
        try:
            self._open(state, loop.loop)
        except BaseException:
            self.stop()
            raise
        if self._server is not server:
            raise HostError("the host was stopped while it was starting")
        state.starting = False
        server.ready()
        _logger.info("serving %s at %s, %s", ", ".join(state.exported), self._bound, self._options.protection)
        return self

    def _open(self, state: HostState, loop: asyncio.AbstractEventLoop) -> None:
        """Does what comes before the first run: the checkpointer, the store, the lifespan; then the graphs."""
        resources = Resources(self, *self._sources)
        if any(source is not None for source in self._sources):
            self._opened = ContextTask(loop, resources.opened)
            try:
                self._opened.enter()
            except asyncio.CancelledError:
                raise HostError("the host was stopped while it was starting") from None
        self._resources, state.checkpointer = resources, resources.checkpointer
        concurrency = self._queueing[2]
        if isinstance(concurrency, Mapping) and (unknown := concurrency.keys() - self.graphs.keys()):
            _logger.warning("concurrency= names %s, which this host has not", ", ".join(sorted(unknown)))
        for name, graph in list(self.graphs.items()):
            state.exported[name] = self._export(graph, loop, *self._allowed.get(name, ()))

    def add(self, name: str, graph: Any, *, allow: Iterable[object] = ()) -> Graph | GraphFactory:
        """Offers one more graph, also while the host serves, or in its lifespan.

        Args:
            name: what callers call it; a graph of that name is replaced. Who knows the earlier one's state sends its
                keys until it connects anew.
            graph: a graph, anything that `as_agent` takes, or a function that makes graphs.
            allow: as for the host, for this graph alone.

        Returns:
            The graph as it is hosted.
        """
        added = self.graphs[name] = hosted(graph, name)
        self._allowed[name] = tuple(allow)
        if self._state is not None and not self._state.starting:
            self._state.exported[name] = self._export(added, self._state.loop, *self._allowed[name])
        return added

    def _export(self, graph: Graph | GraphFactory, loop: asyncio.AbstractEventLoop, *allow: object) -> ExportedGraph:
        resources = self._resources or Resources(self, None, None, None)

        def finish(graph: Graph) -> Graph:
            return with_resources(graph, resources.checkpointer, resources.store)

        factory = graph if isinstance(graph, GraphFactory) else None
        if isinstance(graph, GraphFactory):
            graph.finish = finish
            graph = graph.example(loop)
        else:
            graph = finish(graph)
        types, most = [*graph_types(graph), *self.allow, *allow], max(DEFAULT_MAX_BYTES, self._options.max_frame)
        codec = Codec(types, max_bytes=most, tracebacks=self._tracebacks)
        return ExportedGraph(graph, codec, is_async_only(graph), factory)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the host is stopped, or `timeout` seconds. Returns whether it was stopped.

        Without a timeout the process is taken to do nothing else: what it has made so far is not looked at by the
        garbage collector meanwhile (`gc.freeze`); if it has frozen something itself before, that stays as it is.
        """
        if timeout is not None:
            return self._stopped.wait(timeout)
        with frozen_objects():
            return self._stopped.wait()

    def drain(self, timeout: float = 30.0, *, grace: float = 10.0) -> None:
        """Stops in good order: health says NOT_SERVING, no run is taken, those under way end or stop at a checkpoint.

        A run that stops at a checkpoint raises LangGraph's `GraphDrained` at its caller, who goes on from there, here
        or elsewhere, by calling again with None. A run that is left at the end is lost (`HostLost`).

        Args:
            timeout: seconds until the host stops, whatever is left.
            grace: of them, those in which runs go on as they are. Then each run that has a checkpointer is asked to
                stop at its next checkpoint.
        """
        state, server = self._state, self._server
        if state is not None and server is not None:
            began = time.monotonic()
            state.stopping = True
            server.drain()
            state.queue.close(lambda: HostBusy(STOPPING_WORDS, serving=False))
            _logger.info("draining %s: %d runs under way", self._bound, len(state.runs))
            self._wait_for_runs(state, began + min(grace, timeout))
            for run in list(state.runs):
                run.drain(DRAINING)
            self._wait_for_runs(state, began + timeout)
            # Callers that have not heard of it are refused, which says that nothing has begun; a closed line does not.
            self._stopped.wait(min(began + timeout, began + _REFUSING_SECONDS) - time.monotonic())
        self.stop()

    def _wait_for_runs(self, state: HostState, until: float) -> None:
        while state.runs and time.monotonic() < until and not self._stopped.wait(0.02):
            pass

    def stop(self, grace: float = 1.0) -> None:
        """Stops the runs under way, tells their callers, and gives the address up. Idempotent.

        Args:
            grace: seconds that runs get to unwind.
        """
        server, state, loop, bound = self._server, self._state, self._loop, self._bound
        self._server = self._state = self._loop = self._bound = None
        if server is None or state is None or loop is None:
            return
        state.stopping = True
        state.queue.close(lambda: HostBusy(STOPPING_WORDS, serving=False))
        left = list(state.runs)
        for run in left:
            run.stop(STOPPING)
        limit = time.monotonic() + grace
        while state.runs and time.monotonic() < limit:
            time.sleep(0.005)
        server.stop(grace)
        state.workers.shutdown(wait=False, cancel_futures=True)
        state.services.shutdown(wait=False, cancel_futures=True)
        self._servicer.stop()
        self._close()
        loop.stop()
        self._stopped.set()
        if not state.starting:
            _logger.info("stopped serving at %s; %d runs were cut", bound, len(left))

    def _close(self) -> None:
        """Leaves the lifespan, the store and the checkpointer."""
        opened, self._opened, self._resources = self._opened, None, None
        if opened is None:
            return
        try:
            opened.leave(timeout=_CLOSING_SECONDS)
        except TimeoutError:
            _logger.error("the lifespan has not ended within %g seconds", _CLOSING_SECONDS)
        except Exception:
            _logger.exception("the lifespan has failed at its end")

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


def _either(value: Pem | None, alias: Pem | None, name: str, alias_name: str) -> Pem | None:
    if value is not None and alias is not None:
        raise AddressError(f"{name}= and {alias_name}= are the same option; give one of them")
    return alias if value is None else value
