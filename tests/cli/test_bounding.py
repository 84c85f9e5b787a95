"""What hardware allows: what fits on what a device really offers, and how many of them hold the rest."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from roofleet.analyzing.analysis import analyze
from roofleet.analyzing.bounding import room_on
from roofleet.naming.models import resolve
from roofleet.reports.analysis import print_analysis
from roofleet_agent.workload import Workload
from roofleet_analysis.catalogs.hardware import Hardware, find_hardware

GIB = 2**30


def chip(name: str) -> Hardware:
    found = find_hardware(name)
    assert found is not None
    return found


def printed(result: dict[str, object]) -> str:
    out = io.StringIO()
    print_analysis(Console(file=out, width=300), result)
    return out.getvalue()


def test_what_fits_is_what_a_program_can_have() -> None:
    """14.96 GiB of weights do not fit on a T4, which is sold with 16 GiB and offers 14.56 less a reserve that
    the answer names; two of them hold it."""
    result = analyze(resolve("Llama-3.1-8B", None), "fp16", Workload(1, 8, 1), [chip("t4")])
    (t4,) = result["hardware"]
    assert result["memory"]["weight_bytes"] < t4["memory_bytes"] == 16 * GIB
    assert not t4["fits"]
    assert t4["devices"] == 2
    assert t4["offered_bytes"] == t4["usable_bytes"] - t4["reserve_bytes"] == chip("t4").offered_bytes
    text = printed(result)
    assert "no: takes 2" in text
    assert "less a reserve of 768 MiB for context and allocator" in text
    assert "split evenly" in text


@pytest.mark.parametrize(
    ("needed", "fits", "devices"),
    # an H100 offers 79.11 - 0.75 = 78.36 GiB; 405 billion parameters in bf16 are 756 GiB
    [
        (78 * GIB, True, 1),
        (79 * GIB, False, 2),
        (756 * GIB, False, 10),
        (2 * chip("h100").offered_bytes, False, 2),
    ],
)
def test_a_model_that_does_not_fit_takes_so_many_devices(needed: int, fits: bool, devices: int) -> None:
    """The least number that holds all of it with the reserve on each, evenly split."""
    room = room_on(chip("h100-sxm"), needed)
    assert (room["fits"], room["devices"]) == (fits, devices)
