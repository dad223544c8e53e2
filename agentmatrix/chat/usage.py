"""Counts the use of chat models in a turn, for stops that need it.

A counter is a LangChain callback handler: models call it on their own threads, which a lock covers.
"""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig

from agentmatrix.chat.conversation import Event

__all__ = ["UsageCounter"]

_CHARACTERS_PER_TOKEN = 4


class UsageCounter(BaseCallbackHandler):
    """Counts model calls, tokens and seconds of everything that runs under a config that it is attached to."""

    run_inline = True

    def __init__(self) -> None:
        self.tokens = 0
        self.calls = 0
        self._prompt_characters: dict[UUID, int] = {}
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def usage(self) -> Event:
        """The usage since the counter was made."""
        return Event(tokens=self.tokens, calls=self.calls, seconds=time.monotonic() - self._started)

    def attach(self, config: RunnableConfig) -> RunnableConfig:
        """The config with the counter among its callbacks."""
        callbacks = config.get("callbacks")
        if isinstance(callbacks, BaseCallbackManager):
            manager = callbacks.copy()
            manager.add_handler(self, inherit=True)
            return {**config, "callbacks": manager}
        return {**config, "callbacks": [*(callbacks or ()), self]}

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._on_start(run_id, sum(len(message.text) for prompt in messages for message in prompt))

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self._on_start(run_id, sum(len(prompt) for prompt in prompts))

    def _on_start(self, run_id: UUID, characters: int) -> None:
        with self._lock:
            self.calls += 1
            self._prompt_characters[run_id] = characters

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        answers = [generation for prompt in response.generations for generation in prompt]
        reported = [_reported_tokens(answer.message) for answer in answers if isinstance(answer, ChatGeneration)]
        with self._lock:
            characters = self._prompt_characters.pop(run_id, 0) + sum(len(answer.text) for answer in answers)
            self.tokens += sum(reported) or -(-characters // _CHARACTERS_PER_TOKEN)


def _reported_tokens(message: BaseMessage) -> int:
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    return usage["total_tokens"] if usage else 0
