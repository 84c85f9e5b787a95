"""What hardware allows: what fits on what a device really offers, and how many of them hold the rest."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from rich.console import Console
from tests.support import TINY_LLAMA, ListSink, request

from roofleet.analyzing.analysis import analyze
from roofleet.analyzing.bounding import bounds_on, room_on
from roofleet.analyzing.counting import store_analysis
from roofleet.analyzing.publishing import published
from roofleet.naming.models import resolve
from roofleet.reports.analysis import print_analysis
from roofleet_agent.registry import find_engine
from roofleet_agent.storage import stored_bytes
from roofleet_agent.variants import parse
from roofleet_agent.workload import Workload
from roofleet_analysis.catalogs.hardware import Hardware, find_hardware
from roofleet_analysis.costs import Cost, derive_op_costs
from roofleet_analysis.roofline import LowerBound, lower_bound

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


def test_weights_are_counted_as_they_are_published() -> None:
    """gpt-oss-20b: 24 layers of 32 experts with 2880 x 5760 and 2880 x 2880 numbers in 4.25 bits, everything
    else in bf16, are 12.8 GiB, which a T4 holds; unpacked they are 39. A token reads 4 of 32 experts."""
    result = analyze(resolve("gpt-oss-20b", None), "auto", Workload(1, 8, 2), [chip("t4"), chip("h100")])
    numbers = 24 * 32 * (2880 * 5760 + 2880 * 2880)
    packed, others = numbers * 17 // 32, 2 * (20_914_757_184 - numbers)
    stored = result["published"]
    assert (stored["dtype"], stored["where"], stored["elsewhere"]) == ("mxfp4", "experts", "bf16")
    assert stored["bytes"] == pytest.approx(packed + others, abs=10_000)  # and a few frequencies
    assert stored["unpacked_bytes"] == pytest.approx(2 * 20_914_757_184, abs=10_000)
    assert result["memory"]["weight_bytes"] == result["parameter_bytes"] == stored["bytes"]
    for phase in result["memory"]["phases"].values():
        kinds = (phase["weight_bytes"], phase["kv_bytes"], phase["activation_bytes"])
        assert phase["peak_bytes"] == sum(kinds) <= result["memory"]["needed_bytes"]
    read = packed * 4 // 32 + others - 2 * 201_088 * 2880 - 24 * 2 * 28 * 3 * 2880
    assert result["phases"]["decode"]["weight_bytes"] == pytest.approx(read, rel=1e-4)
    t4, h100 = result["hardware"]
    assert t4["fits"]
    assert h100["phases"]["decode"]["lower_bound_ns"] == pytest.approx(read / 3.35e12 * 1e9, rel=1e-3)
    text = printed(result)
    assert "bf16 with weights as published" in text
    assert "12.8 GiB, mxfp4 in experts, bf16 elsewhere; 39.0 GiB unpacked to bf16" in text
    assert "--dtype bf16 counts that" in text


def test_published_weights_are_those_of_the_model_as_it_is() -> None:
    """DeepSeek-V3: a byte a number, and a scale for 128 x 128 of them, in all but tables, norms and routers;
    whoever names a dtype or changes the model has all of it in that dtype."""
    deepseek = resolve("DeepSeek-V3", None)
    session = find_engine(deepseek).load(deepseek, torch.device("meta"), "bf16", Workload(1, 8, 1))
    tables = 2 * 129_280 * 7168 + 58 * 256 * 7168
    norms = 61 * (2 * 7168 + 1536 + 512) + 7168
    stored = published(deepseek, "auto", Workload(), session.module).told(
        stored_bytes(session.module), "bf16"
    )
    assert stored is not None
    matrices = 671_026_404_352 - tables - norms
    assert stored["bytes"] == pytest.approx(matrices * (1 + 4 / 128**2) + 2 * (tables + norms), rel=1e-6)
    assert published(deepseek, "bf16", Workload(), session.module).spared_bytes == 0
    pruned = Workload(variant=parse("pruned-50"))
    assert published(deepseek, "auto", pruned, session.module).spared_bytes == 0


def test_bounds_take_the_roof_that_the_hardware_has() -> None:
    """fp8 products are bound by the fp8 roof of an H100 and by the bf16 roof of an A100, which has no other;
    and weights that many layers share are read once."""
    cost = {"prefill": Cost(needed_flops=10**15, weight_bytes=10**9)}
    found = {
        name: bounds_on(chip(name), cost, ["fp8", "bf16"], 10**9)["prefill"] for name in ("h100", "a100")
    }
    assert {name: bound["dtype"] for name, bound in found.items()} == {"h100": "fp8", "a100": "bf16"}
    assert found["h100"]["lower_bound_ns"] == pytest.approx(1e15 / 1978.9e12 * 1e9)
    shared = bounds_on(chip("a100"), {"decode": Cost(weight_bytes=12 * 10**9)}, ["bf16"], 10**9)["decode"]
    assert shared["lower_bound_ns"] == pytest.approx(1e9 / 2.039e12 * 1e9)


def test_an_analysis_and_a_sweep_of_analyses_bound_the_same_step() -> None:
    """Decode is its middle step in both, with (9 - 2) // 2 = 3 cached tokens beside the prompt's 8, and the
    least times of each phase agree to the digit."""
    workload, sink = Workload(2, 8, 9), ListSink()
    result = analyze(request(TINY_LLAMA), "fp32", workload, [chip("h100")])
    assert result["phases"]["decode"]["cached_tokens"] == 8 + 3
    assert "decode is its middle step, after 11 cached tokens" in printed(result)
    store_analysis(request(TINY_LLAMA), "fp32", workload, sink, lambda what, fraction: None, None)
    ops = pa.concat_tables(sink.tables["ops"])
    (h100,) = result["hardware"]
    for phase, bound in h100["phases"].items():
        rows = ops.filter(pc.equal(ops["phase"], phase))
        costs = derive_op_costs(rows).to_pylist()
        names = ("needed_flops", "weight_bytes", "needed_kv_bytes")
        summed = Cost(**{name: sum(row[name] or 0 for row in costs) for name in names})
        assert lower_bound(summed, "fp32", chip("h100")) == LowerBound(
            bound["lower_bound_ns"], bound["bound"]
        )
