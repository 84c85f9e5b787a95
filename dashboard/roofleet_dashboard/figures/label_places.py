"""Where the names of points go so that they cover neither one another nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Dot", "label_places"]

_LETTER, _LINE, _AIR = 6.4, 13.0, 3.0
"""Width of a letter and height of a line of the labels, and the space around them, in pixels."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Dot:
    """A point in pixels, with its diameter and the name it should get; an empty name needs no place."""

    x: float
    y: float
    size: float
    name: str


def label_places(dots: Sequence[Dot], width: float) -> list[str | None]:
    """Plotly's text position for each name, earlier dots first served; None where there is no room.

    `width` is that of the drawing, beyond which no name may reach.
    """
    taken = [_around(dot) for dot in dots]
    found: list[str | None] = []
    for dot in dots:
        place = next((p for p, box in _offers(dot) if dot.name and _free(box, taken, width)), None)
        if place is not None:
            taken.append(dict(_offers(dot))[place])
        found.append(place)
    return found


def _around(dot: Dot) -> Rectangle:
    half = dot.size / 2
    return dot.x - half, dot.y - half, dot.x + half, dot.y + half


def _offers(dot: Dot) -> list[tuple[str, Rectangle]]:
    long, half = len(dot.name) * _LETTER, dot.size / 2 + _AIR
    middle, side = _LINE / 2, len(dot.name) * _LETTER / 2
    return [
        ("middle right", (dot.x + half, dot.y - middle, dot.x + half + long, dot.y + middle)),
        ("bottom center", (dot.x - side, dot.y + half, dot.x + side, dot.y + half + _LINE)),
        ("middle left", (dot.x - half - long, dot.y - middle, dot.x - half, dot.y + middle)),
        ("top center", (dot.x - side, dot.y - half - _LINE, dot.x + side, dot.y - half)),
    ]


def _free(box: Rectangle, taken: Sequence[Rectangle], width: float) -> bool:
    left, top, right, bottom = box
    return (
        left >= 0
        and right <= width
        and all(right <= x1 or left >= x2 or bottom <= y1 or top >= y2 for x1, y1, x2, y2 in taken)
    )
