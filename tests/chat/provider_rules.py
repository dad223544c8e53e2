"""What providers take: the payloads that LangChain's own converters make, the SDKs' own types, and rules of order.

The types are those of the official SDKs (openai, anthropic, google-genai), checked by pydantic. They know no order, so
each provider has a few rules more, of its documentation or its error messages:

- Chat completions: a message of role "tool" follows the call that it answers, each call is answered before the next
  message; names match ``^[^\\s<|\\\\/>]+$`` and have at most 64 characters.
  https://platform.openai.com/docs/api-reference/chat/create, error "string does not match pattern".
- Responses: "No tool output found for function call ...", "No tool call found for function call output ...",
  "Item 'rs_...' of type 'reasoning' was provided without its required following item".
  https://platform.openai.com/docs/guides/reasoning
- Claude: the first message is a user's, texts are not blank ("text content blocks must contain non-whitespace text"), a
  tool_result follows its tool_use, thoughts and tool_use are an assistant's only, system messages stand in front
  (langchain-anthropic: "Received multiple non-consecutive system messages"). From Claude 4.6 on the last message is a
  user's ("This model does not support assistant message prefill").
  https://docs.claude.com/en/api/messages, https://docs.claude.com/en/docs/build-with-claude/tool-use
- Gemini: there is something to answer ("contents are required"), no content without parts and no blank text ("Unable to
  submit request because it must have a text parameter"), a function response follows its call, the first turn and the
  last one are a user's ("Please ensure that multiturn requests end with a user role").
  https://ai.google.dev/gemini-api/docs/text-generation
- Mistral, and the chat templates of open models: behind the system message a user begins, no assistant follows an
  assistant, the last message is a user's or a tool's ("Expected last role User or Tool for serving but got assistant",
  "Conversation roles must alternate"). https://github.com/mistralai/mistral-common (validator.py)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from anthropic.types import MessageParam
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_google_genai.chat_models import _parse_chat_history
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter, ValidationError

__all__ = ["why_refused"]

_NAME = re.compile(r"[^\s<|\\/>]{1,64}")


@cache
def _models() -> tuple[Any, Any, Any]:
    return (
        ChatOpenAI(model="gpt-5", api_key="none"),
        ChatOpenAI(model="gpt-5", api_key="none", use_responses_api=True),
        ChatAnthropic(model="claude-sonnet-4-6", api_key="none"),
    )


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    kinds: dict[str, Any] = {"chat": ChatCompletionMessageParam, "responses": ResponseInputItemParam}
    return TypeAdapter(list[kinds.get(kind, MessageParam)])  # type: ignore[misc]


def why_refused(prompt: Sequence[BaseMessage], *, sound: bool = False) -> list[str]:
    """What providers would refuse of a prompt.

    Args:
        prompt: the messages.
        sound: whether it has sounds, which only chat completions and Gemini take.
    """
    chat, responses, claude = _models()
    refused = [f"chat completions: {why}" for why in _in_chat(chat._get_request_payload(list(prompt))["messages"])]
    if not sound:
        items = responses._get_request_payload(list(prompt))["input"]
        refused += [f"responses: {why}" for why in _in_responses(items)]
        refused += [f"Claude: {why}" for why in _at_claude(claude._get_request_payload(list(prompt))["messages"])]
    refused += [f"Gemini: {why}" for why in _at_gemini(prompt)]
    return refused + [f"open models: {why}" for why in _in_templates(prompt)]


def _mistyped(kind: str, payload: Any) -> list[str]:
    try:
        _exhausted(_adapter(kind).validate_python(payload))
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]]
    return []


def _exhausted(value: Any) -> None:
    """Reads all of a validated value: pydantic checks what is typed as Iterable as it is read."""
    if isinstance(value, dict):
        for item in value.values():
            _exhausted(item)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for item in value:
            _exhausted(item)


def _in_chat(messages: list[dict[str, Any]]) -> list[str]:
    refused, open_calls = _mistyped("chat", messages) or ([] if messages else ["no messages"]), set[str]()
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                refused.append(f"{index}: role 'tool' without a preceding call")
            open_calls.discard(message["tool_call_id"])
            continue
        refused += [f"{index}: the call {call} is not answered" for call in sorted(open_calls)]
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
        if (name := message.get("name")) is not None and not _NAME.fullmatch(name):
            refused.append(f"{index}: the name {name!r} does not match the pattern")
        content = message.get("content")
        if not content and not open_calls:
            refused.append(f"{index}: empty content")
        known = {"assistant": {"text", "refusal"}, "system": {"text"}}.get(
            message["role"], {"text", "image_url", "input_audio", "file"}
        )
        parts = content if isinstance(content, list) else []
        refused += [
            f"{index}: {p['type']!r} in a message of {message['role']}" for p in parts if p["type"] not in known
        ]
    return refused


def _completed(item: dict[str, Any]) -> dict[str, Any]:
    """An item of the responses API as the SDK types want it. langchain-openai leaves out what the API fills in: id and
    status of an assistant's message that is sent again, and the detail of a picture."""
    if item.get("role") == "assistant":
        return {"id": "msg_0", "status": "completed", **item}
    if isinstance(content := item.get("content"), list):
        parts = [{"detail": "auto", **part} if part["type"] == "input_image" else part for part in content]
        return {**item, "content": parts}
    return item


def _in_responses(items: list[dict[str, Any]]) -> list[str]:
    refused = _mistyped("responses", [_completed(item) for item in items]) or ([] if items else ["no input"])
    kinds = [item.get("type", "message") for item in items]
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    refused += [f"no tool output found for function call {call}" for call in calls if call not in outputs]
    refused += [f"no tool call found for function call output {call}" for call in outputs if call not in calls]
    return refused + (["reasoning without its following item"] if kinds and kinds[-1] == "reasoning" else [])


def _at_claude(messages: list[dict[str, Any]]) -> list[str]:
    refused, uses = _mistyped("claude", messages) or ([] if messages else ["no messages"]), set[str]()
    if messages and messages[0]["role"] != "user":
        refused.append("the first message is not a user's")
    if messages and messages[-1]["role"] != "user":
        refused.append("the last message is not a user's")
    for index, message in enumerate(messages):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        refused += [] if blocks else [f"{index}: no content"]
        refused += [f"{index}: blank text" for b in blocks if b["type"] == "text" and not b["text"].strip()]
        of_user = {"text", "image", "document", "tool_result", "search_result"}
        if message["role"] == "user":
            refused += [f"{index}: {b['type']!r} in a user's message" for b in blocks if b["type"] not in of_user]
        answered = {b["tool_use_id"] for b in blocks if b["type"] == "tool_result"}
        refused += [f"{index}: tool_result without its tool_use"] if answered - uses else []
        refused += [f"{index}: tool_use without its tool_result"] if uses - answered else []
        uses = {b["id"] for b in blocks if b["type"] == "tool_use"}
    return refused


def _at_gemini(prompt: Sequence[BaseMessage]) -> list[str]:
    # The parts are objects of the SDK's own pydantic types.
    _, contents = _parse_chat_history(list(prompt), model="gemini-3-pro")
    if not contents:
        return ["contents are required"]
    refused = [] if contents[0].role == "user" else ["the first turn is not a user's"]
    refused += [] if contents[-1].role in ("user", "function") else ["the last turn is not a user's"]
    calls: set[str | None] = set()
    for index, content in enumerate(contents):
        refused += [] if content.parts else [f"{index}: no parts"]
        for part in content.parts or ():
            if part.text is not None and not part.text.strip():
                refused.append(f"{index}: blank text")
            if part.function_response and part.function_response.name not in calls:
                refused.append(f"{index}: a function response without its call")
        calls = {part.function_call.name for part in content.parts or () if part.function_call}
    return refused


def _in_templates(prompt: Sequence[BaseMessage]) -> list[str]:
    system = next((n for n, message in enumerate(prompt) if not isinstance(message, SystemMessage)), len(prompt))
    rest = prompt[system:]
    refused = [] if rest else ["nobody but the system speaks"]
    refused += ["a system message in the middle"] if any(isinstance(m, SystemMessage) for m in rest) else []
    refused += ["an assistant begins"] if rest and isinstance(rest[0], AIMessage) else []
    refused += ["an assistant has the last word"] if rest and isinstance(rest[-1], AIMessage) else []
    for one, two in zip(rest, rest[1:], strict=False):
        if isinstance(one, AIMessage) and isinstance(two, AIMessage):
            refused.append("an assistant follows an assistant")
        if isinstance(two, ToolMessage) and not isinstance(one, AIMessage | ToolMessage):
            refused.append("a tool's result without its call")
    return refused
