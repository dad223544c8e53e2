"""A layout as one self-contained SVG for light and dark pages, without scripts, fonts or references."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from agentmatrix.display.drawing import Drawing, Node
from agentmatrix.display.layout import Box, Layout, Point, Route, layout_of
from agentmatrix.display.measure import BADGE_HEIGHT, HEADER, PADDING, badge_width, shortened, text_width

__all__ = ["Badge", "svg_of"]

MARGIN = 20.0
ARROW = 7.0
ROUND = 7.0
DOWN, UP = (0.0, 1.0), (0.0, -1.0)
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"

_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The colours are attributes, for viewers that drop style sheets; the sheet only changes them on dark screens. Its
# classes have a prefix because a page that embeds the drawing shares them.
_LIGHT = {
    "page": 'fill="#ffffff" stroke="#e2e8f0"',
    "group0": 'fill="#f1f5f9" stroke="#94a3b8"',
    "group1": 'fill="#ffffff" stroke="#94a3b8"',
    "node": 'fill="#ffffff" stroke="#64748b"',
    "remote": 'fill="#fff7ed" stroke="#c2410c" stroke-width="1.6" stroke-dasharray="6 4"',
    "terminal": 'fill="#475569" stroke="none"',
    "ring": 'fill="none" stroke="#475569" stroke-width="1.6"',
    "badge": 'fill="#c2410c" stroke="none"',
    "line": 'fill="none" stroke="#64748b" stroke-width="1.4"',
    "head": 'fill="#64748b" stroke="none"',
    "text": 'fill="#0f172a"',
    "quiet": 'fill="#64748b"',
    "inverse": 'fill="#ffffff"',
    "veil": 'fill="#ffffff" fill-opacity="0.85" stroke="none"',
    "running": 'fill="#dbeafe" stroke="#2563eb" stroke-width="2"',
    "done": 'fill="#dcfce7" stroke="#16a34a"',
    "failed": 'fill="#fee2e2" stroke="#dc2626" stroke-width="2"',
    "asking": 'fill="#fef9c3" stroke="#a16207" stroke-width="2"',
    "cut": 'fill="#f1f5f9" stroke="#64748b" stroke-dasharray="2 3"',
    "skipped": 'fill="#f8fafc" stroke="#cbd5e1"',
    "waiting": 'fill="#ffffff" stroke="#94a3b8"',
}
_DARK = {
    "page": "fill:#0f172a;stroke:#334155",
    "group0": "fill:#1e293b;stroke:#64748b",
    "group1": "fill:#0f172a;stroke:#64748b",
    "node": "fill:#334155;stroke:#94a3b8",
    "remote": "fill:#3b2415;stroke:#fb923c",
    "terminal": "fill:#cbd5e1",
    "ring": "stroke:#cbd5e1",
    "badge": "fill:#fb923c",
    "line": "stroke:#94a3b8",
    "head": "fill:#94a3b8",
    "text": "fill:#f1f5f9",
    "quiet": "fill:#a3b1c6",
    "inverse": "fill:#0f172a",
    "veil": "fill:#0f172a;fill-opacity:0.7",
    "running": "fill:#1e3a8a;stroke:#60a5fa",
    "done": "fill:#14532d;stroke:#4ade80",
    "failed": "fill:#7f1d1d;stroke:#f87171",
    "asking": "fill:#713f12;stroke:#facc15",
    "cut": "fill:#1e293b;stroke:#94a3b8",
    "skipped": "fill:#1e293b;stroke:#475569",
    "waiting": "fill:#334155;stroke:#94a3b8",
}


@dataclass(frozen=True, slots=True)
class Badge:
    """What a picture says of a node at the moment.

    Attributes:
        state: its colour: `waiting`, `running`, `done`, `failed`, `asking`, `cut`, `skipped`.
        words: what is said in place of its note; text, for those who see no colours.
    """

    state: str
    words: str


Badges = Mapping[str, Badge]


def svg_of(
    drawing: Drawing, badges: Badges | None = None, layout: Layout | None = None, *, is_styled: bool = True
) -> str:
    """Return the drawing as one `<svg>` element with its size in px; it shrinks with a narrow page.

    Args:
        drawing: what to draw.
        badges: by id of a node, what is said of it. A node whose state is to be told needs a note, which keeps the
            room.
        layout: of the drawing, where it was made before.
        is_styled: False for a page that has style sheets of its own, and allows none in its elements.
    """
    layout, badges = layout or layout_of(drawing), badges or {}
    width, height = max(layout.width, 60.0) + 2 * MARGIN, max(layout.height, 30.0) + 2 * MARGIN
    label = quoteattr(_clean(f"graph {drawing.label}"))
    size = ' style="max-width:100%;height:auto"' if is_styled else ""
    dark = "".join(f".amx-{name}{{{style}}}" for name, style in _DARK.items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}"{size} role="img" aria-label={label} font-family="{FONT}" font-size="13">',
        *([f"<style>@media (prefers-color-scheme:dark){{{dark}}}</style>"] if is_styled else []),
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="10" {_paint("page")}/>',
        f'<g transform="translate({MARGIN:.0f} {MARGIN:.0f})">',
        *_level(layout, 0, badges),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _level(layout: Layout, depth: int, badges: Badges) -> Iterator[str]:
    for box in layout.boxes:
        yield from _box(box, depth, badges)
    for route in layout.routes:
        yield from _edge(route)
    for route in layout.routes:
        yield from _edge_label(route)


def _box(box: Box, depth: int, badges: Badges) -> Iterator[str]:
    node = box.node
    if (badge := badges.get(node.id)) is not None:
        node = box.node = replace(node, note=badge.words)
    state = f" data-state={quoteattr(badge.state)}" if badge else ""
    yield f'<g data-node={quoteattr(_clean(node.id))}{state} transform="translate({box.x:.1f} {box.y:.1f})">'
    yield f"<title>{escape(_clean(_title(node)))}</title>"
    if node.kind in ("start", "end"):
        yield from _terminal(box, nested=depth > 0)
    elif node.kind == "junction":
        yield f'<circle cx="{box.width / 2:.1f}" cy="{box.height / 2:.1f}" r="5" {_paint("ring")}/>'
    elif box.inner:
        yield from _group(box, depth, badges, badge)
    else:
        yield from _leaf(box, badge)
    yield "</g>"


def _terminal(box: Box, nested: bool) -> Iterator[str]:
    x, y = box.width / 2, box.height / 2
    if not nested:
        yield _rect(box.width, box.height, box.height / 2, "terminal")
        yield _text(box.node.label, x, y, "inverse", 11, "middle")
    elif box.node.kind == "start":
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" {_paint("terminal")}/>'
    else:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6.2" {_paint("ring")}/>'
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" {_paint("terminal")}/>'


def _group(box: Box, depth: int, badges: Badges, badge: Badge | None) -> Iterator[str]:
    node = box.node
    remote = node.kind == "remote"
    yield _rect(box.width, box.height, 10, "remote" if remote else f"group{depth % 2}")
    if badge and badge.state != "waiting":
        # What is inside has colours of its own: the state of the group is that of its head.
        yield _rect(box.width, HEADER - 4, 10, badge.state)
    yield _text(shortened(node.label), PADDING - 3, HEADER / 2 + 1, "text", 13, "start", bold=True)
    after = PADDING - 3 + text_width(shortened(node.label)) * 1.06 + 8
    if node.address:
        yield from _badge(node, box.width - badge_width(node) - 8, 7)
    if node.note:
        yield _text(shortened(node.note), after, HEADER / 2 + 1, "quiet", 11, "start")
    if box.inner:
        left = (box.width - box.inner.width) / 2
        yield f'<g transform="translate({left:.1f} {HEADER:.0f})">'
        yield from _level(box.inner, depth + 1, badges)
        yield "</g>"


def _leaf(box: Box, badge: Badge | None) -> Iterator[str]:
    node, middle = box.node, box.width / 2
    plain = "remote" if node.kind == "remote" else "node"
    yield _rect(box.width, box.height, 7, badge.state if badge and badge.state != "waiting" else plain)
    if node.kind in ("group", "members"):
        yield f'<path d="M5 1V{box.height - 1:.0f}M{box.width - 5:.1f} 1V{box.height - 1:.0f}" {_paint("line")}/>'
    yield _text(shortened(node.label), middle, 18.5, "text", 13, "middle")
    if node.address:
        yield from _badge(node, middle - badge_width(node) / 2, 33)
    if node.note:
        yield _text(shortened(node.note), middle, box.height - 12, "quiet", 11, "middle")


def _badge(node: Node, x: float, y: float) -> Iterator[str]:
    width = badge_width(node)
    yield f'<g transform="translate({x:.1f} {y:.1f})">{_rect(width, BADGE_HEIGHT, BADGE_HEIGHT / 2, "badge")}'
    yield f"{_text(shortened(node.address), width / 2, BADGE_HEIGHT / 2, 'inverse', 11, 'middle')}</g>"


def _edge(route: Route) -> Iterator[str]:
    edge = route.edge
    path, tip, tail = _path(route)
    conditional = edge.conditional or (route.reverse is not None and route.reverse.conditional)
    dashes = ' stroke-dasharray="5 4"' if conditional else ""
    both = ' data-both="true"' if route.reverse else ""
    yield (
        f"<g data-source={quoteattr(_clean(edge.source))} data-target={quoteattr(_clean(edge.target))}{both}>"
        f'<path d="{path}"{dashes} {_paint("line")}/>{tip}{tail if route.reverse else ""}</g>'
    )


def _edge_label(route: Route) -> Iterator[str]:
    if not route.label_at:
        return
    x, y = route.label_at
    words = shortened(route.edge.label)
    width = text_width(words, 11.0) + 6
    yield f'<g transform="translate({x:.1f} {y:.1f})"><title>{escape(_clean(route.edge.label))}</title>'
    yield f'<rect x="{-width / 2:.1f}" y="-8" width="{width:.1f}" height="16" rx="4" {_paint("veil")}/>'
    yield f"{_text(words, 0, 0, 'quiet', 11, 'middle')}</g>"


def _path(route: Route) -> tuple[str, str, str]:
    """Return the line, which ends inside the arrow heads, and the heads at its end and at its start."""
    points = route.points
    tip, tail = _direction(points[-2], points[-1], DOWN), _direction(points[1], points[0], UP)
    ends = [_before(points[0], tail) if route.reverse else points[0], *points[1:-1], _before(points[-1], tip)]
    words = [f"M{_at(ends[0])}"]
    for index, (here, there) in enumerate(pairwise(ends)):
        if index in route.curved:
            middle = (here[1] + there[1]) / 2
            words.append(f"C{here[0]:.1f} {middle:.1f} {there[0]:.1f} {middle:.1f} {_at(there)}")
        elif route.curved or index + 2 == len(ends):
            words.append(f"L{_at(there)}")
        else:
            words.append(_corner(here, there, ends[index + 2]))
    return "".join(words), _head(points[-1], tip), _head(points[0], tail)


def _corner(here: Point, corner: Point, there: Point) -> str:
    """A straight line with a rounded corner at its end."""
    before, after = _toward(corner, here), _toward(corner, there)
    return f"L{_at(before)}Q{_at(corner)} {_at(after)}"


def _toward(start: Point, end: Point) -> Point:
    length = math.dist(start, end)
    share = min(ROUND, length / 2) / length if length else 0.0
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _before(end: Point, direction: Point) -> Point:
    return end[0] - direction[0] * (ARROW - 1), end[1] - direction[1] * (ARROW - 1)


def _head(end: Point, direction: Point) -> str:
    x, y = direction
    back = end[0] - x * ARROW, end[1] - y * ARROW
    left = back[0] - y * ARROW * 0.45, back[1] + x * ARROW * 0.45
    right = back[0] + y * ARROW * 0.45, back[1] - x * ARROW * 0.45
    return f'<path d="M{_at(end)}L{_at(left)}L{_at(right)}Z" {_paint("head")}/>'


def _direction(start: Point, end: Point, default: Point) -> Point:
    """The unit vector of an arrow; `default` where the points coincide, as below a box that is as high as its row."""
    length = math.dist(start, end)
    return ((end[0] - start[0]) / length, (end[1] - start[1]) / length) if length > 0.01 else default


def _at(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _rect(width: float, height: float, corner: float, name: str) -> str:
    return f'<rect width="{width:.1f}" height="{height:.1f}" rx="{corner:.1f}" {_paint(name)}/>'


def _text(words: str, x: float, y: float, name: str, size: int, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" dy="0.35em" text-anchor="{anchor}" font-size="{size}"{weight} {_paint(name)}>'
        f"{escape(_clean(words))}</text>"
    )


def _paint(name: str) -> str:
    return f'class="amx-{name}" {_LIGHT[name]}'


def _clean(text: str) -> str:
    """Drop the characters that XML cannot hold."""
    return _NO_XML.sub("", text)


def _title(node: Node) -> str:
    return " ".join(word for word in (node.label, node.address and f"@{node.address}", node.note) if word)
