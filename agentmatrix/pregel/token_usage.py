"""Counts the tokens of the chat models that are called in a context.

By a hook of LangChain's rather than a callback handler in the config: so a model that is called is heard, and a graph
runs without callbacks as it did before (see `untraced`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

__all__ = ["TokenUsage", "TokenUsageHandler", "counting_tokens", "without_token_usage"]


class TokenUsage:
    """Tokens, as chat models report them.

    Attributes:
        input_tokens: that they were given.
        output_tokens: that they have made.
    """

    __slots__ = ("_lock", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.input_tokens = self.output_tokens = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """One more answer of a model. On any thread."""
        with self._lock:
            self.input_tokens += input_tokens
            self.output_tokens += output_tokens


class TokenUsageHandler(BaseCallbackHandler):
    """Adds what each answer of a chat model says of its tokens to a count."""

    ignore_chain = ignore_agent = ignore_retriever = ignore_custom_event = ignore_retry = True
    ignore_chat_model = True
    """Its start, not its end."""
    run_inline = True

    def __init__(self, usage: TokenUsage) -> None:
        self._usage = usage

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        for generations in response.generations:
            message = generations[0].message if generations and isinstance(generations[0], ChatGeneration) else None
            if isinstance(message, AIMessage) and (usage := message.usage_metadata) is not None:
                self._usage.add(usage.get("input_tokens", 0), usage.get("output_tokens", 0))


_HANDLER: ContextVar[TokenUsageHandler | None] = ContextVar("agentmatrix_token_usage", default=None)
register_configure_hook(_HANDLER, inheritable=False)


@contextlib.contextmanager
def counting_tokens(usage: TokenUsage) -> Iterator[None]:
    """Counts the tokens of all chat models that are called in this context."""
    token = _HANDLER.set(TokenUsageHandler(usage))
    try:
        yield
    finally:
        _HANDLER.reset(token)


def without_token_usage(handlers: Iterable[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    """Handlers but those that count tokens here."""
    return [handler for handler in handlers if type(handler) is not TokenUsageHandler]
