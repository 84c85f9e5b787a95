"""The published views, on rows made so that every figure can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import filled_copy, laid

from roofleet_agent.rows import table_of
from roofleet_collector.store import Append, DuckDBStore

RUN = {
    "run_id": "r", "host_id": "h", "device_id": "d", "model_id": "m", "status": "done",
    "started_at": datetime(2026, 1, 1, tzinfo=UTC), "dtype": "fp32", "variant": "base", "weights": "random",
    "attention": "sdpa", "engine": "test", "batch_size": 2, "prompt_tokens": 10, "new_tokens": 3,
    "logits": "last", "iterations": 1, "warmup": 1, "energy_j": 12.0,
}  # fmt: skip
ROOF = {"device_id": "d", "source": "by hand"}
# Compute 1e9 FLOP/s and memory 1e9 bytes/s measured: one FLOP or byte a nanosecond, ridge at 1.
ROOFS = [
    {
        **ROOF,
        "roof_id": "1",
        "kind": "compute",
        "dtype": "fp32",
        "flops_per_s": 1e9,
        "source_kind": "measured",
    },
    {**ROOF, "roof_id": "2", "kind": "memory", "bytes_per_s": 1e9, "source_kind": "measured"},
    {
        **ROOF,
        "roof_id": "3",
        "kind": "compute",
        "dtype": "fp32",
        "flops_per_s": 9e9,
        "source_kind": "datasheet",
    },
    {**ROOF, "roof_id": "4", "kind": "memory", "bytes_per_s": 9e9, "source_kind": "datasheet"},
]


def _step(kind: str, phase: str, index: int, ns: int, iteration: int = 1) -> dict[str, Any]:
    return {
        "run_id": "r", "phase": phase, "pass": kind, "iteration": iteration, "step_index": index,
        "is_warmup": iteration == 0, "start_ns": 0, "duration_ns": ns,
        "tokens": 10 if phase == "prefill" else 1, "cache_tokens": 0,
    }  # fmt: skip


def _span(path: str, ns: int, self_ns: int | None, index: int = 0, phase: str = "decode") -> dict[str, Any]:
    return {
        "run_id": "r", "phase": phase, "iteration": 1, "step_index": index, "path": path, "start_ns": 0,
        "duration_ns": ns, "self_ns": self_ns,
    }  # fmt: skip


def _cost(index: int, path: str, flops: int, other: int, weights: int, known: bool = True) -> dict[str, Any]:
    row = {"run_id": "r", "phase": "decode", "op_index": index, "path": path, "is_known": known,
           "formula_version": 1}  # fmt: skip
    if known:
        row |= {"matmul_flops": flops, "causal_flops": flops, "other_flops": other, "weight_bytes": weights,
                "activation_bytes": 0, "kv_read_bytes": 0, "kv_write_bytes": 0}  # fmt: skip
    return row


def _op(index: int, path: str) -> dict[str, Any]:
    return {"run_id": "r", "phase": "decode", "op_index": index, "path": path, "op": "aten.linear",
            "inputs": [], "outputs": [], "is_view": False}  # fmt: skip


def _layer(path: str, index: int) -> dict[str, Any]:
    return {
        "run_id": "r", "path": path, "parent_path": path.rpartition(".")[0] if path else None,
        "layer_index": index, "depth": path.count(".") + 1 if path else 0, "module_type": "Layer",
        "role": "mlp", "block_index": None, "is_leaf": path in ("a.x", "a.y"), "parameters": 0,
        "parameter_bytes": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run: a prefill of 1,000 ns and decode steps of 400 ns, 10 % slower when timed."""
    rows: dict[str, list[dict[str, Any]]] = {
        "runs": [RUN],
        "hosts": [{"host_id": "h", "hostname": "one"}],
        "devices": [{"device_id": "d", "host_id": "h", "kind": "cpu", "name": "chip", "backend": "cpu",
                     "device_index": 0}],
        "models": [{"model_id": "m", "name": "tiny", "origin": "catalog", "architecture": "Tiny",
                    "task": "generate", "parameters": 5}],
        "roofs": ROOFS,
        "layers": [_layer("", 0), _layer("a", 1), _layer("a.x", 2), _layer("a.y", 3)],
        "steps": [
            # the warm-up would spoil every figure if it counted
            *(_step(kind, "decode", i, 9_000, iteration=0) for kind in ("bare", "timed") for i in (0, 1)),
            _step("bare", "prefill", 0, 1_000), _step("timed", "prefill", 0, 1_100),
            _step("bare", "decode", 0, 400), _step("bare", "decode", 1, 400),
            _step("timed", "decode", 0, 440), _step("timed", "decode", 1, 440),
        ],
        "spans": [
            s for i in (0, 1)
            for s in (_span("", 430, 30, i), _span("a", 400, 50, i), _span("a.x", 250, 250, i),
                      _span("a.y", 100, 100, i))
        ],
        "ops": [_op(0, "a.x"), _op(1, "a.y"), _op(2, "a.y")],
        # a.x: 200 FLOP on 50 bytes, compute; a.y: 10 FLOP on 80 bytes, memory, and an op nobody knows
        "op_costs": [_cost(0, "a.x", 190, 10, 50), _cost(1, "a.y", 10, 0, 80),
                     _cost(2, "a.y", 0, 0, 0, known=False)],
    }  # fmt: skip
    store = DuckDBStore(laid(tmp_path_factory.mktemp("filled")))
    store.append(Append({name: table_of(name, listed) for name, listed in rows.items()})).result()
    store.close()
    return store.path.parent


@pytest.fixture
def filled(filled_once: Path, tmp_path: Path) -> Iterator[DuckDBStore]:
    """A store with that run for each test."""
    with filled_copy(filled_once, tmp_path / "data") as store:
        yield store


def one(store: DuckDBStore, sql: str) -> dict[str, Any]:
    """The only row of a query."""
    rows: list[dict[str, Any]] = store.query(sql).read_all().to_pylist()
    assert len(rows) == 1
    return rows[0]


def test_the_run_summary_tells_latency_throughput_and_energy(filled: DuckDBStore) -> None:
    """1,000 + 2 x 400 ns make 3 tokens in 2 sequences: 6 tokens in 1.8 us, 12 J over 6 tokens."""
    row = one(filled, "SELECT * FROM run_summary")
    assert (row["time_to_first_token_ns"], row["time_per_output_token_ns"]) == (1_000, 400)
    assert row["tokens_per_s"] == pytest.approx(6 / 1.8e-6)
    assert row["energy_per_token_j"] == pytest.approx(2.0)
    assert (row["hostname"], row["device_name"], row["model_name"], row["status"]) == (
        "one", "chip", "tiny", "done",
    )  # fmt: skip


def _pairs(phase: str, *bare: int, ratio: float = 1.1) -> list[dict[str, Any]]:
    """Bare steps of so many ns, each followed by a timed one, after those of the fixture."""
    return [
        _step(kind, phase, 10 + 2 * number + (kind == "timed"), round(ns * (ratio if kind == "timed" else 1)))
        for number, ns in enumerate(bare)
        for kind in ("bare", "timed")
    ]


def test_overhead_is_timed_over_bare_in_pairs(filled: DuckDBStore) -> None:
    """440 / 400 and 1,100 / 1,000 are both 1.1 of the bare steps before and after, and so is their mean."""
    steps = _pairs("prefill", *[1_000] * 6) + _pairs("decode", *[400] * 6)
    filled.append(Append({"steps": table_of("steps", steps)})).result()
    columns = "instrumentation_overhead, overhead_low, overhead_high, pairs_unknown"
    *overheads, unknown = one(filled, f"SELECT {columns} FROM run_summary").values()
    assert overheads == pytest.approx([1.1, 1.1, 1.1])
    assert unknown is None


def test_the_interval_of_the_overhead_is_told_by_ranks(filled: DuckDBStore) -> None:
    """Of 16 ratios from 1.00 to 1.15 the 95 % interval lies between the 4th and the 13th: ranks
    15 x (0.5 -+ 0.98 / 4) = 3.8 and 11.2, counted from 0 and outward."""
    steps = [
        _step(kind, "prefill", 10 + number, 1_000 + (10 * number if kind == "timed" else 0))
        for number in range(16)
        for kind in ("bare", "timed")
    ]
    filled.append(Append({"steps": table_of("steps", steps)})).result()
    row = one(filled, "SELECT * FROM phase_summary WHERE phase = 'prefill'")
    # the fixture's own pair of 1.1 is the 17th: ranks 16 x (0.5 -+ 0.98 / sqrt(17)) = 4.2 and 11.8
    assert (row["overhead_low"], row["overhead_high"]) == pytest.approx((1.04, 1.11))
    assert row["pairs"] == 17


def test_pairs_that_are_few_or_differ_much_leave_overhead_and_coverage_unknown(filled: DuckDBStore) -> None:
    """Two pairs a decode step are too few; ten of which half are 1.0 and half 1.4 are known to 18 % only."""
    ask = "SELECT * FROM phase_summary WHERE phase = 'decode'"
    few = one(filled, ask)
    assert few["instrumentation_overhead"] is None
    assert few["layer_time_coverage"] is None
    assert few["pairs_unknown"] == "2 pairs of bare and timed steps, 6 are needed"
    steps = [
        _step(kind, "decode", 10 + number, 560 if kind == "timed" and number % 2 else 400)
        for number in range(10)
        for kind in ("bare", "timed")
    ]
    filled.append(Append({"steps": table_of("steps", steps)})).result()
    wide = one(filled, ask)
    assert wide["overhead_low"] is None
    assert wide["pairs_unknown"] == "pairs of bare and timed steps differ: known to 17 % only"
    assert one(filled, "SELECT layer_time_coverage AS c FROM run_summary")["c"] is None


def test_coverage_is_the_layers_below_the_model_over_the_bare_step(filled: DuckDBStore) -> None:
    """50 + 250 + 100 ns of layers explain a bare step of 400 ns; the model's own 30 do not count."""
    steps = _pairs("decode", *[400] * 6)
    filled.append(Append({"steps": table_of("steps", steps)})).result()
    row = one(filled, "SELECT layer_time_coverage AS c FROM phase_summary WHERE phase = 'decode'")
    assert row["c"] == pytest.approx(1.0)


def test_coverage_pairs_steps_so_that_a_machine_that_slows_down_does_not_change_it(
    filled: DuckDBStore,
) -> None:
    """Two more pairs at half the speed explain 800 of 880 ns timed: 1 / 1.1 again, times 1.1 is 1."""
    steps = [
        _step(kind, "decode", index, ns) for index in (2, 3) for kind, ns in (("bare", 800), ("timed", 880))
    ]
    steps += _pairs("decode", *[100] * 4, *[800] * 4)
    spans = [_span("a", 800, 800, index) for index in (2, 3)]
    filled.append(Append({"steps": table_of("steps", steps), "spans": table_of("spans", spans)})).result()
    row = one(filled, "SELECT layer_time_coverage AS c FROM phase_summary WHERE phase = 'decode'")
    assert row["c"] == pytest.approx(1.0)


def test_warm_up_is_left_out(filled: DuckDBStore) -> None:
    """Two measured steps a phase and iteration, none of the warm-up's 9,000 ns."""
    row = one(filled, "SELECT steps, bare_p95_ns FROM phase_summary WHERE phase = 'decode'")
    assert row == {"steps": 2, "bare_p95_ns": 400}


def test_measured_roofs_come_before_the_datasheets(filled: DuckDBStore) -> None:
    """A device with both is held against what was measured, and the row says so."""
    row = one(filled, "SELECT * FROM run_roofs")
    assert (row["compute_flops_per_s"], row["memory_bytes_per_s"]) == (1e9, 1e9)
    assert (row["compute_source_kind"], row["memory_source_kind"]) == ("measured", "measured")


def test_a_layers_figures_are_its_own_and_totals_include_what_is_inside(filled: DuckDBStore) -> None:
    """ "a" computes nothing itself; with a.x and a.y inside it is 200 matrix FLOP on 130 bytes."""
    row = one(filled, "SELECT * FROM layer_summary WHERE phase = 'decode' AND path = 'a'")
    assert (row["self_ns"], row["p50_ns"], row["matmul_flops"], row["bound"]) == (50, 400, None, None)
    assert (row["total_matmul_flops"], row["total_other_flops"], row["total_weight_bytes"]) == (200, 10, 130)
    root = one(filled, "SELECT * FROM layer_summary WHERE phase = 'decode' AND path = ''")
    assert root["total_matmul_flops"] == 200


def test_a_layer_that_only_makes_views_achieves_nothing(filled: DuckDBStore) -> None:
    """Its rate and bound are NULL and not zero, so that it is no point on a chart."""
    view = _op(3, "a") | {"is_view": True}
    rows = {"ops": [view], "op_costs": [_cost(3, "a", 0, 0, 0)]}
    filled.append(Append({name: table_of(name, listed) for name, listed in rows.items()})).result()
    row = one(
        filled,
        "SELECT ops, achieved_flops_per_s AS f, achieved_bytes_per_s AS b, bound FROM layer_summary "
        "WHERE phase = 'decode' AND path = 'a'",
    )
    assert row == {"ops": 0, "f": None, "b": None, "bound": None}


@pytest.mark.parametrize(
    ("path", "bound", "roof_ns", "fraction", "intensity"),
    [("a.x", "compute", 200, 200 / 250, 4.0), ("a.y", "memory", 80, 80 / 100, 10 / 80)],
)
def test_a_layer_is_bound_by_the_side_of_the_ridge(
    filled: DuckDBStore, path: str, bound: str, roof_ns: float, fraction: float, intensity: float
) -> None:
    """200 FLOP on 50 bytes lie right of a ridge at 1, 10 FLOP on 80 bytes left of it."""
    row = one(filled, f"SELECT * FROM layer_summary WHERE phase = 'decode' AND path = '{path}'")
    assert row["bound"] == bound
    assert row["time_at_roof_ns"] == pytest.approx(roof_ns)
    assert row["roofline_fraction"] == pytest.approx(fraction)
    assert row["arithmetic_intensity"] == pytest.approx(intensity)


def test_a_short_layer_far_from_the_roof_is_overhead(filled: DuckDBStore) -> None:
    """Ten times the time for the same work: below a quarter of the roof, with ops of nanoseconds."""
    slow = [_span("a.x", 2_500, 2_500, index) for index in (2, 3, 4, 5, 6)]
    filled.append(Append({"spans": table_of("spans", slow)})).result()
    row = one(filled, "SELECT bound FROM layer_summary WHERE phase = 'decode' AND path = 'a.x'")
    assert row["bound"] == "overhead"


def test_unknown_ops_are_counted_and_add_nothing(filled: DuckDBStore) -> None:
    """The op without a formula is in the count and in no sum."""
    row = one(filled, "SELECT unknown_ops, matmul_flops FROM phase_summary WHERE phase = 'decode'")
    assert row == {"unknown_ops": 1, "matmul_flops": 200}
    assert one(filled, "SELECT unknown_ops FROM run_summary") == {"unknown_ops": 1}


def test_without_a_roof_there_is_no_bound(filled: DuckDBStore) -> None:
    """A run in a dtype that has no roof has its times and no bound, rather than a wrong one."""
    other = dict(RUN, dtype="bf16")
    filled.append(Append({"runs": table_of("runs", [other])})).result()
    row = one(filled, "SELECT self_ns, bound, attainable_flops_per_s AS a, roofline_fraction AS f "
              "FROM layer_summary WHERE phase = 'decode' AND path = 'a.x'")  # fmt: skip
    assert row == {"self_ns": 250, "bound": None, "a": None, "f": None}


def test_bottlenecks_come_in_the_order_of_what_they_would_save(filled: DuckDBStore) -> None:
    """a.x and "a" would save 50 ns each, the model 30, a.y 20."""
    rows = filled.query("SELECT rank, path, saving_ns FROM bottlenecks WHERE phase = 'decode' ORDER BY rank")
    assert [(r["rank"], r["path"], round(r["saving_ns"])) for r in rows.read_all().to_pylist()] == [
        (1, "a", 50), (2, "a.x", 50), (3, "", 30), (4, "a.y", 20),
    ]  # fmt: skip


def test_roofline_points_are_model_roles_and_layers(filled: DuckDBStore) -> None:
    """The role's point is the sum of its layers', the model's is the whole step's."""
    rows = filled.query(
        "SELECT level, name, flops, bytes, time_ns FROM roofline_points WHERE phase = 'decode' ORDER BY ALL"
    ).read_all()
    assert [tuple(r.values()) for r in rows.to_pylist()] == [
        ("layer", "a.x", 200, 50, 250), ("layer", "a.y", 10, 80, 100), ("model", "tiny", 210, 130, 400),
        ("role", "mlp", 210, 130, 350),
    ]  # fmt: skip


def test_a_run_that_has_not_finished_is_in_the_summary(store: DuckDBStore) -> None:
    """A run without a step yet has its row, with NULL where nothing is known."""
    running = {k: v for k, v in RUN.items() if k != "energy_j"} | {
        "status": "running",
        "started_at": datetime.now(UTC),
    }
    store.append(Append({"runs": table_of("runs", [running])})).result()
    row = one(store, "SELECT status, tokens_per_s, layer_time_coverage FROM run_summary")
    assert row == {"status": "running", "tokens_per_s": None, "layer_time_coverage": None}


def test_the_fleet_shows_the_latest_reading(filled: DuckDBStore) -> None:
    """Of the last hour's readings the newest is shown; a gauge the device does not give stays NULL."""
    now = datetime.now(UTC)
    readings: list[dict[str, Any]] = [
        {"device_id": "d", "read_at": now - timedelta(seconds=ago), "utilization": utilization}
        for ago, utilization in ((7200, 0.9), (5, 0.5), (9, 0.1))
    ]
    readings[2]["temperature_c"] = 40.0  # and no longer there in the newest
    filled.append(Append({"readings": table_of("readings", readings)})).result()
    row = one(filled, "SELECT utilization, temperature_c, power_w, runs, is_online FROM fleet_status")
    assert row == {
        "utilization": 0.5, "temperature_c": None, "power_w": None, "runs": 1, "is_online": None,
    }  # fmt: skip


def test_the_fleet_lists_no_device_that_runs_nothing(filled: DuckDBStore) -> None:
    """`meta`, on which models are only counted, is no device, and a host with nothing else is not listed."""
    device = {"kind": "cpu", "name": "meta", "backend": "meta", "device_index": 0}
    hosts = [{"host_id": "laptop", "hostname": "two"}, {"host_id": "new", "hostname": "three"}]
    devices = [device | {"device_id": f"{host}/meta", "host_id": host} for host in ("h", "laptop")]
    filled.append(
        Append({"hosts": table_of("hosts", hosts), "devices": table_of("devices", devices)})
    ).result()
    rows = (
        filled.query("SELECT hostname, device_name FROM fleet_status ORDER BY hostname")
        .read_all()
        .to_pylist()
    )
    assert rows == [
        {"hostname": "one", "device_name": "chip"}, {"hostname": "three", "device_name": None},
    ]  # fmt: skip
