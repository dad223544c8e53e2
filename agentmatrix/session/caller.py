"""One run as its caller sees it, whoever drives it: how it is started, served, cancelled and ended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from langchain_core.runnables import RunnableConfig
from langgraph.runtime import RunControl

from agentmatrix.errors import AgentMatrixError, DeadlineExceeded, EncodeError, HostLost, SignalError
from agentmatrix.live.inbox import INBOX, Inbox, Sent, path_of
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.run_control import watch_drain
from agentmatrix.session import tracing
from agentmatrix.session.config import LentConfig
from agentmatrix.session.protocol import CallerConversation
from agentmatrix.session.proxies import Lent
from agentmatrix.session.signal_forwarding import Forwarding
from agentmatrix.transport.base import FrameStream, Transport
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import decode_failure, encode_failure
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["GO_ON", "Call", "CallSpec"]

GO_ON: Final = "With a checkpointer, call again with None to go on from the last checkpoint"
"""What a caller can do about a host that was lost in the middle of a run."""


@dataclass
class CallSpec:
    """What to do on the host.

    Attributes:
        agent: the name of the exported graph.
        path: nodes from it to the nested graph that is meant.
        verb: the graph's method.
        args: positional arguments without the config.
        kwargs: keyword arguments without the config and without `control`.
        config: the run's config; None when the verb takes none.
        is_run: whether the verb runs nodes.
        control: a run control that the user gave, lent to the host.
        timeout: seconds for the whole run; None is no limit.
        forward: see `LentConfig`.
        store_prefix: see `LentConfig`.
    """

    agent: str
    verb: str
    version: pb.Version
    run_id: str
    path: tuple[str, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    config: RunnableConfig | None = None
    is_run: bool = False
    control: RunControl | None = None
    timeout: float | None = None
    forward: frozenset[str] | None = None
    store_prefix: tuple[str, ...] | None = None


class Call:
    """What the sync and the async driver share. A lock guards the conversation: frames come on the I/O thread."""

    is_async: ClassVar[bool]

    def __init__(self, transport: Transport, codec: Codec, spec: CallSpec) -> None:
        self.transport, self.codec, self.spec = transport, codec, spec
        self.conversation = CallerConversation()
        self.lent = Lent()
        self.config: LentConfig | None = None
        self._lock = threading.Lock()
        self._saver_order = asyncio.Lock()
        self._lane: FrameStream | None = None
        self._unwatch: Any = None
        self._signalled: Inbox | None = None
        self._forwarding: Forwarding | None = None
        self._unanswered: dict[int, Sent] = {}
        self._deadline = None if spec.timeout is None else time.monotonic() + spec.timeout

    def open(self) -> None:
        """Sends the run's first frame.

        Raises:
            EncodeError: an argument or the config cannot cross; nothing was sent.
        """
        frame = self.conversation.start(self._start())
        self._lane = self.transport.open(self)
        self._lane.send(frame)
        if self.config is not None and self.config.control is not None:
            self._unwatch = watch_drain(self.config.control, self._drain)
        if self._forwarding is not None and self._signalled is not None:
            self._signalled.attach(self._forwarding)

    def _start(self) -> pb.Start:
        spec = self.spec
        start = pb.Start(
            id=spec.run_id, version=spec.version, agent=spec.agent, path=spec.path, verb=spec.verb,
            timeout=spec.timeout or 0.0,
        )  # fmt: skip
        kwargs = dict(spec.kwargs)
        if spec.config is not None:
            self.config = LentConfig(
                spec.config, codec=self.codec, is_async=self.is_async, is_run=spec.is_run,
                lent=self.lent, forward=spec.forward, store_prefix=spec.store_prefix,
            )  # fmt: skip
            packed = self.config.pack()
            if spec.control is not None:
                self.config.control = spec.control
                packed["control"] = {"drained": spec.control.drain_reason}
            packed["live"] = self._takes_signals(self.config.configurable)
            start.config = self.codec.encode(packed, "config")
        start.trace.update(tracing.outgoing())
        start.arguments = self.codec.encode((spec.args, kwargs), "arguments")
        return start

    def _takes_signals(self, configurable: dict[str, Any]) -> bool:
        """Whether the run is part of a live one, whose signals for the host's graph are then forwarded."""
        self._signalled = configurable.get(INBOX) if self.spec.is_run else None
        if self._signalled is None:
            return False
        path = path_of(configurable.get(config_keys.CHECKPOINT_NS) or "")
        self._forwarding = Forwarding(path, self.codec, self._forward, self._close_input)
        return True

    def _send(self, frame: pb.Frame | None) -> None:
        if frame is not None and self._lane is not None:
            self._lane.send(frame)

    def cancel(self, reason: str) -> None:
        """Asks the host to stop the run; it ends with the End frame all the same."""
        with self._lock:
            self._send(self.conversation.cancel(reason))

    def credit(self) -> None:
        """Lets the host go on after the parts that were taken."""
        with self._lock:
            self._send(self.conversation.credit())

    def _drain(self, reason: str) -> None:
        with self._lock:
            self._send(self.conversation.notice("drain", self.codec.encode((reason,), "reason")))

    def _forward(self, sent: Sent, value: bytes) -> None:
        with self._lock:
            frame = self.conversation.signal(sent.id, sent.address, value)
            if frame is not None:
                self._unanswered[frame.signal.number] = sent
            self._send(frame)

    def _close_input(self) -> None:
        with self._lock:
            self._send(self.conversation.notice("close", b""))

    def _answered(self, taken: pb.Taken) -> None:
        sent = self._unanswered.pop(taken.number)
        if not taken.refused:
            sent.taken()
        elif not self.conversation.cancelled:
            # Else it is for those who have cancelled the run to say who takes it.
            sent.refused(SignalError(taken.refused))

    def close(self) -> None:
        """Forgets the run. Idempotent."""
        if self._signalled is not None and self._forwarding is not None:
            self._signalled.detach(self._forwarding)
            self._signalled = None
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        with self._lock:
            self.conversation.lost()
        if self._lane is not None:
            self._lane.close()

    # What the transport calls, on its I/O thread.

    def receive(self, frame: pb.Frame) -> None:
        try:
            with self._lock:
                kind = self.conversation.receive(frame)
        except AgentMatrixError as error:
            self._take("lost", error)
            return
        if kind == "taken":
            self._answered(frame.taken)
        elif kind not in ("late", "accepted"):
            self._take(kind, frame)

    def lost(self, error: AgentMatrixError) -> None:
        with self._lock:
            was_open = self.conversation.lost()
        if was_open:
            self._take("lost", _with_advice(error))

    def _take(self, kind: str, item: Any) -> None:
        raise NotImplementedError

    # What the drivers do with what was received.

    def _hear(self, event: pb.Event) -> Any:
        args = self.codec.decode(event.arguments, f"event {event.kind}")
        return None if self.config is None else self.config.hear(event.kind, args)

    def _reply(self, number: int, value: Any, failure: BaseException | None) -> None:
        reply = pb.Reply(id=number)
        if failure is None:
            try:
                reply.value = self.codec.encode(value, "reply")
            except EncodeError as error:
                failure = error
        if failure is not None:
            reply.failure = encode_failure(failure, self.codec)
        with self._lock:
            self._send(self.conversation.reply(reply))

    def _serve(self, request: pb.Request) -> None:
        value, failure = None, None
        try:
            args, kwargs = self.codec.decode(request.arguments, f"{request.target}.{request.method}")
            value = self.lent.serve(request.target, request.method, args, kwargs)
        except BaseException as error:
            failure = error
        self._reply(request.id, value, failure)

    async def _aserve(self, request: pb.Request) -> None:
        value, failure = None, None
        try:
            args, kwargs = self.codec.decode(request.arguments, f"{request.target}.{request.method}")
            async with self._saver_order if request.target == "saver" else contextlib.nullcontext():
                value = await self.lent.aserve(request.target, request.method, args, kwargs)
        except BaseException as error:
            failure = error
        self._reply(request.id, value, failure)

    def _outcome(self, end: pb.End) -> Any:
        if end.WhichOneof("outcome") == "failure":
            raise decode_failure(end.failure, self.codec)
        return self.codec.decode(end.result, "result")

    def _part(self, part: pb.Part) -> tuple[Any, ...]:
        """The part in a tuple of one; an empty tuple for the mark that a superstep is over."""
        value: tuple[Any, ...] = self.codec.decode(part.value, "part") if part.value else ()
        return value

    def _remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _too_late(self) -> DeadlineExceeded:
        self.cancel("deadline")
        return DeadlineExceeded(
            f"{self.spec.agent!r} at {self.transport.address} did not finish {self.spec.verb} within "
            f"{self.spec.timeout:g} s; it has been cancelled there. RemoteAgent(timeout=...) sets the limit"
        )


def _with_advice(error: AgentMatrixError) -> AgentMatrixError:
    """What a caller can do about a host that was lost in the middle of a run."""
    if isinstance(error, HostLost):
        return HostLost(f"{error}. {GO_ON}")
    return error
