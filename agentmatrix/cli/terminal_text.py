"""Text of agents and hosts as a terminal may show it: without characters by which it could be controlled."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

__all__ = ["json_line", "terminal_text"]

_BIDI: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks that reorder the text after them."""
_REMOVED: Final = [code for code in (*range(0x20), *range(0x7F, 0xA0), *_BIDI) if chr(code) not in "\n\t"]
_TEXT: Final = dict.fromkeys(_REMOVED)
_JSON: Final = {code: f"\\u{code:04x}" for code in _REMOVED}


def terminal_text(text: str) -> str:
    """The text without control characters, but line ends and tabs, and without marks that reorder it."""
    return text.translate(_TEXT)


def json_line(value: Any, **options: Any) -> str:
    """JSON in which such characters are escaped, and those that stdout cannot write, so that nothing is lost.

    Args:
        value: what `json.dumps` takes.
        options: of `json.dumps`.
    """
    is_narrow = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    return json.dumps(value, ensure_ascii=is_narrow, **options).translate(_JSON)
