"""Where boxes and edges go, for any graph; and what the SVG says about them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.display import Drawing, Edge, Node, svg_of
from agentmatrix.display.layout import Layout, layout_of
from agentmatrix.display.measure import HEADER, PADDING, text_width

SVG = "{http://www.w3.org/2000/svg}"
LABELS = st.text(max_size=12) | st.sampled_from(["plan", "数据", "🚀", "x" * 80, '<"&>', "\x00\ud800"])


@st.composite
def drawings(draw: st.DrawFn, prefix: str = "", depth: int = 3) -> Drawing:
    """Graphs with cycles, self loops, lonely nodes, several ENDs, and graphs inside."""
    count = draw(st.integers(0, 8 if depth == 3 else 4))
    ids = [f"{prefix}{number}" for number in range(count)]
    nodes = []
    for name in ids:
        inner = draw(st.none() | drawings(f"{name}|", depth - 1)) if depth and draw(st.booleans()) else None
        kind = draw(st.sampled_from(["group", "remote"] if inner else ["start", "end", "node", "remote"]))
        address = draw(st.sampled_from(["gpu-box:50051", "x" * 60])) if kind == "remote" else ""
        nodes.append(Node(name, draw(LABELS), kind, address, draw(st.sampled_from(["", "not reached"])), inner))
    pairs = draw(st.sets(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=14)) if ids else set()
    labels = st.sampled_from(["", "", "yes", "l" * 50])
    edges = [Edge(*pair, draw(labels), draw(st.booleans())) for pair in sorted(pairs)]
    return Drawing(draw(LABELS), tuple(nodes), tuple(edges))


def levels(layout: Layout) -> list[Layout]:
    return [layout, *(level for box in layout.boxes if box.inner for level in levels(box.inner))]


@settings(max_examples=120, deadline=None)
@given(drawings())
def test_boxes_never_overlap_and_children_stay_inside(drawing: Drawing) -> None:
    for level in levels(layout_of(drawing)):
        for one, other in combinations(level.boxes, 2):
            apart = one.right <= other.x or other.right <= one.x or one.bottom <= other.y or other.bottom <= one.y
            assert apart, (one.node.id, other.node.id)
        for box in level.boxes:
            assert box.x >= -0.01 and box.y >= -0.01
            assert box.right <= level.width + 0.01 and box.bottom <= level.height + 0.01
            if box.inner:
                assert box.inner.width + 2 * PADDING <= box.width + 0.01
                assert box.inner.height + HEADER + PADDING <= box.height + 0.01


@settings(max_examples=120, deadline=None)
@given(drawings())
def test_every_edge_starts_and_ends_at_its_boxes(drawing: Drawing) -> None:
    for level in levels(layout_of(drawing)):
        boxes = {box.node.id: box for box in level.boxes}
        for route in level.routes:
            for name, (x, y) in ((route.edge.source, route.points[0]), (route.edge.target, route.points[-1])):
                box = boxes[name]
                assert box.x - 0.01 <= x <= box.right + 0.01
                assert box.y - 0.01 <= y <= box.bottom + 0.01
            for x, y in route.points:
                assert -0.01 <= x <= level.width + 0.01 and -0.01 <= y <= level.height + 0.01


@settings(max_examples=120, deadline=None)
@given(drawings())
def test_the_svg_is_well_formed_and_has_every_node_and_edge_once(drawing: Drawing) -> None:
    root = ElementTree.fromstring(svg_of(drawing))
    groups = list(root.iter(f"{SVG}g"))
    assert Counter(group.get("data-node") for group in groups if group.get("data-node")) == Counter(
        node.id for node in drawing.walk()
    )
    drawn: Counter[tuple[str | None, str | None]] = Counter()
    for group in groups:
        if group.get("data-source"):
            drawn[group.get("data-source"), group.get("data-target")] += 1
            if group.get("data-both"):
                drawn[group.get("data-target"), group.get("data-source")] += 1
    wanted = [drawing, *(node.inner for node in drawing.walk() if node.inner)]
    assert drawn == Counter((edge.source, edge.target) for level in wanted for edge in level.edges)


def level_of(*edges: tuple[str, str], more: tuple[str, ...] = ()) -> Layout:
    names = dict.fromkeys([*(name for edge in edges for name in edge), *more])
    kinds = {"START": "start", "END": "end"}
    nodes = tuple(Node(name, name, kinds.get(name, "node")) for name in names)  # type: ignore[arg-type]
    return layout_of(Drawing("graph", nodes, tuple(Edge(*edge) for edge in edges)))


def test_time_flows_down_and_loops_run_on_the_right() -> None:
    level = level_of(("START", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "END"))
    tops = {box.node.id: box.y for box in level.boxes}
    assert sorted(tops, key=tops.__getitem__) == ["START", "a", "b", "c", "END"]
    back = next(route for route in level.routes if (route.edge.source, route.edge.target) == ("c", "a"))
    assert max(x for x, _ in back.points) > max(box.right for box in level.boxes)


def test_an_answer_to_the_asker_is_the_same_line_with_two_heads() -> None:
    level = level_of(("START", "speaker"), ("speaker", "member"), ("member", "speaker"), ("speaker", "END"))
    assert [route.edge.target for route in level.routes if route.reverse] == ["member"]


def test_a_wide_fan_fits_a_notebook() -> None:
    workers = [f"w{number}" for number in range(60)]
    edges = [*(("plan", worker) for worker in workers), *((worker, "join") for worker in workers)]
    level = level_of(("START", "plan"), *edges, ("join", "END"))
    assert level.width < 1300


def test_two_labels_never_cover_each_other() -> None:
    nodes = tuple(Node(name, name) for name in ("router", *"abcdef"))
    edges = tuple(Edge("router", name, f"when the answer is {name}", True) for name in "abcdef")
    width = text_width(edges[0].label, 11.0)
    labels = [route.label_at for route in layout_of(Drawing("graph", nodes, edges)).routes]
    for one, other in combinations(labels, 2):
        assert one and other and (abs(one[0] - other[0]) > width or abs(one[1] - other[1]) > 16)
