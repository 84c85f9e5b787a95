"""Roofline arithmetic: what is attainable, and the time that a model's ops cannot beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roofleet_analysis.catalogs.hardware import Hardware
from roofleet_analysis.costs import Cost


@dataclass(frozen=True)
class LowerBound:
    """The least time of some work on some hardware in ns, and the roof that sets it."""

    lower_bound_ns: float
    bound: Literal["compute", "memory"]


def ridge_point(flops_per_s: float, bytes_per_s: float) -> float:
    """Arithmetic intensity in FLOP/byte at which the two roofs meet."""
    return flops_per_s / bytes_per_s


def lower_bound(cost: Cost, dtype: str, hardware: Hardware) -> LowerBound | None:
    """The least time of a phase of that cost; None if the hardware has no roof for the dtype.

    Of the ops as they were traced only what a kernel cannot avoid is counted: their matrix work, less what
    causal masking lets it skip where the op says so, at the compute roof; and weights and key-value cache at
    the bandwidth roof. Activations can stay on the chip, and elementwise work can hide behind the rest. A
    model that is written to do less (a latent cache that is not expanded, a window that is not masked) can
    be faster.
    """
    roof = hardware.compute_roof(dtype)
    if roof is None:
        return None
    compute_s = cost.causal_flops / roof.flops_per_s
    memory_s = (cost.weight_bytes + cost.kv_read_bytes + cost.kv_write_bytes) / hardware.memory_bytes_per_s
    if compute_s > memory_s:
        return LowerBound(compute_s * 1e9, "compute")
    return LowerBound(memory_s * 1e9, "memory")
