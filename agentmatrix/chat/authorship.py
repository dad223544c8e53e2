"""Who said what: the author of a message in a transcript, and how a model is told of it.

Providers drop `message.name`, or refuse names that break their rules. So each author has a *provider name* that keeps
the rules, and the text of a message may say its author in the form of langgraph-supervisor,
`<name>ann</name><content>Monday.</content>`. Answers in this form are stripped of it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from langchain_core.messages import AIMessage, BaseMessage

from agentmatrix.chat.content import without_thoughts

__all__ = [
    "SAID_BY",
    "AgentNameMode",
    "author_of",
    "provider_name",
    "provider_names",
    "with_inline_name",
    "without_inline_name",
]

AgentNameMode = Literal["inline"] | None
"""How a member is told who spoke: `"inline"`, in the text too; None, by `message.name` alone."""

SAID_BY: Final = "said_by"
"""The key in a message's `additional_kwargs` that names the member who said it, where the message's name does not tell:
in a human message, since a user may have a member's name; and in what the member remembers, since an assistant's
message under its name may come from elsewhere."""

_LONGEST_NAME = 64
_INLINE = re.compile(r"\s*<name>([^<>]*)</name>\s*<content>(.*?)(?:</content>\s*)?", re.DOTALL)
_CONTENT = re.compile(r"</?content>")


def author_of(message: BaseMessage) -> str:
    """The member, or other agent, that has said a message; `""` for a user and for an assistant without a name."""
    name = message.name or ""
    return name if isinstance(message, AIMessage) or message.additional_kwargs.get(SAID_BY) == name else ""


def provider_name(name: str) -> str:
    """A name that every provider takes: letters, digits, `_` and `-`, at most 64 of them."""
    return re.sub(r"[^\w-]+", "_", name)[:_LONGEST_NAME].strip("_") or "member"


def provider_names(members: Iterable[str]) -> Mapping[str, str]:
    """The names that members have in prompts: their own where providers take them, otherwise one like it.

    No two are the same, in whatever case.
    """
    named: dict[str, str] = {}
    taken: set[str] = set()
    # Whoever has a good name keeps it, whoever comes first.
    for member in sorted(members, key=lambda member: provider_name(member) != member):
        name, number = provider_name(member), 1
        while name.lower() in taken:
            number += 1
            name = f"{provider_name(member)[: _LONGEST_NAME - 6]}_{number}"
        taken.add(name.lower())
        named[member] = name
    return named


def with_inline_name(text: str, name: str) -> str:
    """The text with its author; a text that is in that form already stays as it is."""
    return text if without_inline_name(text, name) != text else f"<name>{name}</name><content>{text}</content>"


def without_inline_name(text: str, name: str | None = None) -> str:
    """The text without its author, if all of it is in that form.

    Args:
        text: the text.
        name: the author; by default whoever it is.
    """
    if "<name>" not in text:
        return text
    words = without_thoughts(text)
    found = _INLINE.fullmatch(words)
    if not found or name not in (None, found[1]) or not _is_balanced(found[2]):
        return text
    return text[: len(text) - len(words)] + without_inline_name(found[2], name)


def _is_balanced(text: str) -> bool:
    """Whether each part that is opened in a text is closed in it, and none else: then it is one content."""
    depth = 0
    for tag in _CONTENT.findall(text):
        depth += -1 if tag.startswith("</") else 1
        if depth < 0:
            return False
    return depth == 0
