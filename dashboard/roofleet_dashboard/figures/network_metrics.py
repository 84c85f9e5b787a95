"""What the boxes of the network show: the metrics one can choose, their values, and the scale of colours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dash import html

from roofleet_analysis import units
from roofleet_dashboard.figures.layer_tree import Box, LayerTree
from roofleet_dashboard.figures.palette import gradient

__all__ = ["METRICS", "Metric", "Scale", "legend", "values", "whole"]


@dataclass(frozen=True)
class Metric:
    """A metric: its columns for a layer as a whole and for its own operations, and how its values read."""

    label: str
    meaning: str
    whole: str
    own: str
    text: Callable[[float | None], str]
    unit: str
    of_those_inside: Callable[[list[float]], float] | None = sum
    """What a layer that is never called itself, such as a list of blocks, has by those inside it."""
    from_zero: bool = True
    """Whether the scale begins at 0; else at the lowest value."""


METRICS = {
    "time": Metric(
        "Time",
        "Median time in a step, with everything inside the box.",
        "p50_ns",
        "self_ns",
        units.time_text,
        "ns",
    ),
    "self": Metric(
        "Own time",
        "Median time in a step less that of the layers inside, even where these are folded away.",
        "self_ns",
        "self_ns",
        units.time_text,
        "ns",
        of_those_inside=None,
    ),
    "flops": Metric(
        "Work",
        "Floating-point operations of a step, with everything inside the box.",
        "total_flops",
        "flops",
        units.flops_text,
        "FLOP",
    ),
    "bytes": Metric(
        "Bytes moved",
        "Weights, activations and cache that a step reads and writes, with everything inside the box.",
        "total_bytes",
        "bytes",
        units.traffic_text,
        "B",
    ),
    "memory": Metric(
        "Peak memory",
        "Most live cache and activation bytes while the layer ran; weights not counted.",
        "peak_memory_bytes",
        "peak_memory_bytes",
        units.capacity_text,
        "B",
        of_those_inside=max,
        from_zero=False,
    ),
}


def values(tree: LayerTree, boxes: list[Box], metric: Metric) -> dict[str, float | None]:
    """The metric of every box that has none inside, by id; None where it is not known."""
    found: dict[str, float | None] = {}
    for box in boxes:
        for leaf in box.leaves():
            if leaf.kind == "end":
                found[leaf.id] = None
            elif leaf.kind == "own":
                found[leaf.id] = tree.rows[leaf.path][metric.own]
            else:
                found[leaf.id] = whole(tree, leaf.path, metric)
    return found


def whole(tree: LayerTree, path: str, metric: Metric) -> float | None:
    """The metric of a layer with all that is inside it."""
    value: float | None = tree.rows[path][metric.whole]
    if value is not None or metric.of_those_inside is None:
        return value
    known = [v for inside in tree.inside(path) if (v := whole(tree, inside, metric)) is not None]
    return metric.of_those_inside(known) if known else None


class Scale:
    """Values to fractions of the colour scale."""

    def __init__(self, found: Mapping[str, float | None], metric: Metric) -> None:
        known = [value for value in found.values() if value is not None]
        self.low = 0.0 if metric.from_zero else min(known, default=0.0)
        self.high = max(known, default=0.0)

    def fraction(self, value: float | None) -> float | None:
        """Where a value stands between the ends, 0 to 1; None for one that is not known."""
        if value is None:
            return None
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0


def legend(tree: LayerTree, opened: Collection[str], metric: Metric) -> Any:
    """The colour scale with the values at its ends."""
    scale = Scale(values(tree, tree.boxes(opened), metric), metric)
    return html.Div(
        [
            _end(scale.low, metric),
            html.Div(className="rf-scale", style={"background": gradient()}),
            _end(scale.high, metric),
            html.Span(f"{metric.label} of a box in a step", className="rf-faint"),
        ],
        className="rf-legend",
    )


def _end(value: float, metric: Metric) -> Any:
    return html.Span(metric.text(value), **{"data-exact": units.exact_text(value, metric.unit)})
