"""Roofs: every observation is kept, the best of the same conditions holds, and nothing passes it unmarked.

One device does 1 FLOP and moves 1 byte a nanosecond from memory, 4 from its caches, measured on tensors of
1,000 bytes. A run takes 1 ms a step, in which its layer works 0.99 ms.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from roofleet_agent.rows import table_of
from roofleet_collector.derive import derived
from roofleet_collector.store import Append, DuckDBStore
from roofleet_proto.codec import decode_rows, encode_rows
from roofleet_proto.tables import TABLES

AT = datetime(2026, 1, 1, tzinfo=UTC)
HERE = {"threads": 2, "torch_version": "2.9", "driver_version": None}
MEASURED = {"device_id": "d", "source_kind": "measured", "measured_at": AT, "other_load": 0.0, **HERE}


def roof(roof_id: str, per_s: float, what: str = "fp32", **more: Any) -> dict[str, Any]:
    """A measured roof: of a dtype, of `dram` or of the `cache`."""
    row = MEASURED | {"roof_id": roof_id, "source": f"by hand, {roof_id}"}
    if what in ("dram", "cache"):
        size = 1_000 if what == "dram" else 10
        return row | {"kind": "memory", "memory_level": what, "bytes_per_s": per_s, "size_bytes": size} | more
    return row | {"kind": "compute", "dtype": what, "flops_per_s": per_s} | more


ROOFS = [roof("fp32", 1e9), roof("bf16", 4e9, "bf16"), roof("dram", 1e9, "dram"), roof("cache", 4e9, "cache")]


class Lab:
    """A store with a device, its roofs, and runs made to measure."""

    def __init__(self, store: DuckDBStore, roofs: list[dict[str, Any]]) -> None:
        self.store = store
        self.write("devices", [{"device_id": "d", "host_id": "h", "kind": "cpu", "name": "chip",
                                "backend": "cpu", "device_index": 0}])  # fmt: skip
        self.write("models", [{"model_id": "m", "name": "tiny", "origin": "module", "architecture": "T",
                               "task": "encode", "parameters": 5}])  # fmt: skip
        self.write("roofs", roofs)

    def write(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Stores rows as the collector does when they arrive."""
        self.store.append(Append(derived(table, table_of(table, rows)))).result()

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What SQL gives."""
        found: list[dict[str, Any]] = self.store.query(sql).read_all().to_pylist()
        return found

    def one(self, sql: str) -> dict[str, Any]:
        """The only row SQL gives."""
        (row,) = self.rows(sql)
        return row

    def run(
        self,
        run_id: str,
        flops: int = 900_000,
        weights: int = 9_000,
        *,
        step_ns: int = 1_000_000,
        layer_ns: int | None = None,
        iterations: int = 8,
        unknown_ops: int = 0,
        ops: list[dict[str, Any]] | None = None,
        **more: Any,
    ) -> None:
        """A run of a model with one layer, `a`, whose op does `flops` on `weights` bytes."""
        common = {"run_id": run_id, "phase": "forward"}
        done = {"run_id": run_id, "host_id": "h", "device_id": "d", "model_id": "m", "status": "done",
                "started_at": AT, "dtype": "fp32", "variant": "base", "weights": "random", "engine": "test",
                "batch_size": 1, "prompt_tokens": 1, "new_tokens": 0, "logits": "all",
                "iterations": iterations, "warmup": 0, "other_load": 0.0, **HERE, **more}  # fmt: skip
        each = step_ns * 99 // 100 if layer_ns is None else layer_ns
        step = {"step_index": 0, "is_warmup": False, "tokens": 1, "cache_tokens": 0}
        span = {
            "step_index": 0,
            "start_ns": 0,
            "duration_ns": each,
            "inner_calls": 0,
            "path": "a",
            "self_ns": each,
        }
        steps = [
            common | step | {"iteration": number, "pass": kind, "duration_ns": step_ns + number % 2,
                             "start_ns": (2 * number + place) * 2 * step_ns}
            for number in range(iterations) for place, kind in enumerate(("bare", "timed"))
        ]  # fmt: skip
        self.write("steps", steps)
        self.write("spans", [common | span | {"iteration": number} for number in range(iterations)])
        layer = {"run_id": run_id, "layer_index": 0, "depth": 1, "module_type": "Linear", "role": "mlp",
                 "is_leaf": True, "parameters": 1, "parameter_bytes": 1}  # fmt: skip
        self.write("layers", [layer | {"path": "a", "parent_path": ""}])
        costs = ops or [cost("fp32", flops, weights)]
        costs += [cost("fp32", 0, 0) | {"is_known": False, "matmul_flops": None}] * unknown_ops
        for number, row in enumerate(costs):
            op = {"op_index": number, "path": "a", "op": "mylib.scan" if not row["is_known"] else "aten.mm",
                  "inputs": [], "outputs": [], "is_view": False}  # fmt: skip
            self.store.append(Append({"ops": table_of("ops", [common | op])})).result()
            self.write("op_costs", [common | row | {"op_index": number, "path": "a"}])
        self.write("runs", [done])


def cost(dtype: str | None, flops: int, weights: int, causal: int | None = None) -> dict[str, Any]:
    """What an op costs, but for its place."""
    return {"is_known": True, "formula_version": 3, "dtype": dtype, "matmul_flops": flops, "other_flops": 0,
            "causal_flops": flops if causal is None else causal, "weight_bytes": weights,
            "activation_bytes": 0, "kv_read_bytes": 0, "kv_write_bytes": 0}  # fmt: skip


@pytest.fixture
def lab(store: DuckDBStore) -> Lab:
    """A device with its roofs and no run."""
    return Lab(store, ROOFS)


def _mfu(lab: Lab, run_id: str) -> float:
    found: float = lab.one(f"SELECT model_flops_utilization AS u FROM run_summary WHERE run_id = '{run_id}'")[
        "u"
    ]
    return found


def test_a_later_lower_measurement_lowers_no_roof(lab: Lab) -> None:
    """A busy machine measures a seventh: both observations are kept, and the run stays at 90 %."""
    lab.run("r")
    lab.write("roofs", [roof("later", 1.5e8, other_load=0.8), roof("later dram", 1e8, "dram")])
    assert _mfu(lab, "r") == pytest.approx(0.9)
    in_force = lab.one("SELECT flops_per_s, lowest_per_s, source, other_load FROM roofline_roofs "
                       "WHERE dtype = 'fp32'")  # fmt: skip
    assert in_force == {
        "flops_per_s": 1e9, "lowest_per_s": 1.5e8, "source": "by hand, fp32", "other_load": 0.0,
    }  # fmt: skip
    assert (
        lab.one("SELECT count(*) AS n FROM roofs WHERE dtype = 'fp32' AND source_kind = 'measured'")["n"] == 2
    )


def test_roofs_of_older_agents_are_taken_and_none_takes_anothers_place(store: DuckDBStore) -> None:
    """Two data folders of one host name a roof alike; the lower that comes later is a second observation."""
    columns = TABLES["roofs"].schema.names
    old = columns[: columns.index("size_bytes")]
    lab = Lab(store, [])
    for day, per_s in ((1, 160e9), (2, 23e9)):
        row = {"roof_id": "d/compute/fp32/measured", "device_id": "d", "kind": "compute", "dtype": "fp32",
               "flops_per_s": per_s, "source_kind": "measured", "measured_at": AT.replace(day=day),
               "source": "torch.mm of 2048 x 2048 fp32 matrices, best of several, 2 threads"}  # fmt: skip
        arrived = encode_rows(table_of("roofs", [row]).select(old))
        store.append(Append(derived("roofs", decode_rows(arrived, TABLES["roofs"])))).result()
    assert [row["flops_per_s"] for row in lab.rows("SELECT * FROM roofs ORDER BY measured_at")] == [
        160e9,
        23e9,
    ]
    found = lab.one("SELECT flops_per_s, threads, torch_version, observations FROM roofline_roofs")
    assert found == {"flops_per_s": 160e9, "threads": 2, "torch_version": None, "observations": 2}


@pytest.mark.parametrize("other", [{"threads": 4}, {"torch_version": "2.10"}])
def test_a_run_is_held_against_the_roofs_of_its_own_conditions(lab: Lab, other: dict[str, Any]) -> None:
    """Somebody measures with another number of threads, or another torch: only runs under these change."""
    lab.run("r")
    lab.write("roofs", [roof("other", 8e9, **other), roof("other dram", 8e9, "dram", **other)])
    lab.run("s", **other)
    assert _mfu(lab, "r") == pytest.approx(0.9)
    assert _mfu(lab, "s") == pytest.approx(0.9 / 8)


def test_what_a_run_achieved_raises_the_roof(lab: Lab) -> None:
    """2.7 MFLOP in 0.99 ms are more than the 1 GFLOP/s measured: that is the roof now, and it says where."""
    lab.run("r")
    lab.run("fast", 2_700_000)
    roofs = lab.one("SELECT * FROM run_roofs WHERE run_id = 'r'")
    assert roofs["compute_flops_per_s"] == pytest.approx(2.7e9 / 0.99)
    assert roofs["compute_source_kind"] == "seen"
    assert roofs["compute_source"] == "seen in run fast: tiny, forward, a"
    assert _mfu(lab, "r") == pytest.approx(0.9 * 0.99 / 2.7)
    assert lab.rows("SELECT * FROM roofline_points WHERE roofline_fraction > 1 OR fault IS NOT NULL") == []
    lab.run("elsewhere", threads=4)
    assert lab.one("SELECT compute_flops_per_s AS c FROM run_roofs WHERE run_id = 'elsewhere'")["c"] is None


@pytest.mark.parametrize(
    ("doubt", "told"),
    [
        ({"other_load": 0.4}, "other work took 40 % of the processors"),
        ({"iterations": 2}, "fewer than 3 iterations"),
        ({"unknown_ops": 1}, "1 ops have no formula"),
        ({"step_ns": 40_000, "flops": 108_000}, "under 50 us, too short to be timed well"),
    ],
)
def test_a_point_in_doubt_raises_nothing_and_is_marked_with_both_numbers(
    lab: Lab, doubt: dict[str, Any], told: str
) -> None:
    """2.7 FLOP a nanosecond above a roof of 1, from work or time that is in doubt: the roof stays, and run,
    phase and point say so."""
    lab.run("r", **{"flops": 2_700_000, **doubt})
    assert lab.one("SELECT compute_flops_per_s AS c FROM run_roofs")["c"] == 1e9
    summary = lab.one("SELECT model_flops_utilization AS u, fault FROM run_summary")
    assert summary["u"] == pytest.approx(2.7, rel=1e-4)
    assert "2.7 GFLOP/s above a roof of 1 GFLOP/s: " in summary["fault"]
    assert told in summary["fault"]
    points = lab.rows("SELECT level, roofline_fraction, fault FROM roofline_points")
    assert {row["level"] for row in points} == {"model", "role", "layer"}
    assert all(row["roofline_fraction"] > 1 and told in row["fault"] for row in points)
    assert "above a roof of 1 GFLOP/s" in lab.one("SELECT fault FROM layer_summary WHERE path = 'a'")["fault"]


def test_layers_that_do_not_explain_the_step_raise_nothing(lab: Lab) -> None:
    """A layer whose time is a third of what it should be is a fault of its time, not of the roof."""
    lab.run("r", layer_ns=330_000)
    assert lab.one("SELECT compute_flops_per_s AS c FROM run_roofs")["c"] == 1e9
    fault = lab.one("SELECT fault FROM roofline_points WHERE level = 'layer'")["fault"]
    assert "2.727 GFLOP/s above a roof of 1" in fault
    assert "the layers explain 33 % of the step" in fault
    assert lab.one("SELECT fault FROM run_summary")["fault"] is None


def test_what_a_run_achieved_is_no_roof_by_itself(store: DuckDBStore) -> None:
    """Without a measurement, a run at its own speed would be at 100 %: it has no utilisation."""
    lab = Lab(store, [])
    lab.run("r")
    assert _mfu(lab, "r") is None
    lab.write("roofs", ROOFS)
    assert _mfu(lab, "r") == pytest.approx(0.9)


def test_a_datasheets_roof_is_not_raised(store: DuckDBStore) -> None:
    """A device cannot do more than its datasheet says: what lies above is marked."""
    lab = Lab(store, [row | {"source_kind": "datasheet"} for row in ROOFS if row["roof_id"] != "cache"])
    lab.run("r", 2_700_000)
    row = lab.one("SELECT fault, roof_source_kind FROM run_summary")
    assert row["roof_source_kind"] == "datasheet"
    assert row["fault"].endswith("the roof or the work is at fault")


def test_what_stays_in_a_cache_is_held_against_the_caches_roof(lab: Lab) -> None:
    """A step that holds 900 bytes in all moves 3 of them a nanosecond: faster than memory, from a cache.
    It raises no roof of the memory, and lies above none."""
    lab.run("r", 10, 900, step_ns=300)
    row = lab.one("SELECT memory_bandwidth_utilization AS u, fault FROM run_summary")
    assert row == {"u": pytest.approx(3 / 4, rel=0.01), "fault": None}
    lab.run("s", 10, 900_000, step_ns=180_000)
    roofs = lab.one(
        "SELECT memory_bytes_per_s AS m, cache_bytes_per_s AS c FROM run_roofs WHERE run_id = 's'"
    )
    assert roofs["m"] == pytest.approx(5e9 / 0.99)
    assert roofs["c"] == pytest.approx(5e9 / 0.99)
    lab.run("t", 10, 900, step_ns=100_000)
    assert lab.one("SELECT memory_bytes_per_s AS m FROM run_roofs WHERE run_id = 't'")["m"] == roofs["m"]


def test_attention_counted_dense_does_not_raise_the_roof(lab: Lab) -> None:
    """Kernels skip the masked half: 1.8 counted are 0.9 done, and the mark says so."""
    lab.run("r", ops=[cost("fp32", 1_800_000, 9_000, causal=900_000)])
    assert lab.one("SELECT compute_flops_per_s AS c FROM run_roofs")["c"] == 1e9
    fault = lab.one("SELECT fault FROM run_summary")["fault"]
    assert fault.endswith("attention is counted dense, and kernels skip what is masked")


def test_each_op_is_held_against_the_roof_of_its_own_dtype(lab: Lab) -> None:
    """Under autocast 1.8 MFLOP of products in bf16 take 0.45 ms at their roof and 0.2 in fp32 take 0.2:
    65 % of 1 ms, where against the roof of fp32 alone it would be 200 %."""
    lab.run("r", ops=[cost("bf16", 1_800_000, 9_000), cost("fp32", 200_000, 9_000), cost("int64", 0, 0)])
    row = lab.one("SELECT model_flops_utilization AS u, product_dtypes, fault FROM run_summary")
    assert row == {"u": pytest.approx(0.65), "product_dtypes": '{"bf16":0.9,"fp32":0.1}', "fault": None}
    layer = lab.one("SELECT compute_roof_flops_per_s AS c, roofline_fraction AS f FROM layer_summary "
                    "WHERE path = 'a'")  # fmt: skip
    assert layer == {"c": pytest.approx(2e6 / 0.65e-3), "f": pytest.approx(0.65 / 0.99)}
    # work of several dtypes at once is evidence for the roof of neither
    assert lab.rows("SELECT * FROM roofs WHERE source_kind = 'seen' AND kind = 'compute'") == []


def test_a_product_without_a_roof_leaves_the_utilisation_unknown(lab: Lab) -> None:
    """Of int8 nothing was measured here: no other dtype's roof stands in."""
    lab.run("r", ops=[cost("int8", 900_000, 9_000)])
    assert _mfu(lab, "r") is None


def test_a_utilisation_that_misses_ops_is_the_least_it_can_be(lab: Lab) -> None:
    """An op without a formula that takes a fifth of the time is in none of the figures, and they say so."""
    lab.run("r")
    lab.run("s", unknown_ops=1)
    times = [("aten.mm", 96), ("mylib.scan", 4)]
    for run_id, timed in (("s", times), ("t", [("aten.mm", 80), ("mylib.scan", 20)])):
        if run_id == "t":
            lab.run("t", unknown_ops=1)
        lab.write("op_times", [{"run_id": run_id, "phase": "forward", "path": "a", "op": op, "calls": 1,
                                "duration_ns": ns} for op, ns in timed])  # fmt: skip
    found = lab.rows("SELECT run_id, unknown_share, utilization_is_least FROM phase_summary ORDER BY run_id")
    assert [tuple(row.values()) for row in found] == [
        ("r", None, False), ("s", 0.04, False), ("t", 0.2, True),
    ]  # fmt: skip
