"""The names of members in a text: mentions, and the answer of a model that is asked for a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from agentmatrix.chat.authorship import provider_names
from agentmatrix.chat.content import without_thoughts

__all__ = ["mentioned_names", "names_in"]

_ESCAPED: Final = re.compile(r"\\([\\`*_{}\[\]()#+.!~|>-])")
_SEPARATORS: Final = re.compile(r"[\W_]+")


def names_in(text: str, members: Sequence[str]) -> list[str]:
    """The members that a text names, in its order: in any case, with Markdown, quotes and thoughts around them. A name
    that is part of a longer one does not count."""
    text = _plain(text)
    if text.strip() in members:
        return [text.strip()]
    words = _normal(text)
    found: list[tuple[int, str]] = []
    for name in sorted(by_words := _by_words(members), key=len, reverse=True):
        pattern = re.compile(rf"(?<!\S){re.escape(name)}(?!\S)")
        if match := pattern.search(words):
            found.append((match.start(), name))
            words = pattern.sub(lambda hit: "\0" * len(hit[0]), words)
    return [_as_written(by_words[name], text) for _, name in sorted(found)]


def mentioned_names(text: str, members: Sequence[str]) -> list[str]:
    """The members that a text mentions as `@name`, in any case. Other words behind an `@`, mail addresses and paths
    are text."""
    spelled: dict[str, str] = {}
    for member, name in provider_names(members).items():
        spelled.setdefault(name.casefold(), member)
    spelled |= {member.casefold(): member for member in reversed(members)}
    longest_first = "|".join(re.escape(name) for name in sorted({*members, *spelled}, key=len, reverse=True))
    # Not behind a letter, as in a mail address, and not in front of more of a word, a host name or a path.
    pattern = re.compile(rf"(?<![^\W_])(?<![.+/@-])@({longest_first})(?![-_]*[^\W_]|[.:/@]\w)", re.IGNORECASE)
    hits = pattern.findall(_plain(text))
    return [hit if hit in members else spelled[hit.casefold()] for hit in hits]


def _plain(text: str) -> str:
    """A text without thoughts and the backslashes of Markdown."""
    return _ESCAPED.sub(r"\1", without_thoughts(text))


def _normal(text: str) -> str:
    return _SEPARATORS.sub(" ", text.casefold()).strip()


def _by_words(members: Sequence[str]) -> Mapping[str, list[str]]:
    """By name in lower case, with blanks between its words, the members that have it."""
    found: dict[str, list[str]] = {}
    for member in members:
        if words := _normal(member):
            found.setdefault(words, []).append(member)
    return found


def _as_written(members: list[str], text: str) -> str:
    """Of members whose names are the same words, the one that the text has letter by letter, else the first."""
    return next((member for member in members if member in text), members[0])
