"""The sizes of nodes and texts, estimated without fonts."""

from __future__ import annotations

import unicodedata

from agentmatrix.display.drawing import Node

__all__ = ["BADGE_HEIGHT", "HEADER", "PADDING", "badge_width", "header_width", "leaf_size", "shortened", "text_width"]

HEADER = 30.0
PADDING = 16.0
BADGE_HEIGHT = 18.0
MAX_LENGTH = 40

_NARROW = frozenset("fijlrtI.,:;|!'`()[]{}/\\- ")
_WIDE = frozenset("mwMW@%")


def text_width(text: str, size: float = 13.0) -> float:
    """Return the width of a text in px at a font size in px, for a usual sans-serif font; rather more than less."""
    return sum(_em(character) for character in text) * size


def _em(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF" or ord(character) > 0xFFFF:
        return 1.05
    if character in _NARROW:
        return 0.36
    if character in _WIDE:
        return 0.92
    return 0.7 if character.isupper() else 0.59


def shortened(text: str, max_length: int = MAX_LENGTH) -> str:
    """Return a text on one line, without its middle where it is too long for a box."""
    text = " ".join(text.split())
    if len(text) <= max_length:
        return text
    half = (max_length - 1) // 2
    return f"{text[: max_length - 1 - half]}…{text[-half:]}"


def badge_width(node: Node) -> float:
    """Return the width in px of the badge with a remote node's address."""
    return text_width(shortened(node.address), 11.0) * 1.06 + 16


def header_width(node: Node) -> float:
    """Return the width in px of the line above a nested graph: name, address, note."""
    badge = badge_width(node) + 10 if node.address else 0
    note = text_width(shortened(node.note), 11.0) + 10 if node.note else 0
    return text_width(shortened(node.label), 13.0) * 1.06 + badge + note + 2 * PADDING


def leaf_size(node: Node, nested: bool) -> tuple[float, float]:
    """Return width and height in px of a node without a nested graph; START and END of a nested graph are dots."""
    if node.kind == "junction":
        return 14.0, 14.0
    if node.kind in ("start", "end"):
        return (14.0, 14.0) if nested else (text_width(node.label, 11.0) + 26, 24.0)
    width = text_width(shortened(node.label)) + 30
    height = 36.0
    if node.address:
        width, height = max(width, badge_width(node) + 20), height + BADGE_HEIGHT + 6
    if node.note:
        width, height = max(width, text_width(shortened(node.note), 11.0) + 20), height + 15
    return max(width, 56.0), height
