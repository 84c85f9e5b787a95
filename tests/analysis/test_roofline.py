"""Roofline arithmetic against numbers worked out by hand."""

from __future__ import annotations

import pytest

from roofleet_analysis.catalogs.hardware import find_hardware
from roofleet_analysis.costs import Cost
from roofleet_analysis.roofline import lower_bound, ridge_point


def test_the_roofs_meet_at_the_ridge() -> None:
    """At 100 FLOP/s and 20 bytes/s the ridge is 5 FLOP/byte."""
    assert ridge_point(100, 20) == 5


def test_work_that_is_mostly_bytes_is_bound_by_memory() -> None:
    """16 GB at an A100's 2.039 TB/s takes 7.85 ms, far above its FLOPs."""
    chip = find_hardware("a100-80gb-sxm")
    assert chip is not None
    bound = lower_bound(Cost(matmul_flops=10**9, needed_flops=10**9, weight_bytes=16 * 10**9), "bf16", chip)
    assert bound is not None
    assert bound.bound == "memory"
    assert bound.lower_bound_ns == pytest.approx(16e9 / chip.memory_bytes_per_s * 1e9)


def test_work_that_is_mostly_flops_is_bound_by_compute() -> None:
    """The matrix work that is needed, at the dense roof of the dtype."""
    chip = find_hardware("a100-80gb-sxm")
    assert chip is not None
    bound = lower_bound(Cost(matmul_flops=2 * 10**15, needed_flops=10**15, weight_bytes=10**9), "bf16", chip)
    assert bound is not None
    assert (bound.bound, bound.lower_bound_ns) == ("compute", pytest.approx(1e15 / 312e12 * 1e9))


def test_hardware_without_a_roof_for_the_dtype_gives_no_bound() -> None:
    """A T4 has no bf16: the answer is None, not a bound of zero."""
    chip = find_hardware("t4")
    assert chip is not None
    assert lower_bound(Cost(needed_flops=1), "bf16", chip) is None
