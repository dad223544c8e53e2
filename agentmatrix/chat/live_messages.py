"""Words of a person into a running group: the signal `messages` of a live run.

A group takes them between two turns, before its stop and its speaker are asked, in a step of their own, and
acknowledges a signal when that step is saved.

Threads: `_Receiver.receive` is called on any thread, all else by the group's own tasks, one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig

from agentmatrix.errors import SignalError
from agentmatrix.live.signal_router import SIGNAL_ROUTER, PendingSignal, SignalRouter, node_path
from agentmatrix.pregel.task_config import parent_namespace_of
from agentmatrix.pregel.virtual_tasks import LoopHandle

__all__ = ["MESSAGES_SIGNAL", "LiveMessages"]

MESSAGES_SIGNAL: Final = "messages"
"""The name of the signal: a text, a human message, or a list of them."""


class LiveMessages:
    """The messages that are signalled to the runs of one compiled group."""

    def __init__(self) -> None:
        # By id of LangGraph's loop. A receiver is removed when its run ends, so an id that Python uses again is free.
        self._receivers: dict[int, _Receiver] = {}

    def may_come(self, config: RunnableConfig) -> bool:
        """Whether the run takes signals."""
        return config["configurable"].get(SIGNAL_ROUTER) is not None

    def take(self, config: RunnableConfig) -> list[BaseMessage]:
        """The messages that have come since the last call, and acknowledges those of before, whose step has been saved.

        Args:
            config: the config of a task of the group, in a sync run.
        """
        receiver = self._receiver(config, lambda close: close)
        return receiver.take(LoopHandle(config)) if receiver else []

    async def atake(self, config: RunnableConfig) -> list[BaseMessage]:
        """The same as `take`, in an async run."""
        receiver = self._receiver(config, _as_async)
        return receiver.take(LoopHandle(config)) if receiver else []

    def are_waiting(self, config: RunnableConfig) -> bool:
        """Whether messages have come since the last `take`."""
        receiver = self._receivers.get(id(LoopHandle(config).loop)) if self._receivers else None
        return bool(receiver and receiver.queue)

    def on_message(self, config: RunnableConfig, wake: Callable[[], None]) -> bool:
        """Has `wake` called, on any thread, when a message has come. Returns whether the run takes signals."""
        receiver = self._receivers.get(id(LoopHandle(config).loop))
        if receiver:
            receiver.wake = wake
        return receiver is not None

    def _receiver(
        self, config: RunnableConfig, at_exit: Callable[[Callable[[], None]], Callable[[], Any]]
    ) -> _Receiver | None:
        """The receiver of the run, which its first task attaches; None in a run that takes no signals."""
        router: SignalRouter | None = config["configurable"].get(SIGNAL_ROUTER)
        if router is None:
            return None
        loop = LoopHandle(config)
        key = id(loop.loop)
        if key not in self._receivers:
            receiver = _Receiver(node_path(parent_namespace_of(config) or ""))
            self._receivers[key] = receiver

            def close() -> None:
                router.detach(receiver)
                self._receivers.pop(key, None)

            loop.at_exit(at_exit(close))
            router.attach(receiver)
        return self._receivers[key]


class _Receiver:
    """Takes the signals of one run, as the router hands them over."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        self.names: frozenset[str] | None = frozenset({MESSAGES_SIGNAL})
        self.queue: deque[tuple[PendingSignal, list[BaseMessage]]] = deque()
        self.wake: Callable[[], None] | None = None
        self._taken: list[PendingSignal] = []

    def receive(self, signal: PendingSignal) -> None:
        """Take a signal. On any thread."""
        try:
            messages = _messages_of(signal)
        except SignalError as error:
            signal.refuse(error)
            return
        self.queue.append((signal, messages))
        if wake := self.wake:
            wake()

    def close(self) -> None:
        """No more signals will come. A group ends by its stop."""

    def take(self, loop: LoopHandle) -> list[BaseMessage]:
        """The messages in the queue. Those that were taken before are in the state by now."""
        for signal in self._taken:
            loop.when_saved(signal.acknowledge)
        self._taken = []
        messages: list[BaseMessage] = []
        while self.queue:
            signal, said = self.queue.popleft()
            signal.accepted = True
            self._taken.append(signal)
            messages += said
        return messages


def _messages_of(signal: PendingSignal) -> list[BaseMessage]:
    """The messages of a signal, with ids that a signal which is sent again has too."""
    try:
        value = signal.value
        messages = convert_to_messages(value if isinstance(value, list) else [value])
    except (TypeError, ValueError, NotImplementedError, KeyError):
        messages = []
    if not messages or not all(isinstance(m, HumanMessage) and m.content for m in messages):
        raise SignalError(
            f"the signal {signal.address!r} was not taken: it takes a text, a human message or a list of them, "
            f"not {signal.value!r}"
        )
    return [
        message if message.id else message.model_copy(update={"id": f"{signal.id}-{number}"})
        for number, message in enumerate(messages)
    ]


def _as_async(close: Callable[[], None]) -> Callable[[], Any]:
    async def aclose() -> None:
        close()

    return aclose
