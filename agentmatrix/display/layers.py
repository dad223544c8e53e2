"""A layered graph drawing after Sugiyama, Tagawa and Toda (1981): rows, the order in each row, horizontal positions.

Rows by longest path, order by barycentres, positions by least squares under minimum distances.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Slot", "align_rows", "order_rows", "assign_rows"]

Link = tuple[str, str, int]


@dataclass(eq=False, slots=True)
class Slot:
    """A place in a row, for a node or for an edge that passes through the row.

    Attributes:
        left, right: its extent to both sides of `x`, in px.
        height: in px.
        stiffness: the weight with which it and an equally stiff neighbour are put straight above each other.
        gap: the least distance to the next slot, in px.
    """

    left: float
    right: float
    height: float
    stiffness: float = 1.0
    gap: float = 22.0
    x: float = 0.0
    above: list[Slot] = field(default_factory=list)
    below: list[Slot] = field(default_factory=list)


def assign_rows(
    nodes: Sequence[str], links: Sequence[Link], widths: Mapping[str, float], max_width: float
) -> dict[str, int]:
    """Assign a row to each node.

    Args:
        nodes: the nodes, in the order in which a row is filled.
        links: acyclic edges: source, target and the least number of rows between them.
        widths: of the nodes, in px.
        max_width: a row that would become wider is continued in the next one (Coffman and Graham, 1972).
    """
    rows: dict[str, int] = {}
    filled: dict[int, float] = {}
    waiting = dict.fromkeys(nodes, 0)
    after: dict[str, list[Link]] = {node: [] for node in nodes}
    for link in links:
        waiting[link[1]] += 1
        after[link[0]].append(link)
    earliest = dict.fromkeys(nodes, 0)
    ready = [node for node in nodes if not waiting[node]]
    for node in ready:
        row = earliest[node]
        while filled.get(row, 0.0) and filled[row] + widths[node] > max_width:
            row += 1
        rows[node] = row
        filled[row] = filled.get(row, 0.0) + widths[node]
        for _, target, distance in after[node]:
            earliest[target] = max(earliest[target], row + distance)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return rows


def order_rows(rows: list[list[Slot]], sweeps: int = 8) -> list[list[Slot]]:
    """Order each row so that few edges cross.

    Args:
        rows: the slots of each row; sorted in place.
        sweeps: how many times to go through the rows, down and up in turn.

    Returns:
        The order with the fewest crossings that any sweep found.
    """
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(sweeps):
        if not fewest:
            break
        down = sweep % 2 == 0
        for fixed, row in pairwise(rows if down else rows[::-1]):
            place = {id(slot): float(index) for index, slot in enumerate(fixed)}
            own = {id(slot): float(index) for index, slot in enumerate(row)}
            row.sort(key=lambda slot: _mean(slot.above if down else slot.below, place, own[id(slot)]))
        if (crossings := _crossings(rows)) < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _mean(neighbours: list[Slot], place: dict[int, float], default: float) -> float:
    return sum(place[id(slot)] for slot in neighbours) / len(neighbours) if neighbours else default


def _crossings(rows: list[list[Slot]]) -> int:
    crossings = 0
    for upper, lower in pairwise(rows):
        place = {id(slot): index for index, slot in enumerate(lower)}
        passed: list[int] = []
        for slot in upper:
            ends = sorted(place[id(below)] for below in slot.below)
            crossings += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return crossings


def align_rows(rows: list[list[Slot]], max_width: float, sweeps: int = 12) -> None:
    """Set `x` of every slot, near the middle of its neighbours in the rows above and below.

    Args:
        rows: the ordered slots of each row.
        max_width: in px; where the drawing becomes wider, the rows are moved back towards one middle, as far as
            necessary.
        sweeps: how many times to go through the rows, down and up in turn.
    """
    for row in rows:
        _place_row(row, lambda slot: 0.0)
    packed = {id(slot): slot.x for row in rows for slot in row}
    narrowest = _width(rows)
    for sweep in range(sweeps):
        if sweep % 2 == 0:
            for row in rows:
                _place_row(row, lambda slot: _wanted_x(slot, slot.above))
        else:
            for row in rows[::-1]:
                _place_row(row, lambda slot: _wanted_x(slot, slot.below))
    for row in rows:
        _place_row(row, lambda slot: _wanted_x(slot, [*slot.above, *slot.below]))
    if (width := _width(rows)) > (allowed := max(max_width, narrowest)):
        _center(rows)
        share = (width - allowed) / (width - narrowest)
        for slot in (slot for row in rows for slot in row):
            slot.x += (packed[id(slot)] - slot.x) * share


def _width(rows: list[list[Slot]]) -> float:
    rights, lefts = [row[-1].x + row[-1].right for row in rows], [row[0].x - row[0].left for row in rows]
    return max(rights, default=0.0) - min(lefts, default=0.0)


def _center(rows: list[list[Slot]]) -> None:
    middle = min((row[0].x - row[0].left for row in rows), default=0.0) + _width(rows) / 2
    for slot in (slot for row in rows for slot in row):
        slot.x -= middle


def _wanted_x(slot: Slot, neighbours: list[Slot]) -> float:
    """Return the weighted mean of a slot's neighbours: stiff slots straighten each other, but do not move a node."""
    pulls = [min(slot.stiffness, neighbour.stiffness) for neighbour in neighbours]
    if not pulls:
        return slot.x
    return sum(neighbour.x * pull for neighbour, pull in zip(neighbours, pulls, strict=True)) / sum(pulls)


def _place_row(row: list[Slot], wanted: Callable[[Slot], float]) -> None:
    """Set each `x` of a row as near to the wanted one as distances allow, by isotonic regression of wanted - least."""
    least, start = [], 0.0
    for slot in row:
        least.append(start + slot.left)
        start += slot.left + slot.right + slot.gap
    blocks: list[tuple[float, float, int]] = []
    for slot, offset in zip(row, least, strict=True):
        block = (wanted(slot) - offset, slot.stiffness, 1)
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            weight = before[1] + block[1]
            block = ((before[0] * before[1] + block[0] * block[1]) / weight, weight, before[2] + block[2])
        blocks.append(block)
    shifts = [value for value, _, count in blocks for _ in range(count)]
    for slot, offset, shift in zip(row, least, shifts, strict=True):
        slot.x = shift + offset
