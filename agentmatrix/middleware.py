"""Middleware on messages: functions that each message passes before it is kept and before anybody hears it.

A middleware takes `(message, sender, hearers, conversation)` and returns what is said instead: the message itself, or
another one, or several; None or a `Block` for nothing. One that raises blocks the message: it fails closed.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypedDict

from langchain_core.messages import BaseMessage
from langgraph.errors import GraphBubbleUp

from agentmatrix.errors import BuildError

__all__ = ["Block", "BlockedMessage", "Mailbox", "Middleware", "MiddlewareChain", "Verdict"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """The verdict that nobody is to hear a message.

    Attributes:
        reason: why; it is kept with the conversation, and logged.
        notice: words that stand in its place, under the name of its sender; None for nothing.
    """

    reason: str
    notice: str | None = None


Verdict: TypeAlias = BaseMessage | Sequence[BaseMessage] | Block | None
Middleware: TypeAlias = Callable[[BaseMessage, str, Sequence[str], Any], Verdict | Awaitable[Verdict]]


@dataclass(frozen=True)
class Mailbox:
    """What the middleware of actors is told of the actor that a message is for.

    Attributes:
        path: the actor's, `"staff/ann"`.
        messages: what it has not read yet, in order.
    """

    path: str
    messages: tuple[Any, ...] = ()


class BlockedMessage(TypedDict):
    """What is kept of a message that was blocked: its id, why, and the name of the middleware."""

    id: str
    reason: str
    by: str


class MiddlewareResult(NamedTuple):
    """What has come of messages.

    Attributes:
        messages: those that are kept and heard, each with the message that it was.
        blocked: what is kept of the others.
    """

    messages: list[tuple[BaseMessage, BaseMessage]]
    blocked: list[BlockedMessage]


_Call = tuple[Middleware, BaseMessage, BaseMessage]
Hearers: TypeAlias = Callable[[BaseMessage], Sequence[str]]
_Steps = Generator[_Call, Verdict | Exception, MiddlewareResult]


class MiddlewareChain:
    """Several middleware, one after the other: each gets what those before it have let pass.

    Args:
        middleware: the functions, sync or async; an async one needs an async run.

    Raises:
        BuildError: one of them cannot be called.
    """

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        for function in middleware:
            if not callable(function):
                raise BuildError(
                    f"middleware= has {function!r}, which is no function: "
                    "give functions (message, sender, hearers, conversation) -> message, messages, Block or None"
                )
        self._middleware = tuple(middleware)

    def apply(
        self, messages: Sequence[BaseMessage], sender: Callable[[BaseMessage], str], hearers: Hearers, about: Any
    ) -> MiddlewareResult:
        """Has messages pass.

        Args:
            messages: what is to be said.
            sender: gives the name of who says a message.
            hearers: gives the names of those who would hear a message.
            about: the conversation so far, as the functions get it.
        """
        steps = self._steps(messages)
        verdict: Any = None
        try:
            while True:
                function, original, message = steps.send(verdict)
                try:
                    verdict = function(message, sender(original), hearers(message), about)
                    if inspect.isawaitable(verdict):
                        _close(verdict)
                        verdict = TypeError("it is async, and this run is not: use ainvoke or astream")
                except GraphBubbleUp:
                    raise
                except Exception as error:
                    verdict = error
        except StopIteration as end:
            return _passed(end)

    async def aapply(
        self, messages: Sequence[BaseMessage], sender: Callable[[BaseMessage], str], hearers: Hearers, about: Any
    ) -> MiddlewareResult:
        """The same as `apply`, async."""
        steps = self._steps(messages)
        verdict: Any = None
        try:
            while True:
                function, original, message = steps.send(verdict)
                try:
                    verdict = function(message, sender(original), hearers(message), about)
                    if inspect.isawaitable(verdict):
                        verdict = await verdict
                except GraphBubbleUp:
                    raise
                except Exception as error:
                    verdict = error
        except StopIteration as end:
            return _passed(end)

    def _steps(self, messages: Sequence[BaseMessage]) -> _Steps:
        """What is to be called, in order; each verdict, or what was raised instead, is sent back."""
        passed: list[tuple[BaseMessage, BaseMessage]] = []
        blocked: list[BlockedMessage] = []
        for original in messages:
            left = [original]
            for function in self._middleware:
                said: list[BaseMessage] = []
                for message in left:
                    verdict = _checked((yield function, original, message))
                    if isinstance(verdict, Block):
                        by = getattr(function, "__name__", type(function).__name__)
                        _log.warning("%s has blocked a message of %r: %s", by, original.name, verdict.reason)
                        blocked.append({"id": str(original.id), "reason": verdict.reason, "by": by})
                        if verdict.notice is not None:
                            said.append(message.model_copy(update={"content": verdict.notice}))
                    else:
                        said += verdict
                left = said
            passed += [(original, message) for message in left]
        return MiddlewareResult(passed, blocked)


def _checked(verdict: Any) -> Block | list[BaseMessage]:
    """A verdict as a block or as messages. What is neither is a block: a fault lets nothing pass."""
    if isinstance(verdict, Block):
        return verdict
    if verdict is None:
        return []
    if isinstance(verdict, BaseMessage):
        return [verdict]
    if isinstance(verdict, Exception):
        return Block(f"it has failed with {type(verdict).__name__}: {verdict}")
    if isinstance(verdict, list | tuple) and all(isinstance(message, BaseMessage) for message in verdict):
        return list(verdict)
    return Block(f"it has returned {verdict!r}, which is no message, no list of messages, no Block and not None")


def _passed(end: StopIteration) -> MiddlewareResult:
    passed: MiddlewareResult = end.value
    return passed


def _close(awaitable: Any) -> None:
    """Without this Python warns of a coroutine that was never awaited."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
