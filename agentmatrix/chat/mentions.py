"""The names of members in a text: mentions, and the answer of a model that is asked for a name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from agentmatrix.chat.authorship import provider_names
from agentmatrix.chat.content import without_thoughts

__all__ = ["mentioned_names", "names_in"]

_ESCAPED: Final = re.compile(r"\\([\\`*_{}\[\]()#+.!~|>-])")
_SEPARATORS: Final = re.compile(r"[\W_]+")
# Letters of Thai, Japanese, Chinese and Korean, which stand beside a name without a blank.
_UNSPACED: Final = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_EDGES: Final = re.compile(rf"(?<=[{_UNSPACED}])(?=[^\s{_UNSPACED}])|(?<=[^\s{_UNSPACED}])(?=[{_UNSPACED}])")


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
    spelled |= {_composed(member).casefold(): member for member in reversed(members)}
    exact = {_composed(member): member for member in members}
    names = sorted({*exact, *spelled}, key=len, reverse=True)
    # Not behind a letter, as in a mail address, and not in front of more of a word, a host name or a path.
    pattern = re.compile(
        rf"(?<![^\W_{_UNSPACED}])(?<![.+/@-])[@\uff20]({'|'.join(map(_whole, names))})(?![.:/@]\w)", re.IGNORECASE
    )
    return [
        exact.get(hit) or spelled.get(hit.casefold()) or _alike(hit, spelled) for hit in pattern.findall(_plain(text))
    ]


def _whole(name: str) -> str:
    """The pattern of a name that is not in front of more of a word."""
    unspaced = "" if re.search(f"[{_UNSPACED}]$", name) else _UNSPACED
    return rf"{re.escape(name)}(?![-_]*[^\W_{unspaced}])"


def _alike(hit: str, spelled: Mapping[str, str]) -> str:
    """The member that a hit names, where lower case is not all that they differ in, as the dotted I of Turkish."""
    return next(member for name, member in spelled.items() if re.fullmatch(re.escape(name), hit, re.IGNORECASE))


def _composed(text: str) -> str:
    """A text with each letter and its accents as one character, as far as there is one."""
    return unicodedata.normalize("NFC", text)


def _plain(text: str) -> str:
    """A text without thoughts and the backslashes of Markdown."""
    return _composed(_ESCAPED.sub(r"\1", without_thoughts(text)))


def _normal(text: str) -> str:
    return _EDGES.sub(" ", _SEPARATORS.sub(" ", _composed(text).casefold())).strip()


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
