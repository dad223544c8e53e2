"""Counts what a chat group uses of its models."""

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

__all__ = ["Meter"]

_CHARACTERS_A_TOKEN = 4


class Meter(BaseCallbackHandler):
    """Counts calls, tokens and seconds, of whatever runs under the config that it is put into."""

    run_inline = True

    def __init__(self) -> None:
        self.tokens = 0
        self.calls = 0
        self._asked: dict[UUID, int] = {}
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def reading(self) -> Event:
        """What has been used since the meter was made."""
        return Event(tokens=self.tokens, calls=self.calls, seconds=time.monotonic() - self._began)

    def into(self, config: RunnableConfig) -> RunnableConfig:
        """The config with the meter among its callbacks."""
        callbacks = config.get("callbacks")
        if isinstance(callbacks, BaseCallbackManager):
            manager = callbacks.copy()
            manager.add_handler(self, inherit=True)
            return {**config, "callbacks": manager}
        return {**config, "callbacks": [*(callbacks or ()), self]}

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._begin(run_id, sum(len(message.text) for prompt in messages for message in prompt))

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self._begin(run_id, sum(len(prompt) for prompt in prompts))

    def _begin(self, run_id: UUID, characters: int) -> None:
        with self._lock:
            self.calls += 1
            self._asked[run_id] = characters

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        answers = [generation for prompt in response.generations for generation in prompt]
        reported = [_reported(answer.message) for answer in answers if isinstance(answer, ChatGeneration)]
        with self._lock:
            characters = self._asked.pop(run_id, 0) + sum(len(answer.text) for answer in answers)
            self.tokens += sum(reported) or -(-characters // _CHARACTERS_A_TOKEN)


def _reported(message: BaseMessage) -> int:
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    return usage["total_tokens"] if usage else 0
