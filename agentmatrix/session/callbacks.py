"""Callback handlers of a caller, and their proxies on the host.

A handler's type changes what LangChain and LangGraph send it and how models run, so the host gets one proxy for all
handlers of a kind. The proxy of a tracer is of the tracer's own class where the host has that class too: tracing that
is turned on at both ends looks whether a tracer of its class is there already, so that remote runs are counted once,
by the caller's. LangGraph's own stream handlers set message ids in place, which no proxy can do from afar: the host
gets replicas of them, of the same class, next to the model. For a watcher it has a recorder, which measures there.

Order: events are notifications, and reach the handlers in the order in which the host made them. A handler that may
raise into the run (`raise_error`) is called by a request instead, and the host waits for its return.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, Final, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, CallbackManager
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import BaseTracer
from langgraph.callbacks import GraphCallbackHandler

from agentmatrix.errors import ProtocolError
from agentmatrix.pregel.callback_handlers import (
    StreamingCallbackHandler,
    TracerBase,
    V2StreamingCallbackHandler,
    callback_manager,
    new_callback_manager,
    new_stream_handler,
    stream_handler_kind,
    stream_handler_state,
)
from agentmatrix.pregel.token_usage import without_token_usage
from agentmatrix.session.event_scope import EventScope
from agentmatrix.session.namespace_scope import NamespaceScope
from agentmatrix.session.proxies import RpcClient
from agentmatrix.session.watcher import hosted_recorder, packed_watcher
from agentmatrix.transport.base import FrameStream
from agentmatrix.watch.event_batches import EventBatches
from agentmatrix.watch.recorder import EventRecorder
from agentmatrix.watch.relay import EventRelay

__all__ = ["CallerCallbacks", "callback_proxies"]

logger = logging.getLogger("agentmatrix")

_EVENTS: Final = tuple(name for name in dir(BaseCallbackHandler) if name.startswith("on_"))
_GRAPH_EVENTS: Final = ("on_interrupt", "on_resume")
_IGNORE: Final = (
    ("on_llm", "ignore_llm"),
    ("on_stream_event", "ignore_llm"),
    ("on_chat_model_start", "ignore_chat_model"),
    ("on_chain", "ignore_chain"),
    ("on_tool", "ignore_agent"),
    ("on_agent", "ignore_agent"),
    ("on_retriever", "ignore_retriever"),
    ("on_retry", "ignore_retry"),
    ("on_custom_event", "ignore_custom_event"),
)


def _ignore_flag(event: str) -> str | None:
    """The attribute by which a handler ignores an event."""
    return next((flag for prefix, flag in _IGNORE if event.startswith(prefix)), None)


def _overridden(handler: BaseCallbackHandler) -> frozenset[str]:
    """The events that a handler implements."""
    bases = (BaseCallbackHandler, AsyncCallbackHandler)
    cls = type(handler)
    names = {
        name
        for name in _EVENTS
        if name in vars(handler) or all(getattr(cls, name, None) is not getattr(base, name, None) for base in bases)
    }
    # LangChain falls back from a chat model's start to an llm's.
    return frozenset(names | ({"on_chat_model_start"} if "on_llm_start" in names else set()))


def _traits(handler: BaseCallbackHandler) -> frozenset[str]:
    """Everything about a handler that LangChain or LangGraph looks at before it calls it."""
    kinds = {
        "graph": isinstance(handler, GraphCallbackHandler),
        # A protocol: LangGraph asks whether it is a base, not whether the methods are there.
        "tap": StreamingCallbackHandler in type(handler).__mro__,
        "v2": isinstance(handler, V2StreamingCallbackHandler),
        "tracer": isinstance(handler, BaseTracer),
        "raises": bool(handler.raise_error),
    }
    return frozenset(kind for kind, holds in kinds.items() if holds)


def _class_path(handler: BaseCallbackHandler, instrumented: Collection[type]) -> str:
    """The class of a tracer, `"module:name"`, and of a handler that instrumentation gives to every manager; else ""."""
    cls = type(handler)
    return f"{cls.__module__}:{cls.__qualname__}" if isinstance(handler, BaseTracer) or cls in instrumented else ""


class CallerCallbacks:
    """The caller's handlers for one run, in groups of one kind.

    Args:
        config: the run's config with its callbacks.
        is_async: whether the run is one of the async verbs.
        pack_metadata: returns metadata as they cross.
        scope: the namespaces that the host may speak for.
        host: `"host:port/agent"`, for watchers.
    """

    def __init__(
        self,
        config: RunnableConfig,
        *,
        is_async: bool,
        pack_metadata: Callable[[Mapping[str, Any]], dict[str, Any]],
        scope: NamespaceScope,
        host: str = "",
    ) -> None:
        self._host = host
        self.is_async = is_async
        self._replicas: dict[int, Any] = {}
        self._relays: dict[int, EventRelay] = {}
        self._groups: list[list[BaseCallbackHandler]] = []
        self._taps: dict[tuple[int, UUID], tuple[deque[Any], Any]] = {}
        manager = self._manager = callback_manager(config, is_async=is_async)
        inherited = {**(config.get("metadata") or {}), **manager.metadata, **manager.inheritable_metadata}
        self._scope = EventScope(scope, manager.parent_run_id, inherited)
        self.packed: dict[str, Any] = {
            "handlers": self._pack_handlers(
                without_token_usage(manager.handlers), manager.inheritable_handlers, manager.parent_run_id
            ),
            "parent_run_id": None if manager.parent_run_id is None else manager.parent_run_id.bytes,
            "tags": list(manager.tags),
            "inheritable_tags": list(manager.inheritable_tags),
            "metadata": pack_metadata(manager.metadata),
            "inheritable_metadata": pack_metadata(manager.inheritable_metadata),
        }

    def _pack_handlers(
        self,
        handlers: list[BaseCallbackHandler],
        inheritable: list[BaseCallbackHandler],
        parent_run: UUID | None,
    ) -> list[dict[str, Any]]:
        packed: list[dict[str, Any]] = []
        groups: dict[tuple[bool, bool, frozenset[str], str], dict[str, Any]] = {}
        instrumented = {type(handler) for handler in CallbackManager([]).handlers}
        for number, handler in enumerate(dict.fromkeys([*handlers, *inheritable])):
            here, below = handler in handlers, handler in inheritable
            if isinstance(handler, EventRecorder):
                self._relays[number] = EventRelay(handler, parent_run, self._scope.scope, self._host)
                watcher = packed_watcher(number, handler, self._scope.scope.namespace)
                packed.append({**watcher, "here": here, "below": below})
                continue
            kind = stream_handler_kind(handler)
            if kind is not None:
                self._replicas[number] = handler
                state = stream_handler_state(handler)
                packed.append({"replica": number, "kind": kind, "here": here, "below": below, **state})
                continue
            key = (here, below, _traits(handler), _class_path(handler, instrumented))
            if key not in groups:
                groups[key] = {"group": len(self._groups), "traits": key[2], "here": here, "below": below, "events": ()}
                groups[key]["class"] = key[3]
                packed.append(groups[key])
                self._groups.append([])
            self._groups[groups[key]["group"]].append(handler)
            groups[key]["events"] = tuple(sorted({*groups[key]["events"], *_overridden(handler)}))
        return packed

    def on_event(self, kind: str, args: tuple[Any, ...]) -> Awaitable[Any] | None:
        """Passes an event of the host on to the handlers. The result of an async run is to be awaited."""
        if kind == "callback":
            return self.call(*args)
        if kind == "tap":
            return self._tap(*args)
        if kind == "replica":
            number, chunk = args
            handler = self._replica(number)
            self._scope.check_replica(chunk)
            if chunk[1] == "messages" and getattr(chunk[2][0], "id", None) is not None:
                handler.seen.add(chunk[2][0].id)
            handler.stream(chunk)
        elif kind == "seen":
            self._replica(args[0]).seen |= set(args[1])
        elif kind == "watched":
            if args[0] not in self._relays:
                raise ProtocolError("the host told of a run to a watcher that is not lent to it")
            self._relays[args[0]].take(args[1])
        return None

    def on_queue(self, agent: str, place: int) -> Awaitable[None] | None:
        """Tells all handlers, as LangChain's custom event `queue`, that the run waits for its turn on the host."""
        data = {"agent": agent, "place": place}
        handlers = list(dict.fromkeys([*self._manager.handlers, *self._manager.inheritable_handlers]))
        run = self._manager.parent_run_id or uuid4()
        tell: Callable[..., Any] = ahandle_event if self.is_async else handle_event
        awaitable: Awaitable[None] | None = tell(
            handlers, "on_custom_event", "ignore_custom_event", "queue", data, run_id=run, tags=[], metadata={}
        )
        return awaitable

    def follow(self, frames: FrameStream | None) -> None:
        """Let watchers see how much of a large value has crossed.

        Args:
            frames: of the run; None once it has ended.
        """
        for relay in self._relays.values():
            relay.follow(None if frames is None else lambda: (frames.arriving, frames.room))

    def _replica(self, number: Any) -> Any:
        if number not in self._replicas:
            raise ProtocolError("the host sent an event for a handler that is not lent to it")
        return self._replicas[number]

    def _group(self, number: Any) -> list[BaseCallbackHandler]:
        if type(number) is not int or not 0 <= number < len(self._groups):
            raise ProtocolError("the host sent an event for handlers that are not lent to it")
        return self._groups[number]

    def call(self, group: int, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any] | None:
        """Calls an event of a group of handlers."""
        handlers = self._group(group)
        self._scope.check_callback(event, args, kwargs)
        if event in _GRAPH_EVENTS:
            return self._graph_event(handlers, event, args)
        if event not in _EVENTS:
            return None
        if self.is_async:
            return ahandle_event(handlers, event, _ignore_flag(event), *args, **kwargs)
        handle_event(handlers, event, _ignore_flag(event), *args, **kwargs)
        return None

    async def acall(self, group: int, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Calls an event of a group of handlers, awaited."""
        waiting = self.call(group, event, args, kwargs)
        if waiting is not None:
            await waiting

    def _graph_event(
        self, handlers: list[BaseCallbackHandler], event: str, args: tuple[Any, ...]
    ) -> Awaitable[Any] | None:
        if self.is_async:
            return self._agraph_event(handlers, event, args)
        for handler in handlers:
            with _logged(handler, event):
                getattr(handler, event)(*args)
        return None

    async def _agraph_event(self, handlers: list[BaseCallbackHandler], event: str, args: tuple[Any, ...]) -> None:
        for handler in handlers:
            with _logged(handler, event):
                result = getattr(handler, event)(*args)
                if inspect.isawaitable(result):
                    await result

    def _tap(self, group: int, run_id: UUID, chunk: Any) -> Awaitable[Any] | None:
        self._scope.check_run(run_id)
        if self.is_async:
            return self._atap(group, run_id, chunk)
        for handler in self._group(group):
            if StreamingCallbackHandler in type(handler).__mro__:
                source, output = self._tapped(
                    handler, run_id, lambda h, s: iter(h.tap_output_iter(run_id, _consume(s)))
                )
                source.append(chunk)
                next(output, None)
        return None

    async def _atap(self, group: int, run_id: UUID, chunk: Any) -> None:
        for handler in self._group(group):
            if StreamingCallbackHandler in type(handler).__mro__:
                source, output = self._tapped(
                    handler, run_id, lambda h, s: aiter(h.tap_output_aiter(run_id, _aconsume(s)))
                )
                source.append(chunk)
                with contextlib.suppress(StopAsyncIteration):
                    await anext(output)

    def _tapped(self, handler: Any, run_id: UUID, start: Callable[[Any, deque[Any]], Any]) -> tuple[deque[Any], Any]:
        key = (id(handler), run_id)
        if key not in self._taps:
            source: deque[Any] = deque()
            self._taps[key] = (source, start(handler, source))
        return self._taps[key]


@contextlib.contextmanager
def _logged(handler: BaseCallbackHandler, event: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("Error in %s.%s callback: %r", type(handler).__name__, event, error)
        if handler.raise_error:
            raise


def _consume(source: deque[Any]) -> Iterator[Any]:
    while True:
        yield source.popleft()


async def _aconsume(source: deque[Any]) -> AsyncIterator[Any]:
    while True:
        yield source.popleft()


class _HandlerProxy(BaseCallbackHandler):
    """Forwards events to a group of the caller's handlers."""

    run_inline = True  # never in a thread pool, which would lose the order

    def __init__(self, rpc: RpcClient, group: int, *, raises: bool) -> None:
        self.rpc, self.group, self.raise_error = rpc, group, raises


class _TapProxy(StreamingCallbackHandler):  # type: ignore[type-arg]
    """Forwards the chunks of a run's output as it yields them."""

    rpc: RpcClient
    group: int

    def tap_output_iter(self, run_id: UUID, output: Iterator[Any]) -> Iterator[Any]:
        for chunk in output:
            self.rpc.notify("tap", self.group, run_id, chunk)
            yield chunk

    async def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for chunk in output:
            self.rpc.notify("tap", self.group, run_id, chunk)
            yield chunk


def _own_class(path: str) -> type | None:
    """A class of handlers that is known here, by `_class_path`. Nothing is imported for it, and none is constructed."""
    module, _, qualname = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):  # through __dict__: getattr could run a module's __getattr__
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and issubclass(found, BaseCallbackHandler) else None


def _forwarding_method(event: str, *, waits: bool, is_async: bool) -> Callable[..., Any]:
    """The method of a proxy for one event: a request where the host waits, else a notification."""

    def notify(self: _HandlerProxy, *args: Any, **kwargs: Any) -> None:
        self.rpc.notify("callback", self.group, event, args, kwargs)

    def request(self: _HandlerProxy, *args: Any, **kwargs: Any) -> None:
        self.rpc.request("callback", "call", self.group, event, args, kwargs)

    async def arequest(self: _HandlerProxy, *args: Any, **kwargs: Any) -> None:
        await self.rpc.arequest("callback", "acall", self.group, event, args, kwargs)

    return (arequest if is_async else request) if waits else notify


def _handler_proxy(rpc: RpcClient, packed: dict[str, Any], *, is_async: bool) -> BaseCallbackHandler:
    traits: frozenset[str] = packed["traits"]
    bases: list[type] = [_HandlerProxy]
    bases += [GraphCallbackHandler] if "graph" in traits else []
    bases += [_TapProxy] if "tap" in traits else []
    bases += [V2StreamingCallbackHandler] if "v2" in traits else []
    bases += [TracerBase] if "tracer" in traits else []
    events = {*packed["events"], *(_GRAPH_EVENTS if "graph" in traits else ())}
    methods: dict[str, Any] = {
        event: _forwarding_method(event, waits="raises" in traits, is_async=is_async)
        for event in events
        if event in _EVENTS or event in _GRAPH_EVENTS
    }
    if (own := _own_class(packed["class"])) is not None:
        bases.append(own)
        methods |= {flag: False for _, flag in _IGNORE}  # the class may ask its instance
    cls: Any = type("HandlerProxy", tuple(bases), methods)
    handler: Any = cls(rpc, packed["group"], raises="raises" in traits)
    if "tracer" in traits:
        handler.prepare()
    return cast(BaseCallbackHandler, handler)


def _replica(rpc: RpcClient, packed: dict[str, Any]) -> Any:
    number = packed["replica"]
    return new_stream_handler(
        packed["kind"],
        lambda chunk: rpc.notify("replica", number, chunk),
        subgraphs=packed["subgraphs"],
        parent_ns=packed["parent_ns"],
        seen=packed["seen"],
    )


def callback_proxies(rpc: RpcClient, packed: dict[str, Any], *, is_async: bool) -> tuple[Any, Callable[[], None]]:
    """The callback manager of a run on the host.

    Args:
        rpc: reaches the caller.
        packed: `CallerCallbacks.packed`.
        is_async: whether the run is one of the async verbs.

    Returns:
        The manager, and a function to call at the run's end, which tells the caller which messages were streamed.
    """
    here: list[BaseCallbackHandler] = []
    below: list[BaseCallbackHandler] = []
    replicas: list[tuple[int, Any, set[Any]]] = []
    batches: list[EventBatches] = []
    parent_run = None if packed["parent_run_id"] is None else UUID(bytes=packed["parent_run_id"])
    for entry in packed["handlers"]:
        if "replica" in entry:
            handler = _replica(rpc, entry)
            replicas.append((entry["replica"], handler, set(entry["seen"])))
        elif "watcher" in entry:
            handler, events = hosted_recorder(rpc, entry, parent_run)
            batches.append(events)
        else:
            handler = _handler_proxy(rpc, entry, is_async=is_async)
        here += [handler] if entry["here"] else []
        below += [handler] if entry["below"] else []
    fields = {key: packed[key] for key in ("tags", "inheritable_tags", "metadata", "inheritable_metadata")}
    manager = new_callback_manager(
        is_async, handlers=here, inheritable_handlers=below, parent_run_id=parent_run, **fields
    )

    def finish() -> None:
        for events in batches:
            events.close()
        for number, replica, before in replicas:
            seen: set[Any] = getattr(replica, "seen", set())
            if seen - before:
                rpc.notify("seen", number, seen - before)

    return manager, finish
