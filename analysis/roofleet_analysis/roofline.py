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

    Only what no implementation can do without is counted: needed matrix work at the compute roof; weights and
    the needed part of the key-value cache at the bandwidth roof. What a mask hides is not needed, nor is what
    could have been kept. Activations can stay on the chip, and elementwise work can hide behind the rest.
    """
    roof = hardware.compute_roof(dtype)
    if roof is None:
        return None
    compute_s = cost.needed_flops / roof.flops_per_s
    memory_s = (cost.weight_bytes + cost.needed_kv_bytes) / hardware.memory_bytes_per_s
    if compute_s > memory_s:
        return LowerBound(compute_s * 1e9, "compute")
    return LowerBound(memory_s * 1e9, "memory")
