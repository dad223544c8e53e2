"""A chat model with scripted answers: tests run offline, and each time the same."""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeGuard

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.utils import LC_ID_PREFIX
from pydantic import Field, PrivateAttr

from agentmatrix.errors import ScriptExhausted
from agentmatrix.pregel.callback_handlers import inherited_callbacks, is_any_hook_set
from agentmatrix.pregel.message_copy import text_message
from agentmatrix.pregel.node_handler import node_handlers, other_handlers, told_of_model_call
from agentmatrix.pregel.token_usage import counted

__all__ = ["ScriptedChatModel"]

# For the ids of answers. `uuid4` asks the operating system: the thread releases the GIL and has to wait for it.
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


class _Calls:
    """The prompts of all calls so far; shared by threads, copied with the model."""

    def __init__(self) -> None:
        self.prompts: list[list[BaseMessage]] = []
        self._lock = threading.Lock()

    def add(self, prompt: Sequence[BaseMessage]) -> int:
        with self._lock:
            self.prompts.append(list(prompt))
            return len(self.prompts) - 1

    def __getstate__(self) -> dict[str, Any]:
        return {"prompts": list(self.prompts)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.prompts = state["prompts"]
        self._lock = threading.Lock()


class ScriptedChatModel(BaseChatModel):
    """A chat model whose answers are given beforehand.

    It streams word by word, sync and async, takes tools and structured output, and counts its calls. Threads may share
    it; the answers then go to them in the order of their calls.

    Args:
        answers: the answers in the order of the calls. Each is a text, an `AIMessage`, a tool call or a list of tool
            calls (`{"name": ..., "args": ...}`), an exception to raise, or a function of the messages that returns
            one of these. A single answer need not be in a list.
        cycle: begin again after the last answer. Without it the next call raises `ScriptExhausted`.
        usage: report token counts, one per word, of a model named `scripted`.

    Example:
        >>> ScriptedChatModel(answers=["hello", "goodbye"]).invoke("hi").content
        'hello'
    """

    answers: list[Any] = Field(min_length=1)
    cycle: bool = False
    usage: bool = False
    _calls: _Calls = PrivateAttr(default_factory=_Calls)

    def __init__(self, answers: Any = None, **kwargs: Any) -> None:
        several = isinstance(answers, Sequence) and not isinstance(answers, str)
        kwargs["answers"] = list(answers) if several else [answers]
        super().__init__(**kwargs)

    @property
    def calls(self) -> int:
        """How often the model has been called."""
        return len(self._calls.prompts)

    @property
    def prompts(self) -> list[list[BaseMessage]]:
        """The messages of each call, in the order of the calls."""
        return self._calls.prompts

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"answers": len(self.answers), "cycle": self.cycle}

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Accept tools, as any chat model does; the answers say which of them are called."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """The next answer."""
        callbacks = (config or {}).get("callbacks") or inherited_callbacks()
        if self._is_untraced(input, callbacks):
            return self._answer_with_id(input, config, callbacks)
        return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """The next answer."""
        callbacks = (config or {}).get("callbacks") or inherited_callbacks()
        if self._is_untraced(input, callbacks):
            return self._answer_with_id(input, config, callbacks)
        return await super().ainvoke(input, config, stop=stop, **kwargs)

    def _is_untraced(self, input: LanguageModelInput, callbacks: Callbacks) -> TypeGuard[list[BaseMessage]]:
        """Whether the input is a list of messages, and no callback, tracer or cache sees this call.

        Such a call is answered without LangChain's machinery, which costs far more than the answer.
        """
        if not isinstance(input, list):
            return False
        for kind in set(map(type, input)):
            if not issubclass(kind, BaseMessage):
                return False
        if _has_handlers(callbacks) or _has_handlers(self.callbacks) or self.verbose or is_any_hook_set(callbacks):
            return False
        return not (self.cache or get_llm_cache() or self.rate_limiter or self.output_version)

    def _answer_with_id(
        self, messages: list[BaseMessage], config: RunnableConfig | None, callbacks: Callbacks
    ) -> AIMessage:
        id = f"{LC_ID_PREFIX}-{_random.getrandbits(128):032x}"
        if not callbacks:
            return counted(self._answer, messages, id)
        with told_of_model_call(callbacks, config) as tell_end:
            answer = counted(self._answer, messages, id)
            tell_end(answer)
        return answer

    def _answer(self, messages: Sequence[BaseMessage], id: str | None = None) -> AIMessage:
        # As `self._calls`, which pydantic looks for among the fields first.
        private = self.__pydantic_private__
        assert private is not None
        index = private["_calls"].add(messages)
        if index >= len(self.answers) and not self.cycle:
            raise ScriptExhausted(
                f"this ScriptedChatModel has {len(self.answers)} answers and was called {index + 1} times: "
                "give it more answers, or cycle=True"
            )
        answer = self.answers[index % len(self.answers)]
        if callable(answer) and not isinstance(answer, type):
            answer = answer(list(messages))
        message = _as_message(answer, id)
        if not self.usage:
            return message
        # LangChain's counters count by the model's name, and nothing where it is missing.
        metadata = {"model_name": self._llm_type, **message.response_metadata}
        return message.model_copy(update={"usage_metadata": _usage(messages, message), "response_metadata": metadata})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._answer(messages)):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(self._answer(messages)):
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop, None, **kwargs)


def _has_handlers(callbacks: Callbacks) -> bool:
    if isinstance(callbacks, BaseCallbackManager):
        return other_handlers(callbacks) or any(handler.streams_tokens for handler in node_handlers(callbacks))
    return bool(callbacks)


def _as_message(answer: Any, id: str | None) -> AIMessage:
    """The answer as a message, under an id of its own or this one."""
    if isinstance(answer, str):
        return text_message(AIMessage, answer, id=id)
    if isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException)):
        raise answer
    if isinstance(answer, AIMessage):
        return answer.model_copy(update={"id": answer.id or id})
    calls = [answer] if isinstance(answer, dict) else answer
    if isinstance(calls, Sequence) and all(isinstance(call, dict) and "name" in call for call in calls):
        numbered = enumerate(calls)
        return AIMessage(
            content="",
            id=id,
            tool_calls=[
                {"name": c["name"], "args": c.get("args", {}), "id": c.get("id") or f"call_{i}", "type": "tool_call"}
                for i, c in numbered
            ],
        )
    raise TypeError(
        "a scripted answer is a text, an AIMessage, tool calls, an exception or a function, "
        f"not {type(answer).__name__}"
    )


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    words = re.findall(r"\S+\s*|\s+", message.content) if isinstance(message.content, str) else [message.content]
    calls = [
        ToolCallChunk(name=c["name"], args=json.dumps(c["args"]), id=c["id"], index=i, type="tool_call_chunk")
        for i, c in enumerate(message.tool_calls)
    ]
    last = AIMessageChunk(
        content="",
        id=message.id,
        name=message.name,
        tool_call_chunks=calls,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )
    for word in words:
        yield ChatGenerationChunk(message=AIMessageChunk(content=word, id=message.id))
    yield ChatGenerationChunk(message=last)


def _usage(prompt: Sequence[BaseMessage], answer: AIMessage) -> dict[str, int]:
    input_tokens = sum(len(str(message.content).split()) for message in prompt)
    output_tokens = len(str(answer.content).split())
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
