"""What hardware allows: whether a model fits on a device, how many of them it takes, and its least time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roofleet_analysis.catalogs.hardware import Hardware


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
