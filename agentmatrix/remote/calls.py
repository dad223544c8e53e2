"""The calls of a remote agent: what is sent to a host, and to which."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.runtime import RunControl
from langgraph.types import RetryPolicy

from agentmatrix.budget import timeout_within
from agentmatrix.live.signal_router import new_id
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.config_values import with_counted_subgraph
from agentmatrix.pregel.state_graph import declared_input
from agentmatrix.pregel.state_types import state_types_around
from agentmatrix.remote.attributes import CardAttributes
from agentmatrix.remote.call_attempts import CALL_ID, AgentCall, CallAttempts, CheckpointOwner
from agentmatrix.remote.retries import AsyncRetriedRun, RetriedRun
from agentmatrix.remote.schema_classes import given
from agentmatrix.session.call_spec import CallSpec
from agentmatrix.session.caller_async import AsyncCallerRun
from agentmatrix.session.caller_sync import SyncCallerRun
from agentmatrix.session.version import spoken_version
from agentmatrix.transport.target import Target

__all__ = ["RemoteCalls"]

R = TypeVar("R", SyncCallerRun, AsyncCallerRun)


class RemoteCalls(CardAttributes):
    """A graph whose verbs are called on a host, or on one of several.

    Attributes:
        timeout: seconds for a whole run; None is no limit.
        forward: the keys of `config["configurable"]` that go along; None for all.
        store_prefix: what the namespaces of the store that the host may use begin with; None for none.
    """

    timeout: float | None
    forward: frozenset[str] | None
    store_prefix: tuple[str, ...] | None
    _path: tuple[str, ...]
    _retries: RetryPolicy | None

    def _call(self, verb: str, *args: Any, **options: Any) -> SyncCallerRun | RetriedRun:
        target, connection = self._only_target(), self._connection
        if target is not None and self._retries is None:
            return self._start(SyncCallerRun, target, verb, *args, **options)
        call = self._describe_call(verb, **options)
        start = partial(self._attempt, SyncCallerRun, verb, args, self._repeatable(call, options))
        return RetriedRun(start, CallAttempts(connection, call, self._retries))

    def _acall(self, verb: str, *args: Any, **options: Any) -> AsyncCallerRun | AsyncRetriedRun:
        target, connection = self._only_target(), self._connection
        if target is not None and self._retries is None:
            return self._start(AsyncCallerRun, target, verb, *args, **options)
        call = self._describe_call(verb[1:], **options)
        start = partial(self._attempt, AsyncCallerRun, verb, args, self._repeatable(call, options))
        return AsyncRetriedRun(start, CallAttempts(connection, call, self._retries))

    def _only_target(self) -> Target | None:
        return None if self._connection.has_replicas else self._connection.targets.known[0]

    def _describe_call(
        self, verb: str, *, config: RunnableConfig | None = None, is_run: bool = False, **_: Any
    ) -> AgentCall:
        configurable = (config or {}).get("configurable") or {}
        thread = configurable.get("thread_id")
        keeps = partial(self._keeps, isinstance(configurable.get(config_keys.CHECKPOINTER), BaseCheckpointSaver))
        is_marked = is_run and thread is not None and self._connection.has_replicas and keeps() == "host"
        name = None if thread is None else str(thread)
        return AgentCall(verb, is_run, name, keeps, self.timeout, new_id() if is_marked else "")

    def _keeps(self, lends: bool) -> CheckpointOwner:
        """Whose checkpointer keeps the agent's checkpoints. As in LangGraph, one that the caller lends comes first."""
        card = self._known
        if card is None or card.checkpointer is False:
            return ""
        return "caller" if lends else "host" if card.checkpointer == "own" else ""

    def _repeatable(self, call: AgentCall, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a call that may be sent several times: it is one nested graph of its task, not several."""
        config = options.get("config")
        if config is None:
            return options
        config = with_counted_subgraph(config)
        if call.id:
            config = {**config, "metadata": {**(config.get("metadata") or {}), CALL_ID: call.id}}
        return {**options, "config": config}

    def _attempt(
        self,
        kind: type[R],
        verb: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        attempts: CallAttempts,
        instead: str | None = None,
    ) -> R:
        assert attempts.replica is not None
        target = attempts.replica.target
        if instead is not None:
            return self._start(kind, target, instead, config=options["config"], within=attempts.left())
        if attempts.goes_on:
            config = options["config"]
            resuming = {**(config.get("configurable") or {}), config_keys.RESUMING: True}
            options = {**options, "config": {**config, "configurable": resuming}}
            if attempts.goes_on == "host":
                args = (None, *args[1:])
        run = self._start(kind, target, verb, *args, within=attempts.left(), **options)
        run.goes_elsewhere = partial(attempts.goes_elsewhere, run)
        return run

    def _start(self, kind: type[R], target: Target, verb: str, *args: Any, **options: Any) -> R:
        spec = self._spec(target, verb, *args, **options)  # first: it may list classes for the codec
        return kind(self._connection.transport_to(target), self._connection.codec, spec)

    def _spec(
        self,
        target: Target,
        verb: str,
        *args: Any,
        config: RunnableConfig | None = None,
        is_run: bool = False,
        control: RunControl | None = None,
        within: float | None = None,
        **kwargs: Any,
    ) -> CallSpec:
        self._connection.prefetch_card()
        if is_run and self.input_keys is not None:
            args = (given(declared_input(args[0], self.input_keys)), *args[1:])
        if config is not None:
            self._connection.list_types_of(state_types_around(config))
        return CallSpec(
            agent=target.agent, verb=verb, version=spoken_version(), run_id=new_id(),
            path=self._path, args=args, kwargs=kwargs, config=config, is_run=is_run, control=control,
            timeout=timeout_within(self.timeout if within is None else within),
            forward=self.forward, store_prefix=self.store_prefix,
            has_memory=self._known is not None and self._known.checkpointer is True,
        )  # fmt: skip
