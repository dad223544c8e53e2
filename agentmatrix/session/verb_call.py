"""The call of a verb as a caller has sent it, decoded on the thread that is to run it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint

from agentmatrix.budget import Budget
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.checkpoint_order import is_final
from agentmatrix.pregel.run_control import RunControlProxy, set_drained
from agentmatrix.session import host_verbs
from agentmatrix.session.checkpointer import CheckpointerProxy
from agentmatrix.session.config import HostRunConfig
from agentmatrix.session.config_items import unpack_context
from agentmatrix.session.host_rpc import HostRpc
from agentmatrix.session.namespace_scope import without_task_ids
from agentmatrix.session.remote_usage import budget_of
from agentmatrix.session.sent_checkpoint import SentCheckpoint
from agentmatrix.session.verb_names import is_async_verb
from agentmatrix.transport.base import ReceivedFrame
from agentmatrix.wire.codec import Codec

__all__ = ["VerbCall"]


@dataclass
class VerbCall:
    """What a verb is called with.

    Attributes:
        args: positional arguments.
        kwargs: the others, the config among them.
        is_run: whether the verb runs nodes.
        config: the host's side of the config; None where the verb takes none.
        run_config: as the graph gets it; empty where the verb takes none.
        configurable: of that.
        is_live: whether the run takes signals.
        forwards_sends: whether its actors may send to those of the caller.
        budget: what its code may use.
        wants_usage: whether the caller counts what the run uses.
        shares_budget: whether others may use of the same budget meanwhile.
        control: stops the run at its next checkpoint, where the caller lends none.
    """

    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    is_run: bool = False
    config: HostRunConfig | None = None
    run_config: RunnableConfig = field(default_factory=dict)  # type: ignore[assignment]
    configurable: dict[str, Any] = field(default_factory=dict)
    is_live: bool = False
    forwards_sends: bool = False
    budget: AbstractContextManager[Any] = field(default_factory=contextlib.nullcontext)
    wants_usage: bool = False
    shares_budget: bool = False
    control: RunControlProxy | None = None

    def limit_budget(self, limits: object) -> None:
        """Others have used of the budget: the caller says what the run may use in all, tokens and calls."""
        if isinstance(self.budget, Budget) and isinstance(limits, tuple) and len(limits) == 2:
            tokens, calls = (limit if type(limit) is int and limit >= 0 else None for limit in limits)
            self.budget.limit(tokens, calls)

    def end_with_last_checkpoint(self, graph: Any, verb: str) -> None:
        """Has the last checkpoint of the graph go with the end of the run, where its caller hears nothing in between.

        Args:
            graph: that is run.
            verb: of it.
        """
        saver, streams = self.configurable.get(config_keys.CHECKPOINTER), config_keys.STREAM in self.configurable
        if not self.is_run or streams or verb in host_verbs.STREAMS or not isinstance(saver, CheckpointerProxy):
            return
        namespace = self.configurable.get(config_keys.CHECKPOINT_NS) or ""
        own = {namespace, without_task_ids(namespace)}

        def is_last(config: RunnableConfig, checkpoint: Checkpoint) -> bool:
            return config["configurable"].get("checkpoint_ns", "") in own and is_final(graph, checkpoint)

        saver.ends_with(is_last)

    @classmethod
    def unpack(cls, received: ReceivedFrame, codec: Codec, rpc: HostRpc) -> VerbCall:
        """The call in a run's first frame.

        Args:
            received: the frame; it is released.
            codec: of the agent.
            rpc: reaches the caller.

        Raises:
            DecodeError, ProtocolError: it is none, or holds what is not the caller's to say.
        """
        start = received.frame.start
        arguments = codec.decode_pieces(received.pieces("arguments"), "arguments")
        args, kwargs = host_verbs.checked_arguments(start.verb, arguments)
        packed = codec.decode(config, "config") if (config := received.field("config")) else host_verbs.EMPTY_CONFIG
        found = SentCheckpoint.decode(sent, rpc.replies) if (sent := received.field("checkpoint")) else None
        received.release()
        call = cls(args, kwargs, start.verb in host_verbs.RUNS)
        if host_verbs.takes_config(start.verb):
            is_async, budget = is_async_verb(start.verb), packed.get("budget")
            call.config = HostRunConfig(
                packed, rpc, codec, is_async=is_async, is_run=call.is_run, user=rpc.user, checkpoint=found
            )
            if packed["reserved"].get(config_keys.DURABILITY) == "sync":
                rpc.flush_after = 0.0  # what a node has written is on its way when another one ends
            call.run_config = kwargs["config"] = call.config.config
            call.configurable = call.config.configurable
            if "context" in packed:
                kwargs["context"] = unpack_context(packed["context"], codec)
            call.is_live, call.wants_usage = bool(packed.get("live")), budget is not None
            call.forwards_sends = bool(packed.get("sends"))
            call.shares_budget = budget is not None and bool(budget.get("shared"))
            call.budget = budget_of(budget, start.timeout)
            if call.is_run and ("control" in packed or config_keys.RUNTIME not in packed["lent"]):
                control = call.control = kwargs["control"] = RunControlProxy(partial(rpc.notify, "drain"))
                if (reason := packed.get("control", {}).get("drained")) is not None:
                    set_drained(control, reason)
        return call
