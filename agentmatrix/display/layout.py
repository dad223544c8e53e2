"""The positions of nodes and edges: each nested graph is laid out as a box, then its parent around the boxes.

Back edges run beside the rows, on the right. All lengths are in px.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentmatrix.display.drawing import Drawing, Edge, Node, back_edges
from agentmatrix.display.layers import Slot, align_rows, assign_rows, order_rows
from agentmatrix.display.measure import HEADER, PADDING, header_width, leaf_size, shortened, text_width

__all__ = ["Box", "Layout", "Point", "Route", "layout_of"]

Point = tuple[float, float]
MAX_WIDTH = 980.0
LOOP_WIDTH = 20.0
MIN_BUNDLE = 4


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
    """The line of an edge.

    Attributes:
        points: the corners of the line.
        curved: the indexes of the corners that begin a curve; the line is straight after the others.
        label_at: the middle of the label, where the edge has one.
        reverse: the edge in the other direction, drawn as a second arrow head of this one.
    """

    edge: Edge
    points: list[Point]
    curved: frozenset[int] = frozenset()
    label_at: Point | None = None
    reverse: Edge | None = None


@dataclass(slots=True)
class Layout:
    """The boxes and routes of one level; those of a nested level are relative to (`PADDING`, `HEADER`) in its box."""

    width: float
    height: float
    boxes: list[Box]
    routes: list[Route]


def layout_of(drawing: Drawing, *, nested: bool = False) -> Layout:
    """Lay out a drawing, the inner levels first."""
    return _Level(drawing, [_box(node, nested) for node in drawing.nodes]).layout()


def _box(node: Node, nested: bool) -> Box:
    if not (node.inner and node.inner.nodes):
        return Box(node, *leaf_size(node, nested))
    inner = layout_of(node.inner, nested=True)
    width = max(inner.width + 2 * PADDING, header_width(node))
    return Box(node, width, inner.height + HEADER + PADDING, inner)


@dataclass(slots=True)
class _Row:
    slots: list[Slot]
    top: float = 0.0
    height: float = 0.0
    # The number of back edges in the gap above and below this row.
    tracks_above: int = 0
    tracks_below: int = 0

    @property
    def bottom(self) -> float:
        return self.top + self.height


@dataclass(slots=True)
class _ForwardEdge:
    edge: Edge
    reverse: Edge | None
    chain: list[Slot]
    label: Slot | None = None


@dataclass(slots=True)
class _BackEdge:
    edge: Edge
    leaves_beside: bool = False
    enters_beside: bool = False
    track_below: int = 0
    track_above: int = 0
    lane: float = 0.0


@dataclass
class _Level:
    """The layout of one level while it is made: rows, then positions, then routes."""

    drawing: Drawing
    boxes: list[Box]
    rows: list[_Row] = field(default_factory=list)
    row_of: dict[str, int] = field(default_factory=dict)
    slot_of: dict[str, Slot] = field(default_factory=dict)
    forward: list[_ForwardEdge] = field(default_factory=list)
    back: list[_BackEdge] = field(default_factory=list)
    loops: list[Edge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.box_of = {box.node.id: box for box in self.boxes}

    def layout(self) -> Layout:
        self._sort_edges()
        self._fill_rows()
        align_rows([row.slots for row in self.rows], MAX_WIDTH)
        self._plan_back()
        self._stack_rows()
        width = self._place_boxes()
        routes = [self._forward_route(arrow) for arrow in self.forward]
        routes += [self._loop_route(edge) for edge in self.loops]
        lanes, width = self._back_routes(width)
        height = self.rows[-1].bottom + 9.0 * self.rows[-1].tracks_below if self.rows else 0.0
        return Layout(width, height, self.boxes, routes + lanes)

    def _sort_edges(self) -> None:
        back = back_edges(self.drawing)
        forth = {(edge.source, edge.target) for edge in self.drawing.edges if edge not in back}
        reverses = {
            (edge.target, edge.source): edge for edge in back if not edge.label and (edge.target, edge.source) in forth
        }
        for edge in self.drawing.edges:
            if edge.source == edge.target:
                self.loops.append(edge)
            elif edge not in back:
                self.forward.append(_ForwardEdge(edge, reverses.get((edge.source, edge.target)), []))
            elif (edge.target, edge.source) not in reverses:
                self.back.append(_BackEdge(edge))

    def _fill_rows(self) -> None:
        """Put the nodes into rows, and a slot into each row that an edge passes through."""
        looped = {edge.source: max(LOOP_WIDTH, _label_width(edge) + LOOP_WIDTH) for edge in reversed(self.loops)}
        links = [(arrow.edge.source, arrow.edge.target, 2 if arrow.edge.label else 1) for arrow in self.forward]
        # A large box counts as narrower than it is, so that two of them are still put side by side.
        widths = {box.node.id: min(box.width, MAX_WIDTH / 2 - 30) + 22 for box in self.boxes}
        for arrow in self.forward:
            widths[arrow.edge.target] = max(widths[arrow.edge.target], _label_width(arrow.edge) + 12)
        nodes = sorted(widths, key=lambda name: self.box_of[name].node.kind != "start")
        self.row_of = assign_rows(nodes, links, widths, MAX_WIDTH)
        self._lower_ends(links)
        grid: list[list[Slot]] = [[] for _ in range(max(self.row_of.values(), default=-1) + 1)]
        for box in self.boxes:
            half = box.width / 2
            slot = Slot(half, half + looped.get(box.node.id, 0.0), box.height)
            self.slot_of[box.node.id] = slot
            grid[self.row_of[box.node.id]].append(slot)
        shared: dict[tuple[str, bool, int], Slot] = {}
        for arrow in self.forward:
            self._pass_rows(arrow, grid, shared)
        self.rows = [_Row(slots) for slots in order_rows(grid)]

    def _lower_ends(self, links: list[tuple[str, str, int]]) -> None:
        """Move END below all other nodes, as a reader expects, and close empty rows."""
        ends = {box.node.id for box in self.boxes if box.node.kind == "end"}
        leaving = {source for source, _, _ in links}
        lowest = max((row for name, row in self.row_of.items() if name not in ends), default=-1)
        for name in ends - leaving:
            self.row_of[name] = max(self.row_of[name], lowest + 1)
        passed = {row for source, target, _ in links for row in range(self.row_of[source], self.row_of[target])}
        used = sorted(passed | set(self.row_of.values()))
        self.row_of = {name: used.index(row) for name, row in self.row_of.items()}

    def _pass_rows(
        self, arrow: _ForwardEdge, grid: list[list[Slot]], shared: dict[tuple[str, bool, int], Slot]
    ) -> None:
        source, target = arrow.edge.source, arrow.edge.target
        bundle = self._bundle(arrow.edge)
        first, last = self.row_of[source] + 1, self.row_of[target]
        arrow.chain = [self.slot_of[source]]
        for row in range(first, last):
            slot = Slot(1, 1, 0, stiffness=6.0, gap=12.0)
            if arrow.edge.label and arrow.label is None:
                half = _label_width(arrow.edge) / 2
                slot = arrow.label = Slot(half, half, 18, stiffness=3.0, gap=12.0)
            elif bundle:
                slot = shared.setdefault((bundle, arrow.edge.conditional, row), slot)
            if slot not in grid[row]:
                grid[row].append(slot)
            arrow.chain.append(slot)
        arrow.chain.append(self.slot_of[target])
        for upper, lower in zip(arrow.chain, arrow.chain[1:], strict=False):
            if lower not in upper.below:
                upper.below.append(lower)
                lower.above.append(upper)

    def _bundle(self, edge: Edge) -> str:
        """Return the end at which a long edge shares one line with others, or "" where too few meet."""
        long = [
            arrow.edge
            for arrow in self.forward
            if not arrow.edge.label and self.row_of[arrow.edge.target] - self.row_of[arrow.edge.source] > 1
        ]
        leaving = sum(each.source == edge.source for each in long)
        entering = sum(each.target == edge.target for each in long)
        if edge.label or max(leaving, entering) < MIN_BUNDLE:
            return ""
        return f"from {edge.source}" if leaving >= entering else f"to {edge.target}"

    def _plan_back(self) -> None:
        """Choose where back edges leave and enter: beside the last node of a row, else in the gaps between rows."""
        looped = {edge.source for edge in self.loops}
        for arrow in self.back:
            source, target = self.rows[self.row_of[arrow.edge.source]], self.rows[self.row_of[arrow.edge.target]]
            arrow.leaves_beside = (
                arrow.edge.source not in looped and source.slots[-1] is self.slot_of[arrow.edge.source]
            )
            arrow.enters_beside = (
                arrow.edge.target not in looped and target.slots[-1] is self.slot_of[arrow.edge.target]
            )
            if not arrow.leaves_beside:
                source.tracks_below += 1
                arrow.track_below = source.tracks_below
            if not arrow.enters_beside:
                target.tracks_above += 1
                arrow.track_above = target.tracks_above

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
        """Return a wide gap where edges go far to the side, to keep them steep; a narrow one beside a row of labels."""
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

    def _forward_route(self, arrow: _ForwardEdge) -> Route:
        source, target = self.box_of[arrow.edge.source], self.box_of[arrow.edge.target]
        row = self.row_of[arrow.edge.source]
        points: list[Point] = [(self._port(arrow, 0), source.bottom)]
        curved: set[int] = set()
        label_at: Point | None = None
        for offset, slot in enumerate(arrow.chain[:-1]):
            here, below = self.rows[row + offset], self.rows[row + offset + 1]
            x = points[-1][0]
            points.append((x, here.bottom + 9.0 * here.tracks_below))
            curved.add(len(points) - 1)
            last = offset + 2 == len(arrow.chain)
            x = self._port(arrow, -1) if last else arrow.chain[offset + 1].x
            points.append((x, below.top - 9.0 * below.tracks_above))
            if slot is arrow.label:
                label_at = (slot.x, here.top + here.height / 2)
        points.append((self._port(arrow, -1), target.y))
        return Route(arrow.edge, points, frozenset(curved), label_at, arrow.reverse)

    def _port(self, arrow: _ForwardEdge, end: int) -> float:
        """Return the `x` of an edge at its source (`end` 0) or its target (-1): edges are spread along the border."""
        name = arrow.edge.source if end == 0 else arrow.edge.target
        box = self.box_of[name]
        slot = self.slot_of[name]
        nearest = sorted(slot.below if end == 0 else slot.above, key=lambda slot: slot.x)
        index = nearest.index(arrow.chain[1 if end == 0 else -2])
        apart = min(14.0, box.width * 0.6 / max(len(nearest) - 1, 1))
        return box.x + box.width / 2 + apart * (index - (len(nearest) - 1) / 2)

    def _loop_route(self, edge: Edge) -> Route:
        box = self.box_of[edge.source]
        middle, reach = box.y + box.height / 2, min(9.0, box.height / 4)
        right, out = box.right, box.right + LOOP_WIDTH - 6
        points = [(right, middle + reach), (out, middle + reach), (out, middle - reach), (right, middle - reach)]
        label = (out + _label_width(edge) / 2, middle) if edge.label else None
        return Route(edge, points, label_at=label)

    def _back_routes(self, width: float) -> tuple[list[Route], float]:
        routes = []
        for arrow in sorted(
            self.back, key=lambda arrow: self.row_of[arrow.edge.source] - self.row_of[arrow.edge.target]
        ):
            half = _label_width(arrow.edge) / 2 if arrow.edge.label else 0.0
            lane = width + 14.0 + half
            width = lane + half
            points = [*self._leaving(arrow), *self._entering(arrow)[::-1]]
            corners = [points[0], *((x if x >= 0 else lane, y) for x, y in points[1:-1]), points[-1]]
            middle = (points[1][1] + points[-2][1]) / 2
            routes.append(Route(arrow.edge, corners, label_at=(lane, middle) if arrow.edge.label else None))
        return routes, width

    def _leaving(self, arrow: _BackEdge) -> list[Point]:
        """Return the points from the source to its lane; the lane's own x, not known yet, is -1."""
        box, row = self.box_of[arrow.edge.source], self.rows[self.row_of[arrow.edge.source]]
        if arrow.leaves_beside:
            y = self._side_port(arrow, box)
            return [(box.right, y), (-1, y)]
        x, y = box.right - min(10.0, box.width / 5), row.bottom + 9.0 * arrow.track_below
        return [(x, box.bottom), (x, y), (-1, y)]

    def _entering(self, arrow: _BackEdge) -> list[Point]:
        box, row = self.box_of[arrow.edge.target], self.rows[self.row_of[arrow.edge.target]]
        if arrow.enters_beside:
            y = self._side_port(arrow, box)
            return [(box.right, y), (-1, y)]
        x, y = box.right - min(10.0, box.width / 5), row.top - 9.0 * arrow.track_above
        return [(x, box.y), (x, y), (-1, y)]

    def _side_port(self, arrow: _BackEdge, box: Box) -> float:
        """Return the `y` of a back edge at the right border: edges enter in its upper part, leave in its lower part."""
        entering = [each for each in self.back if each.enters_beside and each.edge.target == box.node.id]
        leaving = [each for each in self.back if each.leaves_beside and each.edge.source == box.node.id]
        index = next(place for place, each in enumerate([*entering, *leaving]) if each is arrow)
        apart = min(16.0, box.height / (len(entering) + len(leaving) + 1))
        return box.y + box.height / 2 + apart * (index - (len(entering) + len(leaving) - 1) / 2)


def _label_width(edge: Edge) -> float:
    return text_width(shortened(edge.label), 11.0) + 10
