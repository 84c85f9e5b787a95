"""What a trace gives: ops with their operands, and the data that flows between layers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TracedTensor:
    """One operand: `role` is `weight`, `kv` or `activation`; `bytes` covers broadcast dimensions once."""

    shape: tuple[int, ...]
    dtype: str
    role: str
    bytes: int


@dataclass(frozen=True)
class TracedOp:
    """One op as it ran: the layer's path, the operator's name, operands, and scalar arguments.

    An op of a loop that was folded stands for all its rounds: attribute `repeat` says how many.
    """

    path: str
    op: str
    inputs: tuple[TracedTensor, ...]
    outputs: tuple[TracedTensor, ...]
    is_view: bool
    attributes: Mapping[str, Any]

    @property
    def work(self) -> Hashable:
        """The same, within a trace, only for ops that do the same work: alike blocks share operands."""
        return self.op, id(self.inputs), id(self.outputs), self.is_view, str(self.attributes)


@dataclass(frozen=True)
class Edge:
    """Tensors made in one layer and read in another; `bytes` is their size."""

    source_path: str
    target_path: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class TraceResult:
    """The ops of one step in the order they ran, and the data that flowed between layers."""

    ops: list[TracedOp]
    edges: list[Edge]
