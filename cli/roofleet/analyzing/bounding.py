"""What hardware allows: whether a model fits on a device, how many of them it takes, and its least time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from roofleet_analysis.roofline import lower_bound

if TYPE_CHECKING:
    from roofleet_analysis.catalogs.hardware import Hardware
    from roofleet_analysis.costs import Cost


def room_on(chip: Hardware, needed: int) -> dict[str, Any]:
    """The memory of a device, what of it is offered to tensors, and how many devices hold `needed` bytes.

    With several devices weights, cache and activations are taken to be split evenly between them, which no
    real split reaches to the byte: it is the least number.
    """
    return {
        "memory_bytes": chip.memory_bytes,
        "usable_bytes": chip.usable_bytes,
        "usable_is_estimate": chip.usable_is_estimate,
        "usable_source": chip.usable_source,
        "reserve_bytes": chip.reserve_bytes,
        "offered_bytes": chip.offered_bytes,
        "fits": needed <= chip.offered_bytes,
        "devices": -(-needed // chip.offered_bytes),
    }


def bounds_on(
    chip: Hardware, costs: Mapping[str, Cost], dtypes: Sequence[str | None], weight_bytes: int
) -> dict[str, Any]:
    """The least time of each phase: at the roof of the first dtype that the hardware has one for.

    Weights are read once at most, however many layers share them: all of them are `weight_bytes`. None where
    there is no roof.
    """
    dtype = next((name for name in dtypes if name and chip.compute_roof(name)), None)
    found: dict[str, Any] = {}
    for phase, cost in costs.items():
        once = replace(cost, weight_bytes=min(cost.weight_bytes, weight_bytes))
        bound = lower_bound(once, dtype, chip) if dtype else None
        found[phase] = None if bound is None else asdict(bound) | {"dtype": dtype}
    return found


def without(sizes: dict[str, Any] | None, spared: int) -> dict[str, Any] | None:
    """The largest sizes with so many bytes of weights less than were searched with."""
    if sizes is None:
        return None
    return {
        name: size | {key: size[key] and size[key] - spared for key in ("bytes", "next_bytes")}
        for name, size in sizes.items()
    }
