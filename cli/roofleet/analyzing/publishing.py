"""Weights as a checkpoint stores them: some take fewer bits than what the model computes with."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from roofleet_agent.passes.tracing import op_rows
from roofleet_agent.tracing import TraceResult
from roofleet_analysis.catalogs.models import Storage, find_model
from roofleet_analysis.costs import Cost, cost_of
from roofleet_analysis.costs.rows import op_of

if TYPE_CHECKING:
    from torch import nn

    from roofleet_agent.workload import ModelRequest, Workload


@dataclass(frozen=True)
class Published:
    """What a model's weights take as published, beside the same as a model on `meta` has them.

    `layers` maps the paths of layers that are stored in fewer bits to their bytes on `meta` and as published.
    Without a `storage` all is stored in the dtype that is analysed.
    """

    storage: Storage | None
    layers: Mapping[str, tuple[int, int]]

    @property
    def spared_bytes(self) -> int:
        """How much less the published weights take."""
        return sum(unpacked - stored for unpacked, stored in self.layers.values())

    @property
    def compute(self) -> str | None:
        """The dtype that products with the packed weights are made in, where the hardware can."""
        return None if self.storage is None else self.storage.compute

    def cost(self, cost: Cost, traced: TraceResult) -> Cost:
        """A phase's cost with the weights read as they are published."""
        packed = (op for op in traced.ops if op.path in self.layers and not op.is_view)
        read_bytes: dict[Hashable, int] = {}
        spared = 0
        for op in packed:
            if op.work not in read_bytes:
                (row,) = op_rows("phase", TraceResult([op], []))
                read = cost_of(op_of(row))
                read_bytes[op.work] = read.weight_bytes if read else 0
            unpacked, stored = self.layers[op.path]
            spared += read_bytes[op.work] * (unpacked - stored) // unpacked
        return replace(cost, weight_bytes=cost.weight_bytes - spared)

    def told(self, weight_bytes: int, dtype: str) -> dict[str, Any] | None:
        """What an analysis says of it, if anything; `weight_bytes` are those on `meta`."""
        if self.storage is None:
            return None
        return {
            "dtype": self.storage.dtype,
            "where": self.storage.where,
            "elsewhere": dtype,
            "bytes": weight_bytes - self.spared_bytes,
            "unpacked_bytes": weight_bytes,
            "source": self.storage.source,
        }


def published(request: ModelRequest, dtype: str, workload: Workload, module: nn.Module) -> Published:
    """The published weights of a catalogue model, where they are asked for: in dtype `auto` and unchanged."""
    entry = find_model(request.name) if request.origin == "catalog" else None
    if entry is None or entry.storage is None or dtype != "auto" or workload.variant.name != "base":
        return Published(None, {})
    layers = {}
    for path, layer in module.named_modules():
        if not re.fullmatch(entry.storage.layers, path):
            continue
        unpacked = stored = 0
        for name, weight in layer.named_parameters(recurse=False):
            size = weight.numel() * weight.element_size()
            is_matrix = weight.dim() > 1 and not name.endswith("bias")
            unpacked += size
            stored += entry.storage.stored_bytes(weight.numel()) if is_matrix else size
        layers[path] = unpacked, stored
    return Published(entry.storage, layers)
