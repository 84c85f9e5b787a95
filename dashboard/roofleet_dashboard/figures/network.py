"""The network: boxes coloured and sized by a metric, arrows by the bytes they carry, and the scale's legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dash import html

from roofleet_analysis import units
from roofleet_dashboard.figures.layer_tree import Box, Flow, LayerTree, head_id
from roofleet_dashboard.figures.layered_layout import FRAME_SIDE, Layout, Place, bend, layered
from roofleet_dashboard.figures.palette import Theme, gradient, sequential, text_on

__all__ = ["METRIC_LABELS", "METRIC_MEANINGS", "elements", "legend", "short_name", "stylesheet", "values"]

Row = Mapping[str, Any]
Element = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """What a box shows: a column for a folded layer, one for an open layer's own operations, and its text."""

    label: str
    meaning: str
    folded: str
    own: str
    text: Callable[[float | None], str]
    unit: str
    adds_up: bool = True


METRICS = {
    "time": Metric(
        "Time", "Median time in a step, with everything inside the box.",
        "p50_ns", "self_ns", units.time_text, "ns",
    ),
    "self": Metric(
        "Own time", "Median time in a step less that of the layers inside, even where these are folded away.",
        "self_ns", "self_ns", units.time_text, "ns",
    ),
    "flops": Metric(
        "Work", "Floating-point operations of a step, with everything inside the box.",
        "total_flops", "flops", units.flops_text, "FLOP",
    ),
    "bytes": Metric(
        "Bytes moved", "Weights, activations and cache that a step reads and writes, with everything inside.",
        "total_bytes", "bytes", units.traffic_text, "B",
    ),
    "memory": Metric(
        "Peak memory", "Most live cache and activation bytes while the layer ran; weights not counted.",
        "peak_memory_bytes", "peak_memory_bytes", units.capacity_text, "B", adds_up=False,
    ),
}  # fmt: skip
METRIC_LABELS = {name: metric.label for name, metric in METRICS.items()}
METRIC_MEANINGS = {name: metric.meaning for name, metric in METRICS.items()}

_ENDS = {"#inputs": "inputs", "#output": "output"}
_UNKNOWN_COLOUR = "#8d97a5"


def short_name(tree: LayerTree, path: str) -> str:
    """The name in its box: the end of the path; `h.3` for a block, `h × 12` for a folded stack."""
    if path == "":
        return str(tree.rows[""]["module_type"])
    parts = path.split(".")
    name = ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]
    return f"{name} × {len(tree.inside(path))}" if tree.is_stack(path) else name


def values(tree: LayerTree, boxes: list[Box], metric: str) -> dict[str, float | None]:
    """The metric of every box without boxes inside, by id."""
    rule = METRICS[metric]
    return {
        leaf.id: None if leaf.kind == "end" else _value(tree, leaf, rule)
        for box in boxes
        for leaf in box.leaves()
    }


def _value(tree: LayerTree, box: Box, rule: Metric) -> float | None:
    row = tree.rows[box.path]
    if box.kind == "own":
        value: float | None = row[rule.own]
        return value
    if row["calls"] is not None or rule.folded.startswith("total_"):
        value = row[rule.folded]
        return value
    # Never called itself, such as a list of blocks: what the layers inside it say.
    inside = [_value(tree, Box(path, path, "layer", 0), rule) for path in tree.inside(box.path)]
    known = [value for value in inside if value is not None]
    if not known:
        return None
    return sum(known) if rule.adds_up else max(known)


def elements(tree: LayerTree, opened: Collection[str], metric: str, selected: str | None) -> list[Element]:
    """Nodes and edges for cytoscape. A node's `path` names its layer, `kind` what it is, `exact` its value."""
    rule = METRICS[metric]
    boxes, flows = tree.boxes(opened), tree.flows(opened)
    found = values(tree, boxes, metric)
    scale = _Scale(found, zero_based=rule.adds_up)
    labels = {leaf.id: _label(tree, leaf, rule, found[leaf.id]) for box in boxes for leaf in box.leaves()}
    sizes = {name: _size(text, scale.fraction(found[name])) for name, text in labels.items()}
    heads = {path: _head(tree, path, rule) for path in opened}
    sizes |= {head_id(path): (6.6 * len(text) + 16, 24.0) for path, text in heads.items()}
    layout = layered(boxes, flows, sizes)
    nodes = [
        node
        for box in boxes
        for node in _nodes(tree, box, None, rule, found, labels, scale, layout, selected)
    ]
    return nodes + _edges(flows, layout)


def _whole(tree: LayerTree, path: str, rule: Metric) -> float | None:
    """The metric of a layer with all that is inside it."""
    return _value(tree, Box(path, path, "layer", 0), rule)


def _head(tree: LayerTree, path: str, rule: Metric) -> str:
    """What stands at the top of an open layer; the sign says that it folds."""
    return f"▾ {short_name(tree, path)} · {rule.text(_whole(tree, path, rule))}"


class _Scale:
    """Values to fractions of the colour scale."""

    def __init__(self, found: Mapping[str, float | None], *, zero_based: bool) -> None:
        known = [value for value in found.values() if value is not None]
        self.low = 0.0 if zero_based or not known else min(known)
        self.high = max(known, default=0.0)

    def fraction(self, value: float | None) -> float | None:
        if value is None or self.high <= self.low:
            return None if value is None else 0.0
        return (value - self.low) / (self.high - self.low)


def _label(tree: LayerTree, box: Box, rule: Metric, value: float | None) -> str:
    if box.kind == "end":
        return _ENDS[box.id]
    name = (
        f"{tree.rows[box.path]['module_type']}'s own ops" if box.kind == "own" else short_name(tree, box.path)
    )
    return f"{name}\n{rule.text(value)}"


def _size(label: str, fraction: float | None) -> tuple[float, float]:
    """Wide enough for its text, and larger with the metric."""
    longest = max(len(line) for line in label.split("\n"))
    grow = math.sqrt(fraction or 0.0)
    return max(84.0, 7.2 * longest + 22) + 50 * grow, 20.0 * (label.count("\n") + 1) + 6 + 26 * grow


def _nodes(
    tree: LayerTree,
    box: Box,
    parent: str | None,
    rule: Metric,
    found: Mapping[str, float | None],
    labels: Mapping[str, str],
    scale: _Scale,
    layout: Layout,
    selected: str | None,
) -> list[Element]:
    data: dict[str, Any] = {"id": box.id, "path": box.path, "kind": box.kind}
    if parent is not None:
        data["parent"] = parent
    is_selected = box.kind != "end" and box.path == selected
    if box.kind == "open":
        frame = {"data": data | {"label": ""}, "classes": "open selected" if is_selected else "open"}
        place = layout[head_id(box.path)]
        head = {
            "data": {
                "id": head_id(box.path),
                "path": box.path,
                "kind": "head",
                "parent": box.id,
                "label": _head(tree, box.path, rule),
                "exact": units.exact_text(_whole(tree, box.path, rule), rule.unit),
                "across": place.width,
            },
            "position": {"x": place.x, "y": place.y},
            "classes": "head",
        }
        inside = [
            node
            for child in box.children
            for node in _nodes(tree, child, box.id, rule, found, labels, scale, layout, selected)
        ]
        return [frame, head, *inside]
    place = layout[box.id]
    fraction = scale.fraction(found[box.id])
    colour = _UNKNOWN_COLOUR if fraction is None else sequential(fraction)
    data |= {
        "label": labels[box.id],
        "exact": units.exact_text(found[box.id], rule.unit),
        "value": found[box.id],
        "width": place.width,
        "height": place.height,
        "colour": colour,
        "ink": text_on(colour),
        "folds": box.kind == "layer" and bool(tree.inside(box.path)),
    }
    classes = [box.kind, *(["folded"] if data["folds"] else []), *(["selected"] if is_selected else [])]
    return [{"data": data, "position": {"x": place.x, "y": place.y}, "classes": " ".join(classes)}]


def _edges(flows: list[Flow], layout: Layout) -> list[Element]:
    """Arrows: the wider the more bytes; curved where a straight one would run through a box."""
    largest = max((flow.bytes for flow in flows), default=1)
    found = []
    for flow in flows:
        source, target = layout[flow.source], layout[flow.target]
        others = [
            place
            for name, place in layout.items()
            if name not in (flow.source, flow.target) and not name.endswith("#head")
        ]
        distance = bend(source, target, others)
        gap = _gap(source, target)
        found.append(
            {
                "data": {
                    "id": f"{flow.source}>{flow.target}",
                    "source": flow.source,
                    "target": flow.target,
                    "label": units.traffic_text(flow.bytes) if not distance and gap >= 24 else "",
                    "says": f"{_spoken(flow.source)} → {_spoken(flow.target)}: "
                    f"{units.traffic_text(flow.bytes)} in {units.count_text(flow.tensors)} "
                    f"tensor{'s' if flow.tensors != 1 else ''}",
                    "bytes": flow.bytes,
                    "width": _width(flow.bytes, largest),
                    "bend": distance,
                },
                "classes": "curved" if distance else "straight",
            }
        )
    return found


def _gap(source: Place, target: Place) -> float:
    return abs(target.y - source.y) - (source.height + target.height) / 2


def _width(moved: int, largest: int) -> float:
    """1 to 7 pixels, by the logarithm: a cache is thousands of times a token's activations."""
    if moved <= 0:
        return 1.0
    return max(1.0, 7.0 + 1.5 * math.log10(moved / max(largest, 1)))


def _spoken(box: str) -> str:
    if box in _ENDS:
        return _ENDS[box]
    return f"{box.removesuffix('#own')} itself" if box.endswith("#own") else box


def legend(tree: LayerTree, opened: Collection[str], metric: str) -> Any:
    """The colour scale with the values at its ends."""
    rule = METRICS[metric]
    scale = _Scale(values(tree, tree.boxes(opened), metric), zero_based=rule.adds_up)
    return html.Div(
        [
            html.Span(rule.text(scale.low), **{"data-exact": units.exact_text(scale.low, rule.unit)}),
            html.Div(className="rf-scale", style={"background": gradient()}, role="img",
                     **{"aria-label": "colour scale"}),
            html.Span(rule.text(scale.high), **{"data-exact": units.exact_text(scale.high, rule.unit)}),
            html.Span(f"{rule.label} of a box in a step", className="rf-faint"),
        ],
        className="rf-legend",
    )  # fmt: skip


def stylesheet(theme: Theme) -> list[dict[str, Any]]:
    """How cytoscape draws the elements."""
    return [
        {"selector": "node", "style": {
            "shape": "round-rectangle", "label": "data(label)", "font-size": 12, "text-wrap": "wrap",
            "text-valign": "center", "text-halign": "center", "line-height": 1.25,
            "compound-sizing-wrt-labels": "exclude",
        }},
        {"selector": "node[width]", "style": {
            "width": "data(width)", "height": "data(height)", "background-color": "data(colour)",
            "color": "data(ink)", "border-width": 1, "border-color": theme.faint,
        }},
        {"selector": ".folded", "style": {"border-width": 3, "border-style": "double"}},
        {"selector": ".own", "style": {"shape": "cut-rectangle"}},
        {"selector": ".head", "style": {
            "width": "data(across)", "height": 24, "background-color": theme.surface, "color": theme.text,
            "border-width": 1, "border-color": theme.faint, "text-halign": "center",
        }},
        {"selector": ".end", "style": {
            "border-style": "dashed", "background-color": theme.surface, "color": theme.text,
        }},
        {"selector": ".open", "style": {
            "background-color": theme.box, "background-opacity": 0.65, "border-width": 1,
            "border-color": theme.faint, "padding": f"{FRAME_SIDE}px",
        }},
        {"selector": "edge", "style": {
            "width": "data(width)", "line-color": theme.faint, "line-opacity": 0.55, "curve-style": "bezier",
            "target-arrow-shape": "triangle", "target-arrow-color": theme.faint, "arrow-scale": 0.9,
            "label": "data(label)", "font-size": 10, "color": theme.text, "text-background-color": theme.surface,
            "text-background-opacity": 0.85, "text-background-padding": "1px",
        }},
        {"selector": ".curved", "style": {
            "curve-style": "unbundled-bezier", "control-point-distances": "data(bend)",
            "control-point-weights": 0.5, "line-opacity": 0.4,
        }},
        {"selector": "edge:selected", "style": {
            "line-color": "#D55E00", "target-arrow-color": "#D55E00", "line-opacity": 1,
        }},
        {"selector": ".selected", "style": {"border-width": 4, "border-style": "solid", "border-color": "#D55E00"}},
    ]  # fmt: skip
