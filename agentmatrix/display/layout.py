"""Where everything goes: each nested graph is laid out as a box of its own, then its parent around the boxes.

Edges that lead back run beside the rows, on the right. All lengths are in px.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentmatrix.display.drawing import Drawing, Edge, Node, back_edges
from agentmatrix.display.layers import Slot, aligned, ordered, rows_of
from agentmatrix.display.measure import HEADER, PADDING, header_width, leaf_size, shortened, text_width

__all__ = ["Box", "Layout", "Point", "Route", "laid_out"]

Point = tuple[float, float]
WIDEST = 980.0
LOOP = 20.0
SHARED = 4


@dataclass(slots=True)
class Box:
    """A node's rectangle; `x` and `y` are its upper left corner within the layout that holds it."""

    node: Node
    width: float
    height: float
    inner: Layout | None = None
    x: float = 0.0
    y: float = 0.0

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(slots=True)
class Route:
    """An edge's way.

    Attributes:
        points: corners of the way; between two of them it is a straight line, or a curve where `curved` has its index.
        label_at: the middle of the label, where the edge has one.
        answer: the edge back, drawn as a second arrow head of this one.
    """

    edge: Edge
    points: list[Point]
    curved: frozenset[int] = frozenset()
    label_at: Point | None = None
    answer: Edge | None = None


@dataclass(slots=True)
class Layout:
    """A level's boxes and ways; a nested level lies in its box at (`PADDING`, `HEADER`)."""

    width: float
    height: float
    boxes: list[Box]
    routes: list[Route]


def laid_out(drawing: Drawing, *, nested: bool = False) -> Layout:
    """Lay out a drawing, the inner levels first."""
    return _Level(drawing, [_box(node, nested) for node in drawing.nodes]).layout()


def _box(node: Node, nested: bool) -> Box:
    if not (node.inner and node.inner.nodes):
        return Box(node, *leaf_size(node, nested))
    inner = laid_out(node.inner, nested=True)
    width = max(inner.width + 2 * PADDING, header_width(node))
    return Box(node, width, inner.height + HEADER + PADDING, inner)


@dataclass(slots=True)
class _Row:
    slots: list[Slot]
    top: float = 0.0
    height: float = 0.0
    # Ways back that pass in the gap above and below this row.
    tracks_above: int = 0
    tracks_below: int = 0

    @property
    def bottom(self) -> float:
        return self.top + self.height


@dataclass(slots=True)
class _Forward:
    edge: Edge
    answer: Edge | None
    chain: list[Slot]
    label: Slot | None = None


@dataclass(slots=True)
class _Back:
    edge: Edge
    leaves_beside: bool = False
    enters_beside: bool = False
    track_below: int = 0
    track_above: int = 0
    lane: float = 0.0


@dataclass
class _Level:
    """The work on one level: rows, then positions, then ways."""

    drawing: Drawing
    boxes: list[Box]
    rows: list[_Row] = field(default_factory=list)
    row_of: dict[str, int] = field(default_factory=dict)
    slot_of: dict[str, Slot] = field(default_factory=dict)
    forward: list[_Forward] = field(default_factory=list)
    back: list[_Back] = field(default_factory=list)
    loops: list[Edge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.box_of = {box.node.id: box for box in self.boxes}

    def layout(self) -> Layout:
        self._sort_edges()
        self._fill_rows()
        aligned([row.slots for row in self.rows], WIDEST)
        self._plan_back()
        self._stack_rows()
        width = self._place_boxes()
        ways = [self._forward_route(way) for way in self.forward]
        ways += [self._loop_route(edge) for edge in self.loops]
        lanes, width = self._back_routes(width)
        height = self.rows[-1].bottom + 9.0 * self.rows[-1].tracks_below if self.rows else 0.0
        return Layout(width, height, self.boxes, ways + lanes)

    def _sort_edges(self) -> None:
        back = back_edges(self.drawing)
        forth = {(edge.source, edge.target) for edge in self.drawing.edges if edge not in back}
        answers = {
            (edge.target, edge.source): edge for edge in back if not edge.label and (edge.target, edge.source) in forth
        }
        for edge in self.drawing.edges:
            if edge.source == edge.target:
                self.loops.append(edge)
            elif edge not in back:
                self.forward.append(_Forward(edge, answers.get((edge.source, edge.target)), []))
            elif (edge.target, edge.source) not in answers:
                self.back.append(_Back(edge))

    def _fill_rows(self) -> None:
        """Put the nodes into rows, and a slot into each row that an edge passes through."""
        looped = {edge.source: max(LOOP, _label_width(edge) + LOOP) for edge in reversed(self.loops)}
        links = [(way.edge.source, way.edge.target, 2 if way.edge.label else 1) for way in self.forward]
        # A large box counts for less than it is, so that two of them still stand side by side.
        widths = {box.node.id: min(box.width, WIDEST / 2 - 30) + 22 for box in self.boxes}
        for way in self.forward:
            widths[way.edge.target] = max(widths[way.edge.target], _label_width(way.edge) + 12)
        nodes = sorted(widths, key=lambda name: self.box_of[name].node.kind != "start")
        self.row_of = rows_of(nodes, links, widths, WIDEST)
        self._lower_ends(links)
        grid: list[list[Slot]] = [[] for _ in range(max(self.row_of.values(), default=-1) + 1)]
        for box in self.boxes:
            half = box.width / 2
            slot = Slot(half, half + looped.get(box.node.id, 0.0), box.height)
            self.slot_of[box.node.id] = slot
            grid[self.row_of[box.node.id]].append(slot)
        shared: dict[tuple[str, bool, int], Slot] = {}
        for way in self.forward:
            self._pass_rows(way, grid, shared)
        self.rows = [_Row(slots) for slots in ordered(grid)]

    def _lower_ends(self, links: list[tuple[str, str, int]]) -> None:
        """END goes below everything that is not an END, as a reader expects; no row stays empty."""
        ends = {box.node.id for box in self.boxes if box.node.kind == "end"}
        leaving = {source for source, _, _ in links}
        lowest = max((row for name, row in self.row_of.items() if name not in ends), default=-1)
        for name in ends - leaving:
            self.row_of[name] = max(self.row_of[name], lowest + 1)
        passed = {row for source, target, _ in links for row in range(self.row_of[source], self.row_of[target])}
        used = sorted(passed | set(self.row_of.values()))
        self.row_of = {name: used.index(row) for name, row in self.row_of.items()}

    def _pass_rows(self, way: _Forward, grid: list[list[Slot]], shared: dict[tuple[str, bool, int], Slot]) -> None:
        source, target = way.edge.source, way.edge.target
        trunk = self._trunk(way.edge)
        first, last = self.row_of[source] + 1, self.row_of[target]
        way.chain = [self.slot_of[source]]
        for row in range(first, last):
            slot = Slot(1, 1, 0, stiffness=6.0, gap=12.0)
            if way.edge.label and way.label is None:
                half = _label_width(way.edge) / 2
                slot = way.label = Slot(half, half, 18, stiffness=3.0, gap=12.0)
            elif trunk:
                slot = shared.setdefault((trunk, way.edge.conditional, row), slot)
            if slot not in grid[row]:
                grid[row].append(slot)
            way.chain.append(slot)
        way.chain.append(self.slot_of[target])
        for upper, lower in zip(way.chain, way.chain[1:], strict=False):
            if lower not in upper.below:
                upper.below.append(lower)
                lower.above.append(upper)

    def _trunk(self, edge: Edge) -> str:
        """Return the end at which so many long edges meet that they share one line there, or nothing."""
        long = [
            way.edge
            for way in self.forward
            if not way.edge.label and self.row_of[way.edge.target] - self.row_of[way.edge.source] > 1
        ]
        leaving = sum(each.source == edge.source for each in long)
        coming = sum(each.target == edge.target for each in long)
        if edge.label or max(leaving, coming) < SHARED:
            return ""
        return f"from {edge.source}" if leaving >= coming else f"to {edge.target}"

    def _plan_back(self) -> None:
        """Edges back leave and enter at the side where nothing stands to the right, else through the gaps of rows."""
        looped = {edge.source for edge in self.loops}
        for way in self.back:
            source, target = self.rows[self.row_of[way.edge.source]], self.rows[self.row_of[way.edge.target]]
            way.leaves_beside = way.edge.source not in looped and source.slots[-1] is self.slot_of[way.edge.source]
            way.enters_beside = way.edge.target not in looped and target.slots[-1] is self.slot_of[way.edge.target]
            if not way.leaves_beside:
                source.tracks_below += 1
                way.track_below = source.tracks_below
            if not way.enters_beside:
                target.tracks_above += 1
                way.track_above = target.tracks_above

    def _stack_rows(self) -> None:
        y = 0.0
        for index, row in enumerate(self.rows):
            row.height = max(slot.height for slot in row.slots)
            y += 9.0 * row.tracks_above
            row.top = y
            y += row.height + 9.0 * row.tracks_below
            if index + 1 < len(self.rows):
                y += self._gap(row, self.rows[index + 1])

    def _gap(self, upper: _Row, lower: _Row) -> float:
        """A wide gap where edges go far to the side, so that they stay steep; a narrow one beside a row of labels."""
        aside = max((abs(slot.x - below.x) for slot in upper.slots for below in slot.below), default=0.0)
        nodes = {id(slot) for slot in self.slot_of.values()}
        both = all(any(id(slot) in nodes for slot in row.slots) for row in (upper, lower))
        return (30.0 if both else 20.0) + min(44.0, aside * 0.09)

    def _place_boxes(self) -> float:
        slots = [slot for row in self.rows for slot in row.slots]
        start = min((slot.x - slot.left for slot in slots), default=0.0)
        for slot in slots:
            slot.x -= start
        for box in self.boxes:
            slot, row = self.slot_of[box.node.id], self.rows[self.row_of[box.node.id]]
            box.x = slot.x - slot.left
            box.y = row.top + (row.height - box.height) / 2
        return max((slot.x + slot.right for slot in slots), default=0.0)

    def _forward_route(self, way: _Forward) -> Route:
        source, target = self.box_of[way.edge.source], self.box_of[way.edge.target]
        row = self.row_of[way.edge.source]
        points: list[Point] = [(self._port(way, 0), source.bottom)]
        curved: set[int] = set()
        label_at: Point | None = None
        for offset, slot in enumerate(way.chain[:-1]):
            here, below = self.rows[row + offset], self.rows[row + offset + 1]
            x = points[-1][0]
            points.append((x, here.bottom + 9.0 * here.tracks_below))
            curved.add(len(points) - 1)
            last = offset + 2 == len(way.chain)
            x = self._port(way, -1) if last else way.chain[offset + 1].x
            points.append((x, below.top - 9.0 * below.tracks_above))
            if slot is way.label:
                label_at = (slot.x, here.top + here.height / 2)
        points.append((self._port(way, -1), target.y))
        return Route(way.edge, points, frozenset(curved), label_at, way.answer)

    def _port(self, way: _Forward, end: int) -> float:
        """Spread the edges of a node along its lower or upper border, in the order in which they come."""
        name = way.edge.source if end == 0 else way.edge.target
        box = self.box_of[name]
        slot = self.slot_of[name]
        nearest = sorted(slot.below if end == 0 else slot.above, key=lambda slot: slot.x)
        index = nearest.index(way.chain[1 if end == 0 else -2])
        apart = min(14.0, box.width * 0.6 / max(len(nearest) - 1, 1))
        return box.x + box.width / 2 + apart * (index - (len(nearest) - 1) / 2)

    def _loop_route(self, edge: Edge) -> Route:
        box = self.box_of[edge.source]
        middle, reach = box.y + box.height / 2, min(9.0, box.height / 4)
        right, out = box.right, box.right + LOOP - 6
        points = [(right, middle + reach), (out, middle + reach), (out, middle - reach), (right, middle - reach)]
        label = (out + _label_width(edge) / 2, middle) if edge.label else None
        return Route(edge, points, label_at=label)

    def _back_routes(self, width: float) -> tuple[list[Route], float]:
        routes = []
        for way in sorted(self.back, key=lambda way: self.row_of[way.edge.source] - self.row_of[way.edge.target]):
            half = _label_width(way.edge) / 2 if way.edge.label else 0.0
            lane = width + 14.0 + half
            width = lane + half
            points = [*self._leaving(way), *self._entering(way)[::-1]]
            corners = [points[0], *((x if x >= 0 else lane, y) for x, y in points[1:-1]), points[-1]]
            middle = (points[1][1] + points[-2][1]) / 2
            routes.append(Route(way.edge, corners, label_at=(lane, middle) if way.edge.label else None))
        return routes, width

    def _leaving(self, way: _Back) -> list[Point]:
        """The way from the source to its lane; the lane's own x, not known yet, is -1."""
        box, row = self.box_of[way.edge.source], self.rows[self.row_of[way.edge.source]]
        if way.leaves_beside:
            y = self._side_port(way, box)
            return [(box.right, y), (-1, y)]
        x, y = box.right - min(10.0, box.width / 5), row.bottom + 9.0 * way.track_below
        return [(x, box.bottom), (x, y), (-1, y)]

    def _entering(self, way: _Back) -> list[Point]:
        box, row = self.box_of[way.edge.target], self.rows[self.row_of[way.edge.target]]
        if way.enters_beside:
            y = self._side_port(way, box)
            return [(box.right, y), (-1, y)]
        x, y = box.right - min(10.0, box.width / 5), row.top - 9.0 * way.track_above
        return [(x, box.y), (x, y), (-1, y)]

    def _side_port(self, way: _Back, box: Box) -> float:
        """Edges back come in at the upper part of the right border and leave at the lower part."""
        coming = [each for each in self.back if each.enters_beside and each.edge.target == box.node.id]
        going = [each for each in self.back if each.leaves_beside and each.edge.source == box.node.id]
        index = next(place for place, each in enumerate([*coming, *going]) if each is way)
        apart = min(16.0, box.height / (len(coming) + len(going) + 1))
        return box.y + box.height / 2 + apart * (index - (len(coming) + len(going) - 1) / 2)


def _label_width(edge: Edge) -> float:
    return text_width(shortened(edge.label), 11.0) + 10
