"""Counts the calls and the tokens of the chat models that are called in a context.

By a hook of LangChain's rather than a callback handler in the config: so a model that is called is heard, and a graph
runs without callbacks as it did before (see `untraced`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

__all__ = [
    "ModelCallCounter",
    "TokenUsage",
    "TokenUsageHandler",
    "counted",
    "counters",
    "counting_tokens",
    "without_token_usage",
]

P = ParamSpec("P")


class ModelCallCounter(Protocol):
    """Is told of the chat models that are called in a context. On any thread."""

    def check(self) -> None:
        """A model is about to be called. What this raises, the call raises, and nobody counts it."""

    def add_call(self) -> None:
        """A model is called."""

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """A model has answered, or models on another host have."""


class TokenUsage:
    """Tokens, as chat models report them.

    Attributes:
        input_tokens: that they were given.
        output_tokens: that they have made.
        calls: of models, here.
        on_use: is called, on any thread, when there are more of them.
    """

    __slots__ = ("_lock", "calls", "input_tokens", "on_use", "output_tokens")

    def __init__(self) -> None:
        self.input_tokens = self.output_tokens = self.calls = 0
        self.on_use: Callable[[], None] | None = None
        self._lock = threading.Lock()

    @property
    def used(self) -> tuple[int, int, int]:
        """Input tokens, output tokens, calls."""
        return self.input_tokens, self.output_tokens, self.calls

    @property
    def total(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens

    def check(self) -> None:
        """There is no limit."""

    def add_call(self) -> None:
        self.add_calls(1)

    def add_calls(self, calls: int) -> None:
        """Models were called, on another host too."""
        with self._lock:
            self.calls += calls
        self._tell()

    def _tell(self) -> None:
        if (on_use := self.on_use) is not None:  # it may be taken back meanwhile
            on_use()

    def add(self, input_tokens: int, output_tokens: int) -> None:
        with self._lock:
            self.input_tokens += input_tokens
            self.output_tokens += output_tokens
        self._tell()


class TokenUsageHandler(BaseCallbackHandler):
    """Tells counters of each call of a chat model, and of the tokens that its answer reports."""

    ignore_chain = ignore_agent = ignore_retriever = ignore_custom_event = ignore_retry = True
    run_inline = True
    raise_error = True

    def __init__(self, counters: tuple[ModelCallCounter, ...]) -> None:
        self.counters = counters

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        for counter in self.counters:
            counter.check()
        for counter in self.counters:
            counter.add_call()

    def on_answer(self, message: BaseMessage) -> None:
        """A model has answered."""
        if isinstance(message, AIMessage) and (usage := message.usage_metadata) is not None:
            for counter in self.counters:
                counter.add(usage.get("input_tokens", 0), usage.get("output_tokens", 0))

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        self.on_chat_model_start()

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        for generations in response.generations:
            if generations and isinstance(generations[0], ChatGeneration):
                self.on_answer(generations[0].message)


_HANDLER: ContextVar[TokenUsageHandler | None] = ContextVar("agentmatrix_token_usage", default=None)
register_configure_hook(_HANDLER, inheritable=False)


def counted(answer: Callable[P, AIMessage], *args: P.args, **kwargs: P.kwargs) -> AIMessage:
    """The answer of a model that runs without LangChain's machinery, counted as those with it are."""
    handler = _HANDLER.get()
    if handler is None:
        return answer(*args, **kwargs)
    handler.on_chat_model_start()
    message = answer(*args, **kwargs)
    handler.on_answer(message)
    return message


def counters() -> tuple[ModelCallCounter, ...]:
    """Those that count in this context, outermost first."""
    handler = _HANDLER.get()
    return () if handler is None else handler.counters


@contextlib.contextmanager
def counting_tokens(counter: ModelCallCounter) -> Iterator[None]:
    """Counts the calls and tokens of all chat models that are called in this context."""
    token = _HANDLER.set(TokenUsageHandler((*counters(), counter)))
    try:
        yield
    finally:
        _HANDLER.reset(token)


def without_token_usage(handlers: Iterable[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    """Handlers but those that count tokens here."""
    return [handler for handler in handlers if type(handler) is not TokenUsageHandler]
