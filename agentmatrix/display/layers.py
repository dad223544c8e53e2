"""Which row a node stands in, in which order, and how far to the right: a layered drawing after Sugiyama, Tagawa and
Toda (1981). Rows by longest path, order by barycentres, positions by least squares under the given distances.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Slot", "aligned", "ordered", "rows_of"]

Link = tuple[str, str, int]


@dataclass(eq=False, slots=True)
class Slot:
    """A place in a row: for a node, or for an edge that passes through the row.

    Attributes:
        left, right: how far it reaches to both sides of `x`, in px.
        height: in px.
        stiffness: how much it and an equally stiff neighbour want to stand straight above each other.
        gap: the distance that it keeps to the next slot, in px.
    """

    left: float
    right: float
    height: float
    stiffness: float = 1.0
    gap: float = 22.0
    x: float = 0.0
    above: list[Slot] = field(default_factory=list)
    below: list[Slot] = field(default_factory=list)


def rows_of(nodes: Sequence[str], links: Sequence[Link], widths: Mapping[str, float], widest: float) -> dict[str, int]:
    """Give each node its row.

    Args:
        nodes: the nodes, in the order in which a row is filled.
        links: acyclic edges: source, target and by how many rows the target is lower at least.
        widths: of the nodes, in px.
        widest: a row that would become wider goes on in the next one (Coffman and Graham, 1972).
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
        while filled.get(row, 0.0) and filled[row] + widths[node] > widest:
            row += 1
        rows[node] = row
        filled[row] = filled.get(row, 0.0) + widths[node]
        for _, target, distance in after[node]:
            earliest[target] = max(earliest[target], row + distance)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return rows


def ordered(rows: list[list[Slot]], sweeps: int = 8) -> list[list[Slot]]:
    """Order each row so that few edges cross: the best of some sweeps down and up."""
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


def aligned(rows: list[list[Slot]], widest: float, sweeps: int = 12) -> None:
    """Set `x` of every slot: near the middle of its neighbours, and never nearer to the next one than allowed.

    Where that becomes wider than `widest`, the rows are pulled back towards one middle, as far as they must.
    """
    for row in rows:
        _settle(row, lambda slot: 0.0)
    packed = {id(slot): slot.x for row in rows for slot in row}
    narrowest = _width(rows)
    for sweep in range(sweeps):
        if sweep % 2 == 0:
            for row in rows:
                _settle(row, lambda slot: _middle(slot, slot.above))
        else:
            for row in rows[::-1]:
                _settle(row, lambda slot: _middle(slot, slot.below))
    for row in rows:
        _settle(row, lambda slot: _middle(slot, [*slot.above, *slot.below]))
    if (width := _width(rows)) > (allowed := max(widest, narrowest)):
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


def _middle(slot: Slot, neighbours: list[Slot]) -> float:
    """Return where a slot wants to be; stiff ones straighten each other, but do not pull a node out of its middle."""
    pulls = [min(slot.stiffness, neighbour.stiffness) for neighbour in neighbours]
    if not pulls:
        return slot.x
    return sum(neighbour.x * pull for neighbour, pull in zip(neighbours, pulls, strict=True)) / sum(pulls)


def _settle(row: list[Slot], wanted: Callable[[Slot], float]) -> None:
    """Move a row's slots as little as possible from where they want to be: isotonic regression of wish minus room."""
    room, start = [], 0.0
    for slot in row:
        room.append(start + slot.left)
        start += slot.left + slot.right + slot.gap
    blocks: list[tuple[float, float, int]] = []
    for slot, offset in zip(row, room, strict=True):
        block = (wanted(slot) - offset, slot.stiffness, 1)
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            weight = before[1] + block[1]
            block = ((before[0] * before[1] + block[0] * block[1]) / weight, weight, before[2] + block[2])
        blocks.append(block)
    shifts = [value for value, _, count in blocks for _ in range(count)]
    for slot, offset, shift in zip(row, room, shifts, strict=True):
        slot.x = shift + offset
