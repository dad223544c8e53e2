"""Files of environment variables (`.env`), as `langgraph.json` names them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agentmatrix.cli.error_report import CommandError

__all__ = ["read_env_file"]

_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*=\s*
    (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>[^'"\s\#][^\n]*?)? )
    \s*(?:(?<=\s)\#.*|(?<=['"])\#.*)?""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of lines `NAME=value`. Values may be quoted, by `"` also over several lines; `#` begins a comment.

    Raises:
        CommandError: the file cannot be read, or a line is none of these; names the line, never its value.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"the file of variables {path} cannot be read: {reason}") from None
    found: dict[str, str] = {}
    at = 0
    while at < len(lines):
        first, text = at + 1, lines[at]
        at += 1
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        while (match := _LINE.fullmatch(text)) is None and at < len(lines) and _is_open(text):
            text += f"\n{lines[at]}"
            at += 1
        if match is None:
            raise CommandError(f"line {first} of {path} is no NAME=value")
        found[match["name"]] = _value(match)
    return found


def _is_open(text: str) -> bool:
    """Whether a quotation mark waits for its twin."""
    value = text.partition("=")[2].lstrip()
    return value[:1] in ("'", '"') and len(re.findall(rf"(?<!\\){value[0]}", value)) == 1


def _value(match: re.Match[str]) -> str:
    if match["double"] is not None:
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match["double"], flags=re.DOTALL)
    return match["single"] if match["single"] is not None else (match["bare"] or "").strip()
