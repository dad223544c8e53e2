"""A run's config on two machines: packed by the caller, made anew by the host.

What makes a graph run as nested lives under reserved keys (see `agentmatrix.pregel.config_keys`). Some are sent by
value; objects stay with the caller and get proxies on the host; the rest means something only inside the parent's task,
or is a key of a newer LangGraph that is not known here.

The packed form is a dict: "config" as it is, "configurable" and "metadata" key by key (see `config_items`), "reserved"
by value, "lent" the descriptions from which proxies are made, "callbacks" the handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.runtime import RunControl, Runtime, ServerInfo

from agentmatrix.pregel import config_keys
from agentmatrix.pregel.callback_handlers import has_callbacks, new_callback_manager
from agentmatrix.pregel.config_values import (
    ReplayStateProxy,
    StreamProtocol,
    current_namespace,
    has_heartbeat,
    has_stream_writer,
    in_namespace,
    is_default_recursion_limit,
    scratchpad_proxy,
    scratchpad_state,
    visited_namespaces,
)
from agentmatrix.pregel.run_control import RunControlProxy, set_drained
from agentmatrix.pregel.written_keys import WRITTEN_KEYS
from agentmatrix.session.callbacks import CallerCallbacks, callback_proxies
from agentmatrix.session.checkpointer import checkpointer_proxy, describe_saver, with_listed_types
from agentmatrix.session.config_items import (
    pack_checkpoint_map,
    pack_fields,
    pack_items,
    pack_more,
    unpack_checkpoint_map,
    unpack_context,
    unpack_fields,
    unpack_items,
    unpack_more,
)
from agentmatrix.session.event_scope import EventScope
from agentmatrix.session.namespace_scope import NamespaceScope, granted_namespace, without_task_ids
from agentmatrix.session.proxies import ProxiedObjects, RpcClient
from agentmatrix.session.remote_usage import CallerUsage
from agentmatrix.session.saver_scope import OF_RUN, LentSaver
from agentmatrix.session.sent_checkpoint import SentCheckpoint
from agentmatrix.session.store import CacheProxy, ClosedStore, LentCache, LentStore, StoreProxy
from agentmatrix.transport.identity import Identity
from agentmatrix.wire.codec import Codec

__all__ = ["CallerConfig", "HostRunConfig"]

_CACHE_OF_REMOTE_AGENTS: Final = "agentmatrix.remote"
"""The namespace of a cache that remote agents use, each below it its own."""
CHECKPOINT_MAP: Final = "checkpoint_map"
_MOST_UNSAVED: Final = 64
"""Graphs around a run without a checkpointer, whose checkpoints are named to it all the same, as locally."""
_CONFIGURABLE: Final = 'config["configurable"]'
_METADATA: Final = 'config["metadata"]'


_PLAIN_KEYS: Final = frozenset({"tags", "run_name", "max_concurrency", "recursion_limit", "run_id"})
"""The keys of a config that cross as they are."""


def _said_by_the_caller(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller may say in `configurable` or `metadata`: nothing that LangGraph or a host keeps to itself."""
    if not (isinstance(values, Mapping) and values):
        return {}
    return {
        key: value for key, value in values.items() if isinstance(key, str) and not key.startswith(config_keys.HIDDEN)
    }


class CallerConfig:
    """The caller's side of a run's config.

    Args:
        config: the config as a local graph would get it.
        codec: decides what can be encoded.
        is_async: whether the verb is one of the async ones.
        is_run: whether the verb runs nodes, rather than reading or writing state.
        objects: takes the objects that stay here.
        forward: the keys of `configurable` that go along; None for all.
        store_prefix: the namespaces of the store that the host may use begin so; None for none.
        agent: `"host:port/agent"`; the namespace of the cache that the host may use is named after it.
        has_memory: whether the graph keeps one history for a thread in its parent's checkpointer (`checkpointer=True`).

    Attributes:
        callbacks: the caller's handlers, where there are any.
        usage: is told what the run has used.
        left_out: the parts of the config that could not be encoded, by the sentence of their placeholder on the host.
    """

    def __init__(
        self,
        config: RunnableConfig,
        *,
        codec: Codec,
        is_async: bool,
        is_run: bool,
        objects: ProxiedObjects,
        forward: Collection[str] | None = None,
        store_prefix: tuple[str, ...] | None = None,
        agent: str = "",
        has_memory: bool = False,
    ) -> None:
        self.config, self._has_memory = config, has_memory
        self.configurable: dict[str, Any] = dict(config.get("configurable") or {})
        self.scope = NamespaceScope(granted_namespace(self.configurable, is_run=is_run))
        self._agent = agent
        self._codec, self._objects = codec, objects
        self._forward, self._store_prefix = forward, store_prefix
        self.callbacks: CallerCallbacks | None = None
        self.left_out: dict[str, Any] = {}
        self.usage = CallerUsage()
        self.events = EventScope(self.scope)
        self._is_async, self._is_run = is_async, is_run
        if is_run and has_callbacks(config):
            self._lend_callbacks()
        self.control: RunControl | None = None
        self.saver: LentSaver | None = None
        self._subgraph = 0
        """Which nested graph of its task this one is, from 0."""

    def _lend_callbacks(self) -> CallerCallbacks:
        self.callbacks = CallerCallbacks(
            self.config,
            is_async=self._is_async,
            pack_metadata=lambda values: pack_more(values, self.config.get("metadata") or {}, self._pack_metadata),
            scope=self.scope,
            host=self._agent,
        )
        self._objects.expose("callback", self.callbacks)
        return self.callbacks

    def pack(self) -> dict[str, Any]:
        """The packed form for the host."""
        packed: dict[str, Any] = {"config": self._plain(), "reserved": {}, "lent": {}}
        own: dict[str, Any] = {}
        for key, value in self.configurable.items():
            if key in config_keys.BY_VALUE:
                packed["reserved"][key] = value
            elif key in config_keys.PROXIED:
                if (description := self._describe(key, value)) is not None:
                    packed["lent"][key] = description
            elif key == WRITTEN_KEYS:
                packed["lent"][key] = {"lent": True}
            elif key == CHECKPOINT_MAP and isinstance(value, Mapping):
                if len(value) > _MOST_UNSAVED and not self._is_saved():
                    continue  # there are no such checkpoints, and their namespaces are long
                packed["checkpoints"] = pack_checkpoint_map(
                    value, self.configurable.get(config_keys.CHECKPOINT_NS) or ""
                )
            elif not key.startswith(config_keys.HIDDEN) and self._is_forwarded(key):
                own[key] = value
        packed["configurable"] = pack_items(own, _CONFIGURABLE, self._codec, self.left_out)
        if (metadata := self.config.get("metadata")) is not None:
            packed["metadata"] = self._pack_metadata(metadata)
        if self._is_run and (budget := self.usage.pack()) is not None:
            packed["budget"] = budget
        if self.callbacks is not None:
            packed["callbacks"] = self.callbacks.packed
        return packed

    def first_checkpoint(self) -> RunnableConfig | None:
        """The config by which a nested graph on the host will ask for its first checkpoint; None where it is not clear.

        If the host asks for another, it does so by a request.
        """
        known = self.configurable
        namespace, thread = known.get(config_keys.CHECKPOINT_NS), known.get("thread_id")
        if (
            self.saver is None
            or not namespace
            or thread is None
            or not self._is_run
            or known.get("checkpoint_id")
            or known.get(config_keys.REPLAY_STATE) is not None
            or namespace in (known.get(CHECKPOINT_MAP) or {})
        ):
            return None
        if self._has_memory:
            namespace = without_task_ids(namespace)
        if self._subgraph:
            namespace = f"{namespace}{config_keys.NS_SEP}{self._subgraph}"
        own = {
            key: value
            for key, value in known.items()
            if not key.startswith(config_keys.HIDDEN) and self._is_forwarded(key)
        }
        return {"configurable": {**own, "thread_id": str(thread), "checkpoint_ns": namespace, "checkpoint_id": None}}

    def _plain(self) -> dict[str, Any]:
        plain = {k: v for k, v in self.config.items() if k not in ("callbacks", "configurable", "metadata")}
        if is_default_recursion_limit(plain.get("recursion_limit")):
            del plain["recursion_limit"]
        return plain

    def _is_saved(self) -> bool:
        return isinstance(self.configurable.get(config_keys.CHECKPOINTER), BaseCheckpointSaver)

    def _is_forwarded(self, key: str) -> bool:
        return self._forward is None or key in self._forward or key in config_keys.IDENTITY

    def _pack_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        namespace = self.configurable.get(config_keys.CHECKPOINT_NS) or ""
        return pack_items(metadata, _METADATA, self._codec, self.left_out, namespace)

    def _describe(self, key: str, value: Any) -> Any:
        if key == config_keys.CHECKPOINTER:
            if not isinstance(value, BaseCheckpointSaver):
                return {"is": value}
            saver = with_listed_types(value, self._codec.listed)
            self.saver = LentSaver(saver, self.config, self.configurable, self.scope, self._forward)
            self._objects.expose("saver", self.saver)
            return describe_saver(value)
        if key == config_keys.CACHE:
            if value is not None:
                self._objects.expose("cache", LentCache(value, (_CACHE_OF_REMOTE_AGENTS, self._agent)))
            return {"lent": value is not None}
        if key == config_keys.STREAM:
            return {"modes": sorted(value.modes)}
        if key == config_keys.RUNTIME:
            return self._describe_runtime(value) if isinstance(value, Runtime) else None
        if key == config_keys.SCRATCHPAD:
            if not self._is_run:
                return None
            state = scratchpad_state(value)
            self._subgraph = state["subgraph"]
            return state
        if key == config_keys.REPLAY_STATE:
            if value is None:
                return None
            return {"checkpoint_id": value.checkpoint_id, "visited": visited_namespaces(value)}
        return {"lent": True}

    def _describe_runtime(self, runtime: Runtime[Any]) -> dict[str, Any]:
        packed = {
            "context": None
            if runtime.context is None
            else self._codec.encode_partly(runtime.context, "context", self.left_out),
            "previous": runtime.previous,
            "execution_info": pack_fields(runtime.execution_info),
            # Who calls is for each host to find out.
            "server_info": None if runtime.server_info is None else replace(runtime.server_info, user=None),
            "writer": has_stream_writer(runtime),
            "heartbeat": has_heartbeat(runtime),
        }
        if runtime.store is not None:
            self._objects.expose("store", LentStore(runtime.store, self._store_prefix))
            packed["store"] = {
                "closed": self._store_prefix is None,
                "supports_ttl": bool(runtime.store.supports_ttl),
                "ttl_config": getattr(runtime.store, "ttl_config", None),
            }
        if runtime.control is not None:
            self.control = runtime.control
            packed["drained"] = runtime.control.drain_reason
        return packed

    def on_event(self, kind: str, args: tuple[Any, ...]) -> Any:
        """Passes an event of the host on to the object that it concerns. The result may be an awaitable.

        Raises:
            ProtocolError: the event is malformed, or not for this host to say.
        """
        self.events.check(kind, args, self.configurable)
        if kind in ("callback", "tap", "replica", "seen", "watched", "queue"):
            if not self._is_run:
                return None
            callbacks = self.callbacks or self._lend_callbacks()
            return callbacks.on_queue(self._agent, args[0]) if kind == "queue" else callbacks.on_event(kind, args)
        if kind == "usage":
            return self.usage.add(*args)
        if kind == "stream":
            self.configurable[config_keys.STREAM](args[0])
        elif kind == "writer":
            self._write(*args)
        elif kind == "heartbeat":
            self.configurable[config_keys.RUNTIME].heartbeat()
        elif kind == "node_finished":
            self.configurable[config_keys.NODE_FINISHED](args[0])
        elif kind == "null_resume":
            self.configurable[config_keys.SCRATCHPAD].get_null_resume(True)
        elif kind == "visited":
            visited_namespaces(self.configurable[config_keys.REPLAY_STATE]).add(args[0])
        elif kind == "drain" and self.control is not None:
            self.control.request_drain(args[0])
        return None

    def on_written(self, keys: Iterable[str]) -> None:
        """The host says which keys its graph has written."""
        if WRITTEN_KEYS in self.configurable:
            self.configurable[WRITTEN_KEYS].append(frozenset(keys))

    def _write(self, namespace: str | None, value: Any) -> None:
        runtime: Runtime[Any] = self.configurable[config_keys.RUNTIME]
        config: RunnableConfig = {**self.config, "configurable": self.configurable}
        in_namespace(config, namespace or self.scope.namespace, runtime.stream_writer, value)


class HostRunConfig:
    """The host's side of a run's config.

    Args:
        packed: from the caller's `CallerConfig`.
        rpc: reaches the caller.
        codec: decodes the items of the config.
        is_async: whether the verb is one of the async ones.
        is_run: whether the verb runs nodes, rather than reading or writing state.
        user: who calls, as this host has found out; whatever the caller says of it is dropped.
        checkpoint: what the caller has sent of its checkpointer.
    """

    def __init__(
        self,
        packed: Mapping[str, Any],
        rpc: RpcClient,
        codec: Codec,
        *,
        is_async: bool,
        is_run: bool,
        user: Identity | None = None,
        checkpoint: SentCheckpoint | None = None,
    ) -> None:
        self.rpc, self._codec, self._user, self._checkpoint = rpc, codec, user, checkpoint
        self._of_run: dict[str, Any] = {}
        self._is_async, self._is_run = is_async, is_run
        self._pipelined = is_run and packed["reserved"].get(config_keys.DURABILITY) != "sync"
        self.control: RunControlProxy | None = None
        """Where the caller lends its runtime."""
        self.finish: Callable[[], None] | None = None
        self._written: list[frozenset[str]] = []
        config = {key: value for key, value in packed["config"].items() if key in _PLAIN_KEYS}
        configurable = unpack_items(_said_by_the_caller(packed["configurable"]), _CONFIGURABLE, codec)
        if "checkpoints" in packed:
            namespace = configurable.get(config_keys.CHECKPOINT_NS)
            configurable[CHECKPOINT_MAP] = unpack_checkpoint_map(packed["checkpoints"], namespace)
        for key, value in packed["reserved"].items():
            if key in config_keys.BY_VALUE:
                configurable[key] = value
        if user is not None:
            configurable[config_keys.AUTH_USER] = user
        for key, description in packed["lent"].items():
            if key in config_keys.PROXIED:
                configurable[key] = self._make_proxy(key, description)
            elif key == WRITTEN_KEYS:
                configurable[key] = self._written
        self.configurable = config["configurable"] = configurable
        namespace = configurable.get(config_keys.CHECKPOINT_NS)
        unpack = partial(unpack_items, where=_METADATA, codec=codec, namespace=namespace)
        metadata = unpack(packed.get("metadata") or {})
        if "metadata" in packed:
            config["metadata"] = _said_by_the_caller(metadata)
        if "callbacks" in packed:
            callbacks = dict(packed["callbacks"])
            for key in ("metadata", "inheritable_metadata"):
                callbacks[key] = unpack_more(callbacks[key], metadata, unpack)
            config["callbacks"], self.finish = callback_proxies(rpc, callbacks, is_async=is_async)
        elif is_run:
            config["callbacks"] = new_callback_manager(is_async, handlers=[])
        self._of_run.update((key, config[key]) for key in OF_RUN if key in config)
        self.config: RunnableConfig = config  # type: ignore[assignment]

    @property
    def written(self) -> frozenset[str] | None:
        """The keys that the graph has written, for the last frame; None where it was not asked, or cannot tell."""
        return self._written[-1] if self._written else None

    def _make_proxy(self, key: str, description: dict[str, Any]) -> Any:
        rpc = self.rpc
        if key == config_keys.CHECKPOINTER:
            if "is" in description:
                return description["is"]
            return checkpointer_proxy(
                rpc,
                description,
                pipelined=self._pipelined,
                in_run=self._is_run,
                is_async=self._is_async,
                sent=self._checkpoint,
                of_run=self._of_run,
            )
        if key == config_keys.CACHE:
            return CacheProxy(rpc) if description["lent"] else None
        if key == config_keys.STREAM:
            return StreamProtocol(lambda chunk: rpc.notify("stream", chunk), set(description["modes"]))
        if key == config_keys.RUNTIME:
            return self._make_runtime(description)
        if key == config_keys.SCRATCHPAD:
            return self._make_scratchpad(description)
        if key == config_keys.REPLAY_STATE:
            return ReplayStateProxy(
                description["checkpoint_id"], set(description["visited"]), lambda ns: rpc.notify("visited", ns)
            )
        return lambda name: rpc.notify("node_finished", name)

    def _make_runtime(self, description: dict[str, Any]) -> Runtime[Any]:
        rpc = self.rpc
        fields = {"previous": description["previous"]}
        fields["execution_info"] = unpack_fields(description["execution_info"])
        fields["context"] = unpack_context(description["context"], self._codec)
        fields["server_info"] = self._server_info(description["server_info"])
        if description["writer"]:
            fields["stream_writer"] = lambda value: rpc.notify("writer", current_namespace(), value)
        if description["heartbeat"]:
            fields["heartbeat"] = lambda: rpc.notify("heartbeat")
        if "store" in description:
            store = dict(description["store"])
            fields["store"] = ClosedStore() if store.pop("closed") else StoreProxy(rpc, **store)
        self.control = RunControlProxy(partial(rpc.notify, "drain"))
        if description.get("drained") is not None:
            set_drained(self.control, description["drained"])
        return Runtime(**fields, control=self.control)

    def _server_info(self, said: Any) -> ServerInfo | None:
        """The caller's assistant and graph, and the user whom this host knows."""
        if isinstance(said, ServerInfo):
            return replace(said, user=cast(Any, self._user))
        return None if self._user is None else ServerInfo("", "", cast(Any, self._user))

    def _make_scratchpad(self, description: dict[str, Any]) -> Any:
        pending, rpc = [description["null_resume"]], self.rpc

        def null_resume(consume: bool = False) -> Any:
            value = pending[0]
            if consume and value is not None:
                pending[0] = None
                rpc.notify("null_resume")
            return value

        return scratchpad_proxy(
            step=description["step"],
            stop=description["stop"],
            resume=description["resume"],
            subgraph=description["subgraph"],
            null_resume=null_resume,
        )
