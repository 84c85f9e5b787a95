"""The network for cytoscape: boxes coloured and sized by a metric, arrows by the bytes they carry."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import Any

from roofleet_analysis import units
from roofleet_dashboard.figures.layer_tree import INPUTS, OUTPUT, Box, Flow, LayerTree, head_id
from roofleet_dashboard.figures.layered_layout import FRAME_SIDE, Place, bend, layered
from roofleet_dashboard.figures.network_metrics import Metric, Scale, values, whole
from roofleet_dashboard.figures.palette import Theme, sequential, text_on

__all__ = ["elements", "short_name", "stylesheet"]

Element = dict[str, Any]

FAN = 5
"""The most arrows that leave one box; beyond that, text in the boxes they lead to says it."""
CHOSEN = "#D55E00"

_ENDS = {INPUTS: "inputs", OUTPUT: "output"}
_UNKNOWN_COLOUR = "#8d97a5"
_HEAD_PX = 24.0


def short_name(tree: LayerTree, path: str) -> str:
    """The name in its box: the end of the path; `h.3` for a block, `h × 12` for a stack of blocks."""
    if path == "":
        return str(tree.rows[""]["module_type"])
    parts = path.split(".")
    name = ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]
    return f"{name} × {len(tree.inside(path))}" if tree.is_stack(path) else name


def elements(tree: LayerTree, opened: Collection[str], metric: Metric, chosen: str | None) -> list[Element]:
    """Nodes and edges. A node's `path` names its layer, `kind` says what it is, `exact` is its value.

    Kinds are `layer`, `own` (what an open layer does itself), `open` (its frame), `head` (the frame's name)
    and `end` (inputs and output). `folds` is true for a folded layer that can be opened.
    """
    return _Drawing(tree, opened, metric, chosen).elements()


class _Drawing:
    """One drawing: everything in sight with its value, text and place."""

    def __init__(self, tree: LayerTree, opened: Collection[str], metric: Metric, chosen: str | None) -> None:
        self._tree, self._metric = tree, metric
        self._largest = 1
        boxes = tree.boxes(opened)
        in_sight = {leaf.id for box in boxes for leaf in box.leaves()}
        # A layer that is traced but was not timed has data flowing to it and no box.
        flows = [flow for flow in tree.flows(opened) if {flow.source, flow.target} <= in_sight]
        self._flows, fed = self._thinned(flows)
        touched = {end for flow in self._flows for end in (flow.source, flow.target)}
        self._boxes = [box for box in boxes if box.kind != "end" or box.id in touched]
        self._values = values(tree, self._boxes, metric)
        self._scale = Scale(self._values, metric)
        leaves = [leaf for box in self._boxes for leaf in box.leaves()]
        self._labels = {leaf.id: "\n".join([*self._lines(leaf), *fed.get(leaf.id, [])]) for leaf in leaves}
        sizes = {name: self._size(name) for name in self._labels}
        for path in opened:
            self._labels[head_id(path)] = text = f"▾ {short_name(tree, path)} · {self._total(path)}"
            sizes[head_id(path)] = (6.6 * len(text) + 16, _HEAD_PX)
        self._layout = layered(self._boxes, self._flows, sizes)
        self._chosen = chosen
        if chosen is not None and chosen not in opened:
            self._chosen = tree.in_sight(chosen, opened, is_source=True)

    def elements(self) -> list[Element]:
        nodes = [node for box in self._boxes for node in self._nodes(box, None)]
        return nodes + [self._edge(flow) for flow in self._flows]

    def _thinned(self, flows: list[Flow]) -> tuple[list[Flow], dict[str, list[str]]]:
        """The flows to draw, and lines of text in place of the others: a source that feeds many, such as the
        cache of every block, would cover the drawing."""
        self._largest = max((flow.bytes for flow in flows), default=1)
        fan = Counter(flow.source for flow in flows)
        said: dict[str, list[str]] = {}
        for flow in flows:
            if fan[flow.source] > FAN:
                short = _name_of_end(flow.source).rpartition(".")[2]
                line = f"+ {units.traffic_text(flow.bytes)} from {short}"
                said.setdefault(flow.target, []).append(line)
        return [flow for flow in flows if fan[flow.source] <= FAN], said

    def _lines(self, box: Box) -> list[str]:
        if box.kind == "end":
            return [_ENDS[box.id]]
        value = self._metric.text(self._values[box.id])
        if box.kind == "own":
            return [f"{self._tree.rows[box.path]['module_type']}'s own ops", value]
        return [short_name(self._tree, box.path), value]

    def _size(self, name: str) -> tuple[float, float]:
        """Wide enough for its text, and larger with the metric."""
        lines = self._labels[name].split("\n")
        grow = math.sqrt(self._scale.fraction(self._values[name]) or 0.0)
        return max(84.0, 7.2 * max(map(len, lines)) + 22) + 50 * grow, 20.0 * len(lines) + 6 + 26 * grow

    def _total(self, path: str) -> str:
        return self._metric.text(whole(self._tree, path, self._metric))

    def _nodes(self, box: Box, parent: str | None) -> list[Element]:
        about: dict[str, Any] = {"path": box.path} | ({"parent": parent} if parent is not None else {})
        is_chosen = box.kind in ("layer", "open") and box.path == self._chosen
        mark = " chosen" if is_chosen else ""
        if box.kind == "open":
            frame = {"data": {"id": box.id, "kind": "open", "label": "", **about}, "classes": f"open{mark}"}
            inside = [node for child in box.children for node in self._nodes(child, box.id)]
            return [frame, self._head(box), *inside]
        place, value = self._layout[box.id], self._values[box.id]
        fraction = self._scale.fraction(value)
        colour = _UNKNOWN_COLOUR if fraction is None else sequential(fraction)
        folds = box.kind == "layer" and bool(self._tree.inside(box.path))
        data = {
            "id": box.id,
            "kind": box.kind,
            "label": self._labels[box.id],
            "value": value,
            "exact": units.exact_text(value, self._metric.unit),
            "width": place.width,
            "height": place.height,
            "colour": colour,
            "ink": text_on(colour),
            "folds": folds,
            **about,
        }
        return [_at(place, data, f"{box.kind}{' folded' if folds else ''}{mark}")]

    def _head(self, box: Box) -> Element:
        name = head_id(box.path)
        value = whole(self._tree, box.path, self._metric)
        data = {
            "id": name,
            "kind": "head",
            "path": box.path,
            "parent": box.id,
            "label": self._labels[name],
            "exact": units.exact_text(value, self._metric.unit),
            "across": self._layout[name].width,
        }
        return _at(self._layout[name], data, "head")

    def _edge(self, flow: Flow) -> Element:
        """An arrow, curved where a straight one would run through a box."""
        ends = (flow.source, flow.target)
        source, target = (self._layout[end] for end in ends)
        others = [p for n, p in self._layout.items() if n not in ends and not n.endswith("#head")]
        curve = bend(source, target, others)
        gap = abs(target.y - source.y) - (source.height + target.height) / 2
        size = units.traffic_text(flow.bytes)
        tensors = f"{units.count_text(flow.tensors)} tensor{'s' if flow.tensors != 1 else ''}"
        data = {
            "id": ">".join(ends),
            "source": flow.source,
            "target": flow.target,
            "label": size if not curve and gap >= 24 else "",
            "says": f"{_name_of_end(ends[0])} → {_name_of_end(ends[1])}: {size} in {tensors}",
            "bytes": flow.bytes,
            "width": self._width(flow),
            "bend": curve,
        }
        return {"data": data, "classes": "curved" if curve else "straight"}

    def _width(self, flow: Flow) -> float:
        """1 to 7 pixels, by the logarithm: a cache is thousands of times a token's activations."""
        return max(1.0, 7.0 + 1.5 * math.log10(max(flow.bytes, 1) / max(self._largest, 1)))


def _at(place: Place, data: dict[str, Any], classes: str) -> Element:
    return {"data": data, "position": {"x": place.x, "y": place.y}, "classes": classes}


def _name_of_end(box: str) -> str:
    if box.endswith("#own"):
        return f"{box.removesuffix('#own')} itself"
    return _ENDS.get(box, box)


def stylesheet(theme: Theme) -> list[dict[str, Any]]:
    """How cytoscape draws the elements."""
    rules = {
        "node": {
            "shape": "round-rectangle",
            "label": "data(label)",
            "font-size": 12,
            "text-wrap": "wrap",
            "text-valign": "center",
            "text-halign": "center",
            "line-height": 1.25,
            "border-width": 1,
            "border-color": theme.faint,
        },
        "node[width]": {
            "width": "data(width)",
            "height": "data(height)",
            "background-color": "data(colour)",
            "color": "data(ink)",
        },
        ".folded": {"border-width": 3, "border-style": "double"},
        ".own": {"shape": "cut-rectangle"},
        ".end": {"border-style": "dashed", "background-color": theme.surface, "color": theme.text},
        ".head": {
            "width": "data(across)",
            "height": _HEAD_PX,
            "background-color": theme.surface,
            "color": theme.text,
        },
        ".open": {
            "background-color": theme.box,
            "background-opacity": 0.65,
            "padding": f"{FRAME_SIDE}px",
            "compound-sizing-wrt-labels": "exclude",
        },
        "edge": {
            "width": "data(width)",
            "curve-style": "bezier",
            "line-color": theme.faint,
            "line-opacity": 0.55,
            "target-arrow-shape": "triangle",
            "target-arrow-color": theme.faint,
            "arrow-scale": 0.9,
            "label": "data(label)",
            "font-size": 10,
            "color": theme.text,
            "text-background-color": theme.surface,
            "text-background-opacity": 0.85,
            "text-background-padding": "1px",
        },
        ".curved": {
            "curve-style": "unbundled-bezier",
            "control-point-distances": "data(bend)",
            "control-point-weights": 0.5,
            "line-opacity": 0.4,
        },
        "edge:selected": {"line-color": CHOSEN, "target-arrow-color": CHOSEN, "line-opacity": 1},
        ".chosen": {"border-width": 4, "border-style": "solid", "border-color": CHOSEN},
    }
    return [{"selector": selector, "style": style} for selector, style in rules.items()]
