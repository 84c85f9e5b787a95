"""Figures are kept when a run ends, and no view can tell: answers do not depend on the order of rows."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.support import filled_copy, laid

from roofleet_agent.rows import table_of
from roofleet_collector.store import Append, DuckDBStore
from roofleet_collector.store.contract import Seen
from roofleet_collector.store.schema import FIGURE_VIEWS, VIEWS
from roofleet_proto.records import RunChange

AT = datetime(2026, 1, 1, tzinfo=UTC)
LAYERS = ("", "a", "a.x", "b")
Rows = dict[str, list[dict[str, Any]]]

KINDS: dict[str, dict[str, Any]] = {
    "measured": {"timer_outside_ns": 10.5, "timer_inside_ns": 5.25},
    "again": {"other_load": 0.02},
    "eight": {"variant": "int8-dynamic"},
    "watched": {"engine": "watch"},
    "failed": {"status": "failed", "error": "out of memory"},
    "counted": {"status": "analyzed"},
    "one-of-turns": {"turns_id": "t"},
    "other-of-turns": {"turns_id": "t", "variant": "pruned"},
}


def rows_of(run_id: str, **more: Any) -> Rows:
    """The rows of a run: two phases, layers in two groups, ops of several dtypes, some without a formula."""
    any_of = random.Random(run_id)
    run = {
        "run_id": run_id, "host_id": "h", "device_id": "d", "model_id": "m", "status": "done",
        "started_at": AT,
        "dtype": "fp32", "variant": "base", "weights": "random", "engine": "test", "batch_size": 2,
        "prompt_tokens": 10, "new_tokens": 5, "logits": "last", "iterations": 8, "warmup": 1, "threads": 2,
        "torch_version": "2.9", "other_load": 0.0, **more,
    }  # fmt: skip
    rows: Rows = {"layers": [], "ops": [], "op_costs": [], "op_times": [], "layer_memory": [], "steps": [],
                  "spans": [], "runs": [run]}  # fmt: skip
    for number, path in enumerate(LAYERS):
        rows["layers"].append({
            "run_id": run_id, "path": path, "parent_path": path.rpartition(".")[0] if path else None,
            "layer_index": number, "depth": 0, "module_type": "L", "role": "mlp" if number % 2 else "norm",
            "is_leaf": path in ("a.x", "b"), "parameters": 1, "parameter_bytes": 4,
        })  # fmt: skip
    for phase, base in (("prefill", 400_000), ("decode", 200_000)):
        at = {"run_id": run_id, "phase": phase}
        for path in ("a.x", "b", "not.in.the.tree"):
            for dtype in ("fp32", "bf16", "int64"):
                index = len(rows["ops"])
                known = any_of.random() > 0.2
                rows["ops"].append(at | {
                    "op_index": index, "path": path, "op": any_of.choice(["aten.mm", "aten.grouped_mm"]),
                    "inputs": [], "outputs": [], "is_view": False,
                    "attributes": '{"repeat": 3}' if index % 5 == 0 else None,
                })  # fmt: skip
                flops = any_of.randrange(90_000) if dtype != "int64" else 0
                cost = {"matmul_flops": flops, "causal_flops": 900, "other_flops": 70, "kv_write_bytes": 7,
                        "weight_bytes": any_of.randrange(3_000), "activation_bytes": 4_000, "dtype": dtype,
                        "kv_read_bytes": any_of.randrange(500)}  # fmt: skip
                rows["op_costs"].append(at | {"op_index": index, "path": path, "is_known": known,
                                              "formula_version": 99} | (cost if known else {}))  # fmt: skip
        if run["status"] == "analyzed":
            continue
        rows["op_times"].append(
            at | {"path": "b", "op": "aten.mm", "calls": 2, "duration_ns": 80, "busy_ns": 9}
        )
        for path in LAYERS:
            memory = {"enter_bytes": 1, "exit_bytes": 2, "peak_bytes": any_of.randrange(9, 99)}
            rows["layer_memory"].append(at | memory | {"path": path, "allocated_bytes": 5})
        for iteration in range(8):
            for index in range(8):
                step = at | {"iteration": iteration, "step_index": index}
                timed = index % 2 == 1
                rows["steps"].append(step | {
                    "pass": "timed" if timed else "bare", "is_warmup": iteration == 0, "start_ns": 0,
                    "duration_ns": round(base * (1 + 0.004 * any_of.random() + 0.02 * timed)), "tokens": 1,
                    "cache_tokens": index, "layer_group": index // 2 % 2 if timed else None,
                })  # fmt: skip
                for number, path in enumerate(LAYERS if timed and iteration else ()):
                    own = None if index == 3 and path == "" else round(base * any_of.uniform(0.2, 0.25))
                    rows["spans"].append(step | {
                        "path": path, "start_ns": 10 * number, "duration_ns": base // 2 - 10 * number,
                        "self_ns": own,
                        "inner_calls": number % 2,
                    })  # fmt: skip
    return {table: listed for table, listed in rows.items() if listed}


def put(store: DuckDBStore, **tables: list[dict[str, Any]]) -> None:
    """Appends rows to tables."""
    store.append(Append({name: table_of(name, rows) for name, rows in tables.items()})).result()


def begin(store: DuckDBStore) -> None:
    """A host, a device with roofs of two dtypes, of memory and of caches, and a model."""
    put(
        store,
        hosts=[{"host_id": "h", "hostname": "one"}],
        devices=[{"device_id": "d", "host_id": "h", "kind": "cpu", "name": "chip", "backend": "cpu",
                  "device_index": 0, "memory_bytes": 10**9}],
        models=[{"model_id": "m", "name": "tiny", "origin": "catalog", "architecture": "T",
                 "task": "generate", "parameters": 5}],
        roofs=[
            {"roof_id": f"{kind}{dtype}{level}", "device_id": "d", "kind": kind, "dtype": dtype,
             "memory_level": level, "flops_per_s": per_s if dtype else None,
             "bytes_per_s": None if dtype else per_s, "size_bytes": size, "source_kind": "measured",
             "source": "by hand", "measured_at": AT, "threads": 2, "torch_version": "2.9"}
            for kind, dtype, level, per_s, size in (
                ("compute", "fp32", None, 1e9, None), ("compute", "bf16", None, 4e9, None),
                ("memory", None, "dram", 1e9, 1_000), ("memory", None, "cache", 5e9, 10))
        ],
    )  # fmt: skip


def answers(store: DuckDBStore) -> dict[str, list[dict[str, Any]]]:
    """What every view says of everything."""
    return {view: store.query(f"SELECT * FROM {view} ORDER BY ALL").read_all().to_pylist() for view in VIEWS}


@pytest.fixture(scope="module")
def kinds_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind, whose rows came before the word that it is done."""
    store = DuckDBStore(laid(tmp_path_factory.mktemp("kinds")))
    begin(store)
    each = [rows_of(run_id, **more) for run_id, more in KINDS.items()]
    put(store, **{table: [row for rows in each for row in rows.get(table, ())] for table in each[0]})
    store.close()
    return store.path.parent


@pytest.fixture
def kinds(kinds_once: Path, tmp_path: Path) -> Iterator[DuckDBStore]:
    """A store with those runs for each test."""
    with filled_copy(kinds_once, tmp_path / "data") as store:
        yield store


def test_views_answer_the_same_in_whatever_order_rows_came(kinds: DuckDBStore, tmp_path: Path) -> None:
    """Rows of all runs mixed, and the word that they are done before any other: every digit is the same."""
    other = DuckDBStore(laid(tmp_path / "other"))
    try:
        begin(other)
        each = [rows_of(run_id, **more) for run_id, more in reversed(KINDS.items())]
        put(other, runs=[row for rows in each for row in rows["runs"]])
        for table in ("spans", "op_costs", "layers", "op_times", "steps", "ops", "layer_memory"):
            put(other, **{table: [row for rows in each for row in rows.get(table, ())]})
        # what a run achieved is noted when it ends, and here the rows that tell it came later
        put(other, runs=[row for rows in each for row in rows["runs"]])
        expected, found = answers(kinds), answers(other)
    finally:
        other.close()
    for view in VIEWS:
        assert found[view] == expected[view], view
    assert all(
        expected[view] for view in ("roofline_points", "layer_comparison", "phase_repeats", "bottlenecks")
    )


def test_figures_that_are_of_older_formulas_or_missing_are_made_when_a_store_is_opened(
    kinds: DuckDBStore, tmp_path: Path
) -> None:
    """A store of an older Roofleet, or one whose collector was killed, answers as if nothing had been."""
    expected = answers(kinds)
    kinds.close()
    connection = duckdb.connect(str(kinds.path))
    connection.execute("UPDATE run_figures SET formula_version = 0, iterations = 77")
    connection.execute("UPDATE layer_figures SET self_ns = 77")
    connection.execute("DELETE FROM phase_figures WHERE run_id = 'again'")
    connection.execute("DELETE FROM roofs_in_force")
    connection.close()
    again = DuckDBStore(kinds.path.parent)
    try:
        assert answers(again) == expected
        assert again.query("SELECT * FROM unsettled").read_all().num_rows == 0
    finally:
        again.close()


def test_what_comes_of_a_run_that_goes_on_is_seen_when_the_store_settles(store: DuckDBStore) -> None:
    """Its costs are there before it was measured, as far as its ops came."""
    begin(store)
    rows = rows_of("r", status="running") | {"steps": [], "spans": [], "op_times": []}
    put(store, **rows)
    for settled in store.settle():
        settled.result()
    found = store.query("SELECT steps, matmul_flops > 0 AS f FROM phase_summary").read_all().to_pylist()
    assert found == [{"steps": None, "f": True}] * 2
    assert not store.settle()


def test_a_deleted_run_leaves_no_figures(kinds: DuckDBStore) -> None:
    """Nor roofs that it was seen at, nor what another run says of taking turns with it."""
    kinds.delete_runs(list(KINDS)).result()
    for table in (
        "run_figures",
        "phase_figures",
        "layer_figures",
        "turn_figures",
        "unsettled",
        "roofs_in_force",
    ):
        assert kinds.query(f"SELECT * FROM {table}").read_all().num_rows == 0, table


def test_views_of_runs_read_no_row_of_steps_spans_or_ops(kinds: DuckDBStore) -> None:
    """They cost what their answer costs, since what they need was worked out when the run ended."""
    for view in sorted({*FIGURE_VIEWS} - {"memory_summary", "fleet_status"}):
        plan = (
            kinds.query(f"EXPLAIN (FORMAT json) SELECT * FROM {view}").read_all()["explain_value"][0].as_py()
        )
        read = {table.split(".")[-1] for table in re.findall(r'"Table": "([^"]+)"', plan)}
        assert read.isdisjoint({"spans", "steps", "ops", "op_costs", "op_times", "layers"}), view
        assert any(table.endswith("_figures") for table in read), view


def test_a_reading_from_the_future_freezes_no_card(store: DuckDBStore) -> None:
    """A clock a day ahead hides nothing that is read after it; of one moment what came last is shown."""
    begin(store)
    now = datetime.now(UTC)
    put(store, readings=[{"device_id": "d", "read_at": now + timedelta(days=1), "utilization": 0.9}])
    put(store, readings=[{"device_id": "d", "read_at": now, "utilization": 0.1}])
    put(store, readings=[{"device_id": "d", "read_at": now, "utilization": 0.2}])
    found = store.query("SELECT utilization, reading_at FROM fleet_status").read_all().to_pylist()
    assert found == [{"utilization": 0.2, "reading_at": now}]


@pytest.mark.parametrize(
    ("began_h", "seen_h", "status"),
    [(0.5, 0.5, "running"), (3, 0.01, "running"), (3, 2, "lost"), (3, None, "lost"), (30, 0.01, "lost")],
)
def test_a_run_whose_process_is_gone_is_lost(
    store: DuckDBStore, began_h: float, seen_h: float | None, status: str
) -> None:
    """After an hour without a word of its host, or after a day; and no longer when it is heard of again."""
    begin(store)
    now = datetime.now(UTC)
    put(store, **rows_of("r", status="running", started_at=now - timedelta(hours=began_h)))
    if seen_h is not None:
        store.touch_hosts({"h": Seen(now - timedelta(hours=seen_h))}).result()
    asked = "SELECT status FROM run_summary"
    assert store.query(asked).read_all().to_pylist() == [{"status": status}]
    put(store, runs=rows_of("r")["runs"])
    assert store.query(asked).read_all().to_pylist() == [{"status": "done"}]


MOST, LEAST = 2**63 - 1, -(2**63)
LATE = 8_000_000_000_000_000_000
"""A moment of the year 255,000, in microseconds."""
POISON: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"a step of {ns} ns": ("steps", {"duration_ns": ns, "start_ns": ns}) for ns in (0, -5, MOST, LEAST)},
    "a step out of any order": ("steps", {"step_index": MOST, "cache_tokens": LEAST, "tokens": MOST}),
    **{f"a span of {ns} ns": ("spans", {"duration_ns": ns, "self_ns": ns, "start_ns": ns})
       for ns in (-5, MOST, LEAST)},
    "a span around everything": ("spans", {"inner_calls": MOST, "self_ns": LEAST}),
    "work beyond counting": ("op_costs", {"matmul_flops": MOST, "other_flops": MOST, "weight_bytes": MOST,
                                          "activation_bytes": MOST, "kv_read_bytes": MOST}),
    "work below nothing": ("op_costs", {"matmul_flops": -5, "activation_bytes": LEAST, "kv_write_bytes": -1}),
    **{f"an op with {text}": ("ops", {"attributes": text})
       for text in ('{"repeat"', '{"repeat": 0}', '{"repeat": 1e99}')},
    "op times beyond counting": ("op_times", {"duration_ns": MOST, "busy_ns": MOST, "calls": LEAST}),
    "memory beyond counting": ("layer_memory", {"peak_bytes": MOST, "enter_bytes": LEAST}),
    "a workload beyond counting": ("runs", {"batch_size": MOST, "prompt_tokens": MOST, "new_tokens": LEAST,
                                            "energy_iterations": MOST, "energy_j": float("inf"),
                                            "parameter_bytes": -1}),
    "a run of a far year": ("runs", {"started_at": LATE, "finished_at": LATE}),
    "a run of no number": ("runs", dict.fromkeys(("timer_outside_ns", "timer_inside_ns", "other_load",
                                                  "clock_low_hz", "clock_high_hz"), float("nan"))),
}  # fmt: skip


def poisoned(store: DuckDBStore) -> None:
    """A run for each poisonous row, which is stored as if nobody had looked at it; and some of no run."""
    begin(store)
    everything: Rows = {}
    for name, (table, bad) in POISON.items():
        rows = rows_of(name)
        rows[table][-2 if table == "steps" else -1] |= bad  # the last step is a timed one
        for each, listed in rows.items():
            everything.setdefault(each, []).extend(listed)
    put(store, **everything)
    for number, per_s in enumerate((0.0, -1.0, float("nan"))):
        bad = {"roof_id": f"bad {number}", "device_id": "d", "kind": "compute", "dtype": "fp32"}
        put(store, roofs=[bad | {"flops_per_s": per_s, "source_kind": "measured", "source": "",
                                 "measured_at": LATE}])  # fmt: skip
    axes = ["[]", "3", '{"batch_size": 3}', "{", "{}", '{"batch_size": [1]}']
    put(
        store,
        sweeps=[{"sweep_id": text, "model_name": "m", "axes": text, "points": LEAST, "started_at": LATE}
                for text in axes],
        readings=[{"device_id": "d", "read_at": LATE, "utilization": float("inf"),
                   "memory_used_bytes": LEAST}],
        hosts=[{"host_id": "far", "hostname": "far", "last_seen_at": LATE}],
        devices=[{"device_id": "far", "host_id": "far", "kind": "cpu", "name": "?", "backend": "?",
                  "device_index": 0, "memory_bytes": 0, "unavailable": "nonsense"}],
    )  # fmt: skip


def test_no_row_keeps_a_view_from_answering(store: DuckDBStore) -> None:
    """What makes no sense is left out or NULL, in the row it stands in, and the others are as they were."""
    poisoned(store)
    whole = answers(store)
    for name in POISON:
        said = {view: [row for row in rows if row.get("run_id") == name] for view, rows in whole.items()}
        assert len(said["run_summary"]) == 1, name
        assert len(said["phase_summary"]) == 2, name
        assert len(said["layer_summary"]) == 8, name
    found = {row["run_id"]: row for row in whole["run_summary"]}
    assert found["a step of 0 ns"]["time_per_output_token_ns"] is not None
    assert found["a run of a far year"]["started_at"] is None
    assert found["a workload beyond counting"]["tokens_per_s"] is None


def test_labels_do_not_touch_figures(kinds: DuckDBStore) -> None:
    """A name is joined by the views, and nothing is worked out anew."""
    kinds.change_run(RunChange("measured", name="first")).result()
    found = kinds.query("SELECT run_name FROM run_summary WHERE run_id = 'measured'").read_all().to_pylist()
    assert found == [{"run_name": "first"}]
    assert not kinds.settle()
