"""The model's layers as a tree in the order they run, and what of it is in sight when some are open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["INPUTS", "OUTPUT", "Box", "Flow", "LayerTree", "ancestors", "head_id", "open_id", "own_id"]

Row = Mapping[str, Any]

INPUTS = "#inputs"
"""Where tensors come from that no layer made: tokens, positions, the KV cache, the model's own operations."""
OUTPUT = "#output"


def own_id(path: str) -> str:
    """The box for the operations that an open layer does itself, between those of the layers inside it."""
    return f"{path}#own"


def open_id(path: str) -> str:
    """The frame of an open layer; not its path, so that a drawn node never changes between box and frame."""
    return f"{path}#open"


def head_id(path: str) -> str:
    """The head of the frame of an open layer, which holds its name."""
    return f"{path}#head"


def ancestors(path: str) -> list[str]:
    """The layers it sits in, outermost first, without the model itself: of `a.b.c`, `a` and `a.b`."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


@dataclass
class Box:
    """Something in sight: a folded layer, an open one with boxes inside, its own operations, or an end."""

    id: str
    path: str
    kind: str
    """`layer`, `own`, `open` or `end`."""
    order: float
    children: list[Box] = field(default_factory=list)

    def leaves(self) -> Iterator[Box]:
        """The boxes inside that have none inside themselves; the box itself where it has none."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


@dataclass(frozen=True)
class Flow:
    """Data between two boxes in sight."""

    source: str
    target: str
    bytes: int
    tensors: int


class LayerTree:
    """The layers of one phase that ran, from rows of network_layers, network_order and network_edges."""

    def __init__(self, layers: Sequence[Row], order: Sequence[Row], edges: Sequence[Row]) -> None:
        self.rows: dict[str, Row] = {row["path"]: row for row in layers}
        self._edges = edges
        self._start: dict[str, float] = {}
        for row in order:
            for path in ("", *ancestors(row["path"]), row["path"]):
                self._start[path] = min(row["start_ns"], self._start.get(path, row["start_ns"]))
        inside: dict[str, list[str]] = defaultdict(list)
        for row in layers:
            if row["parent_path"] is not None and row["path"] in self._start:
                inside[row["parent_path"]].append(row["path"])
        self._inside = {
            path: sorted(paths, key=lambda p: (self._start[p], self.rows[p]["layer_index"]))
            for path, paths in inside.items()
        }
        self.skipped = [path for path in self.rows if path not in self._start]
        self._ends = {row["source_path"] for row in edges} | {row["target_path"] for row in edges}

    def inside(self, path: str) -> list[str]:
        """The layers directly inside that ran, in the order they ran."""
        return self._inside.get(path, [])

    def is_stack(self, path: str) -> bool:
        """Whether it is nothing but two or more of the same block."""
        blocks = self.inside(path)
        types = {self.rows[block]["module_type"] for block in blocks}
        return len(blocks) > 1 and len(types) == 1 and self.rows[path]["calls"] is None

    def first_open(self) -> tuple[str, ...]:
        """What is open when a model is first shown: all that leads to a stack of blocks."""
        found = {above for path in self.rows if self.is_stack(path) for above in ancestors(path)}
        # A stack inside a block is reached by opening the block.
        blocks = {block for path in self.rows if self.is_stack(path) for block in self.inside(path)}
        return tuple(
            sorted(
                path
                for path in found
                if not self.is_stack(path) and blocks.isdisjoint({path, *ancestors(path)})
            )
        )

    def closure(self, opened: Iterable[str]) -> set[str]:
        """The layers to open so that each of these is open, as far as they exist and hold something."""
        wanted = {step for path in opened for step in (*ancestors(path), path)}
        return {path for path in wanted if path and self.inside(path)}

    def boxes(self, opened: Collection[str]) -> list[Box]:
        """Everything in sight, the outermost boxes first to last."""
        inside = [self._box(path, opened) for path in self.inside("")]
        ends = []
        if any(row["source_path"] == "" for row in self._edges):
            ends.append(Box(INPUTS, "", "end", -1.0))
        if any(row["target_path"] == "" for row in self._edges):
            ends.append(Box(OUTPUT, "", "end", float("inf")))
        return sorted([*ends, *inside], key=lambda box: box.order)

    def _box(self, path: str, opened: Collection[str]) -> Box:
        start = self._start[path]
        if path not in opened:
            return Box(path, path, "layer", start)
        children = [self._box(child, opened) for child in self.inside(path)]
        if (self.rows[path]["ops"] or 0) > 0 or path in self._ends:
            children.append(Box(own_id(path), path, "own", self._own_start(path)))
        children.sort(key=lambda box: box.order)
        return Box(open_id(path), path, "open", start, children)

    def _own_start(self, path: str) -> float:
        """A layer's own operations stand after the first layer inside that feeds them, else before all."""
        feeding = [
            self._start[row["source_path"]]
            for row in self._edges
            if row["target_path"] == path and path in ancestors(row["source_path"])
            and row["source_path"] in self._start
        ]  # fmt: skip
        return min(feeding, default=self._start[path]) + 0.5

    def in_sight(self, path: str, opened: Collection[str], *, is_source: bool) -> str:
        """The id of the box that stands for a layer: itself, or the folded one it is inside."""
        if path == "":
            return INPUTS if is_source else OUTPUT
        for above in (*ancestors(path), path):
            if above not in opened:
                return above
        return own_id(path)

    def flows(self, opened: Collection[str]) -> list[Flow]:
        """The data between boxes in sight; what stays inside a folded layer, and
        empty tensors, are not shown.

        A layer's output that several layers of one folded box read is counted once, as it is one tensor.
        What no layer made is added up: every block has its own part of the cache.
        """
        passed: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(dict)
        for row in self._edges:
            ends = (
                self.in_sight(row["source_path"], opened, is_source=True),
                self.in_sight(row["target_path"], opened, is_source=False),
            )
            if ends[0] == ends[1] or row["bytes"] == 0:
                continue
            made_by = row["source_path"] or f"{row['source_path']}>{row['target_path']}"
            known = passed[ends].get(made_by, (0, 0))
            passed[ends][made_by] = max(known, (row["bytes"], row["tensors"]))
        return [
            Flow(source, target, sum(b for b, _ in by.values()), sum(n for _, n in by.values()))
            for (source, target), by in passed.items()
        ]
