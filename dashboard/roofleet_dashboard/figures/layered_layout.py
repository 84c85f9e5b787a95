"""Places boxes from top to bottom in the order they run: nothing overlaps, frames hold what is inside.

Each frame is laid out by itself and then stands in its parent as one large box. Sizes are in pixels; places
are centres.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from roofleet_dashboard.figures.layer_tree import Box, Flow, head_id

__all__ = ["FRAME_HEAD", "FRAME_SIDE", "GAP_X", "GAP_Y", "Layout", "Place", "bend", "layered"]

GAP_X, GAP_Y = 28.0, 44.0
FRAME_SIDE, FRAME_HEAD = 16.0, 44.0
"""Space inside a frame around its boxes, and above them for its head."""
ROW_BOXES = 6
"""The most boxes beside one another."""

Size = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where a box without boxes inside stands."""

    x: float
    y: float
    width: float
    height: float


Layout = dict[str, Place]


def layered(boxes: list[Box], flows: Iterable[Flow], sizes: Mapping[str, Size]) -> Layout:
    """The place of every box that has none inside, and of every frame's head, by id; `sizes` has one for each
    of them, a head's under `head_id`."""
    places, _ = _arranged(boxes, list(flows), sizes)
    return places


def bend(source: Place, target: Place, others: Iterable[Place]) -> float:
    """How far the middle of an arrow must stand off the straight line to pass by the boxes in its way.

    Signed as cytoscape's control-point-distances: twice the offset of the curve. 0 where nothing is in the
    way. It swings out to the side where less is in the way.
    """
    across, down = target.x - source.x, target.y - source.y
    length = (across**2 + down**2) ** 0.5
    if length == 0:
        return 0.0
    blocked, left, right = False, 0.0, 0.0
    for other in others:
        along = ((other.x - source.x) * across + (other.y - source.y) * down) / length**2
        if not 0.0 < along < 1.0:
            continue
        offset = ((other.x - source.x) * down - (other.y - source.y) * across) / length
        half = (other.width * abs(down) + other.height * abs(across)) / length / 2
        if abs(offset) < half + 6:
            blocked, left, right = True, max(left, half - offset), max(right, half + offset)
    if not blocked:
        return 0.0
    return 2.3 * (right + 16) if right <= left else -2.3 * (left + 16)


def _arranged(boxes: list[Box], flows: list[Flow], sizes: Mapping[str, Size]) -> tuple[Layout, Size]:
    """Places with the middle of the top edge at (0, 0), and the size of the whole."""
    inner: dict[str, Layout] = {}
    outer: dict[str, Size] = {}
    home: dict[str, str] = {}
    for box in boxes:
        home |= {leaf.id: box.id for leaf in box.leaves()}
        if box.children:
            inside, (width, height) = _arranged(box.children, flows, sizes)
            head = sizes[head_id(box.path)]
            width = max(width, head[0])
            inside[head_id(box.path)] = Place((head[0] - width) / 2, head[1] / 2 - FRAME_HEAD, *head)
            inner[box.id] = inside
            outer[box.id] = (width + 2 * FRAME_SIDE, height + 2 * FRAME_SIDE + FRAME_HEAD)
        else:
            outer[box.id] = sizes[box.id]
    links = {
        (home[flow.source], home[flow.target])
        for flow in flows
        if flow.source in home and flow.target in home and home[flow.source] != home[flow.target]
    }
    aside = _aside(boxes, links)
    rows = _rows([box for box in boxes if box.id not in aside], links, aside)
    return _placed(rows, {name: _linked(name, links) for name in aside}, inner, outer)


def _linked(name: str, links: set[tuple[str, str]]) -> set[str]:
    return {s for s, t in links if t == name} | {t for s, t in links if s == name}


def _aside(boxes: list[Box], links: set[tuple[str, str]]) -> list[str]:
    """Own operations that come both before and after others, such as a block's two residual additions: they
    stand at the side of the flow, not in it."""
    order = {box.id: place for place, box in enumerate(boxes)}
    return [
        box.id
        for box in boxes
        if box.kind == "own" and any(t == box.id and order[s] > order[t] for s, t in links)
    ]


def _rows(boxes: list[Box], links: set[tuple[str, str]], aside: list[str]) -> list[list[str]]:
    """Each box one row below the lowest that feeds it; what nothing feeds follows the box before it."""
    order = {box.id: place for place, box in enumerate(boxes)}
    through = {
        (source, target)
        for middle in aside
        for source, first in links
        if first == middle
        for second, target in links
        if second == middle
    }
    feeds: dict[str, list[str]] = {box.id: [] for box in boxes}
    for source, target in links | through:
        if source in order and target in order and order[source] < order[target]:
            feeds[target].append(source)
    linked = {end for link in links for end in link}
    row: dict[str, int] = {}
    previous = -1
    for box in boxes:
        above = [row[source] for source in feeds[box.id]]
        row[box.id] = max(above) + 1 if above else (0 if box.id in linked else previous + 1)
        previous = row[box.id]
    rows: list[list[str]] = [[] for _ in range(max(row.values(), default=-1) + 1)]
    for box in boxes:
        rows[row[box.id]].append(box.id)
    return [line[i : i + ROW_BOXES] for line in rows if line for i in range(0, len(line), ROW_BOXES)]


def _placed(
    rows: list[list[str]],
    aside: Mapping[str, set[str]],
    inner: Mapping[str, Layout],
    outer: Mapping[str, Size],
) -> tuple[Layout, Size]:
    """Rows below one another; at their side the boxes of `aside`, level with those they are linked to."""
    widths = [sum(outer[i][0] for i in line) + GAP_X * (len(line) - 1) for line in rows]
    main = max(widths, default=0.0)
    side = max((outer[i][0] for i in aside), default=0.0)
    total = main + (side + 2 * GAP_X if aside else 0.0)
    found: Layout = {}
    tops: dict[str, float] = {}
    y = 0.0
    for line, width in zip(rows, widths, strict=True):
        x = (main - total) / 2 - width / 2
        for i in line:
            _put(found, i, x + outer[i][0] / 2, y, inner, outer)
            tops[i] = y
            x += outer[i][0] + GAP_X
        y += max(outer[i][1] for i in line) + GAP_Y
    low = 0.0
    for i, linked in aside.items():
        levels = sorted(tops[name] for name in linked if name in tops)
        low = max(low, levels[len(levels) // 2] if levels else 0.0)
        _put(found, i, total / 2 - side / 2, low, inner, outer)
        low += outer[i][1] + GAP_Y
    return found, (total, max(y, low) - GAP_Y)


def _put(
    found: Layout, box: str, x: float, top: float, inner: Mapping[str, Layout], outer: Mapping[str, Size]
) -> None:
    """Places a box, or all that is in a frame, around x and down from `top`."""
    width, height = outer[box]
    if box not in inner:
        found[box] = Place(x, top + height / 2, width, height)
        return
    for name, place in inner[box].items():
        y = top + FRAME_SIDE + FRAME_HEAD + place.y
        found[name] = Place(x + place.x, y, place.width, place.height)
