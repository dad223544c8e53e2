"""The content of messages: what of it is speech, what stays with its author, and what another model may be given.

Providers refuse, in the mouth of a user, what only an assistant may say: thoughts, calls of tools and of tools that run
at the provider, their results, citations. They refuse empty texts everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage

__all__ = [
    "Content",
    "as_heard",
    "as_said",
    "is_speech",
    "is_text",
    "map_text",
    "user_content",
    "without_thoughts",
    "without_tool_parts",
]

Content = str | list[Any]

_MEDIA: Final = frozenset({"image", "audio", "video", "file", "text-plain"})
"""The types of LangChain's standard blocks that a person may say, besides text."""

_OF_AN_ANSWER: Final = frozenset({"annotations", "citations", "extras", "id", "index", "phase"})

_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
# The names of tools that run at a provider differ; what they have in common is the end of the name.
_TOOL_PARTS: Final = frozenset({"function_call", "executable_code", "code_execution_result", "mcp_list_tools"})
_TOOL_ENDINGS: Final = ("_call", "_call_output", "_call_result", "_approval_request", "_approval_response")
# Open models write their thoughts into the text.
_THOUGHTS_IN_TEXT: Final = re.compile(r"\s*<think(?:ing)?>.*?(?:</think(?:ing)?>\s*|\Z)", re.DOTALL)
# The templates of some of them open the thoughts in the prompt, so that the answer only closes them, on a line's end.
_CLOSED_THOUGHTS: Final = re.compile(r"(?:(?!<think).)*?</think(?:ing)?>[ \t]*\n\s*", re.DOTALL)


def _type(part: Any) -> str:
    return str(part.get("type", "")) if isinstance(part, Mapping) else ""


def is_text(part: Any) -> bool:
    """Whether a block is words."""
    return isinstance(part, str) or _type(part) == "text"


def _is_tool_part(part: Any) -> bool:
    kind = _type(part)
    if kind == "image_generation_call":
        return False  # The picture itself.
    return "tool" in kind or kind in _TOOL_PARTS or kind.endswith(_TOOL_ENDINGS)


def is_speech(message: BaseMessage) -> bool:
    """Whether a message says something: words, a picture, a sound, a file. Blanks, thoughts and calls are silence."""
    content = message.content
    if isinstance(content, str) and "<" not in content and content.strip():
        return True  # Words without a tag, as most messages are, need no closer look.
    return bool(as_heard(message))


def without_thoughts(text: str) -> str:
    """The text without the thoughts that it begins with, `<think>...</think>`."""
    found = _THOUGHTS_IN_TEXT.match(text) if "<think" in text else None
    if found is None and "</think" in text:
        found = _CLOSED_THOUGHTS.match(text)
    return text[found.end() :] if found else text


def without_tool_parts(content: Content) -> Content:
    """The content without calls of tools and their results."""
    if isinstance(content, str):
        return content
    kept = [part for part in content if not _is_tool_part(part)]
    return content if len(kept) == len(content) else kept


def map_text(content: Content, change: Callable[[str], str]) -> Content:
    """The content with its text changed: a text itself, or the only text among its blocks."""
    if isinstance(content, str):
        return change(content)
    texts = [index for index, part in enumerate(content) if is_text(part)]
    if len(texts) != 1:
        return content
    part = content[texts[0]]
    text = part if isinstance(part, str) else str(part.get("text", ""))
    if (changed := change(text)) == text:
        return content
    return [*content[: texts[0]], {"type": "text", "text": changed}, *content[texts[0] + 1 :]]


def as_heard(message: BaseMessage) -> Content:
    """What another model may be given of an assistant's message: its words, and pictures, sounds and files.

    Returns:
        A text, or a list of blocks if there is more than text; `""` if nothing is left.
    """
    content = message.content
    if isinstance(content, str):
        if (words := without_thoughts(content)) and not words.isspace():
            return words
        if not message.additional_kwargs:
            return ""
    parts = _said_parts(message)
    if all(_type(part) == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return [part for part in parts if _type(part) != "text" or part["text"].strip()]


def as_said(message: BaseMessage) -> str:
    """What a model may be given of its own earlier message: its words. What else it said is named."""
    heard = as_heard(message)
    if isinstance(heard, str):
        return heard
    words = "".join(part["text"] for part in heard if _type(part) == "text")
    return words or "".join(f"[{_type(part)}]" for part in heard)


def user_content(content: Content) -> Content:
    """What a model may be given of a user's message: all of it, but for empty texts and what only an assistant says.

    Returns:
        The content itself if it may stay as it is; `""` if nothing is left.
    """
    if isinstance(content, str):
        return "" if content.isspace() else content
    kept = [_as_users(part) for part in content if _may_be_a_users(part)]
    return content if kept == content else kept or ""


def _as_users(part: Any) -> Any:
    """A block without what an assistant's text has: citations, and its place in a stream. Not each of LangChain's
    converters takes a text without a block around it."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if _type(part) != "text" or not part.keys() & _OF_AN_ANSWER:
        return part
    return {key: value for key, value in part.items() if key not in _OF_AN_ANSWER}


def _may_be_a_users(part: Any) -> bool:
    if isinstance(part, str):
        return bool(part.strip())
    if _type(part) == "text":
        return bool(str(part.get("text") or "").strip())
    return not (_is_tool_part(part) or _type(part) in _THOUGHTS or _type(part) in ("refusal", "non_standard"))


def _said_parts(message: BaseMessage) -> list[dict[str, Any]]:
    """The words, pictures, sounds and files of a message, as LangChain's standard blocks."""
    said: list[dict[str, Any]] = []
    for part in _blocks(message):
        kind = _type(part)
        if kind == "non_standard":
            said += _of_another_provider(part.get("value"))
        elif kind == "text":
            words = without_thoughts(part.get("text") or "") if not said else part.get("text")
            said += [{"type": "text", "text": words}] if words else []
        elif kind == "refusal":
            said += [{"type": "text", "text": part["refusal"]}] if part.get("refusal") else []
        elif kind == "text-plain":
            # A document that is text. Chat completions take no other ones than files.
            said += [{"type": "text", "text": part["text"]}] if part.get("text") else []
        elif kind in _MEDIA and not (kind == "file" and not part.keys() & {"base64", "url", "file_id"}):
            said.append(_medium(part))
    if not any(_type(part) != "text" or part["text"].strip() for part in said):
        said = []
    return said or _spoken(message)


def _medium(part: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in part.items() if key not in ("id", "index", "extras", "annotations")}
    return {"mime_type": "image/png", **kept} if kept["type"] == "image" and "base64" in kept else kept


def _blocks(message: BaseMessage) -> list[Any]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}]
    if not isinstance(message, AIMessage):
        return list(message.content)
    try:
        return list(message.content_blocks)
    except Exception:  # LangChain's translator for a provider met a block that is not like that provider's.
        return [{"type": "text", "text": part} if isinstance(part, str) else part for part in message.content]


def _of_another_provider(part: Any) -> list[dict[str, Any]]:
    """A picture, or words, of another provider's shape, which LangChain's translator did not know."""
    if _type(part) in ("input_text", "output_text") and part.get("text"):
        return [{"type": "text", "text": part["text"]}]
    if _type(part) not in ("image_url", "image_generation_call"):
        return []
    blocks = AIMessage([part]).content_blocks if part["type"] == "image_url" else []
    if part["type"] == "image_generation_call" and part.get("result"):
        return [{"type": "image", "base64": part["result"], "mime_type": "image/png"}]
    return [_medium(block) for block in blocks if block["type"] == "image"]


def _spoken(message: BaseMessage) -> list[dict[str, Any]]:
    """What a message says beside its content: a refusal, or an answer as sound, of which the words are given."""
    if refusal := _refusal(message):
        return [{"type": "text", "text": refusal}]
    audio = message.additional_kwargs.get("audio")
    if not isinstance(audio, Mapping):
        return []
    if transcript := str(audio.get("transcript") or "").strip():
        return [{"type": "text", "text": transcript}]
    return [{"type": "audio", "base64": audio["data"], "mime_type": "audio/wav"}] if audio.get("data") else []


def _refusal(message: BaseMessage) -> str:
    refusal = message.additional_kwargs.get("refusal")
    return refusal.strip() if isinstance(refusal, str) else ""
