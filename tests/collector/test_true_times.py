"""The views of true times: what timing costs is taken off, groups add up, noise is said."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.collector.test_views import RUN, _cost, _layer, _op, _span, _step, filled, filled_once, one
from tests.support import filled_copy, laid

from roofleet_agent.rows import table_of
from roofleet_collector.store import Append, DuckDBStore
from roofleet_collector.store.figures import settle
from roofleet_collector.store.schema import migrate, view_sql

__all__ = ["filled", "filled_once"]

TINY = {"model_id": "m", "name": "tiny", "origin": "catalog", "architecture": "Tiny", "task": "generate",
        "parameters": 5}  # fmt: skip


def put(store: DuckDBStore, **tables: list[dict[str, Any]]) -> None:
    """Appends rows to tables."""
    store.append(Append({name: table_of(name, rows) for name, rows in tables.items()})).result()


def rows_of(store: DuckDBStore, sql: str) -> list[dict[str, Any]]:
    """All rows of a query."""
    listed: list[dict[str, Any]] = store.query(sql).read_all().to_pylist()
    return listed


@pytest.fixture(scope="module")
def nested_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of "" around "a" around "a.x" and "a.y"; timing a call costs 10 ns around it and 5 inside."""
    store = DuckDBStore(laid(tmp_path_factory.mktemp("nested")))
    put(
        store,
        runs=[RUN | {"timer_outside_ns": 10.0, "timer_inside_ns": 5.0}],
        layers=[_layer("", 0), _layer("a", 1), _layer("a.x", 2), _layer("a.y", 3)],
        steps=[_step("bare", "decode", 0, 350), _step("timed", "decode", 0, 440)],
        spans=[
            _span("", 430, 30) | {"start_ns": 0, "inner_calls": 1},
            _span("a", 400, 50) | {"start_ns": 10, "inner_calls": 2},
            _span("a.x", 250, 250) | {"start_ns": 20, "inner_calls": 0},
            _span("a.y", 100, 100) | {"start_ns": 280, "inner_calls": 0},
        ],
    )
    store.close()
    return store.path.parent


@pytest.fixture
def nested(nested_once: Path, tmp_path: Path) -> Iterator[DuckDBStore]:
    """A store with that step for each test."""
    with filled_copy(nested_once, tmp_path / "data") as store:
        yield store


@pytest.mark.parametrize(
    ("path", "self_ns", "timer_ns", "duration_ns"),
    [
        ("a.x", 245, 5, 245),  # 250 - 5
        ("a.y", 95, 5, 95),  # 100 - 5
        ("a", 25, 25, 365),  # 50 - 5 - 2 x 10; 400 - 5 - 2 x (10 + 5)
        ("", 15, 15, 380),  # 30 - 5 - 1 x 10; 430 - 5 - 3 x (10 + 5)
    ],
)
def test_what_timing_costs_is_taken_off_and_shown(
    nested: DuckDBStore, path: str, self_ns: int, timer_ns: int, duration_ns: int
) -> None:
    """A layer's own call costs it the inside, each layer inside it the rest; a column says how much."""
    row = one(nested, f"SELECT self_ns, timer_ns, p50_ns FROM layer_summary WHERE path = '{path}'")
    assert row == {"self_ns": self_ns, "timer_ns": timer_ns, "p50_ns": duration_ns}


def test_the_true_layers_and_the_timers_cost_are_the_raw_step(nested: DuckDBStore) -> None:
    """15 + 25 + 245 + 95 own and 15 + 25 + 5 + 5 of the timer are the model's raw 430."""
    assert one(nested, "SELECT sum(self_ns) + sum(timer_ns) AS raw FROM layer_steps") == {"raw": 430}


def test_a_time_is_never_below_zero(nested: DuckDBStore) -> None:
    """A layer of 3 ns has none of its own left, and what was taken off are those 3."""
    put(nested, spans=[_span("a.y", 3, 3, 1) | {"inner_calls": 0}],
        steps=[_step("timed", "decode", 1, 9)])  # fmt: skip
    row = one(nested, "SELECT duration_ns, self_ns, timer_ns FROM layer_steps WHERE step_index = 1")
    assert row == {"duration_ns": 0, "self_ns": 0, "timer_ns": 3}


def test_rows_of_older_agents_are_taken_as_they_are(filled: DuckDBStore) -> None:
    """Without a calibration nothing is taken off, and what was timed together is one group."""
    found = rows_of(filled, "SELECT DISTINCT timer_ns, layer_group FROM layer_steps")
    assert found == [{"timer_ns": 0, "layer_group": 0}]


def test_the_groups_of_layers_add_up_to_the_step(store: DuckDBStore) -> None:
    """350 of 400 ns by the group of a.x and a.y, 50 of 400 by the group of "a": 0.875 + 0.125 = 1."""
    put(
        store,
        runs=[RUN],
        layers=[_layer("", 0), _layer("a", 1), _layer("a.x", 2), _layer("a.y", 3)],
        steps=[
            *(_step("bare", "decode", i, 400) for i in range(6)),
            *(_step("timed", "decode", i, 410) | {"layer_group": i % 2} for i in range(6)),
        ],
        spans=[
            *(s for i in (0, 2) for s in (_span("a", 400, None, i), _span("a.x", 250, 250, i),
                                          _span("a.y", 100, 100, i))),
            *(s for i in (1, 3) for s in (_span("", 410, 10, i), _span("a", 400, 50, i))),
        ],
    )  # fmt: skip
    row = one(store, "SELECT layer_time_coverage AS c, instrumentation_overhead AS o FROM phase_summary")
    assert row["c"] == pytest.approx(1.0)
    assert row["o"] == pytest.approx(410 / 400)
    a = one(store, "SELECT self_ns, p50_ns, calls, share_of_phase FROM layer_summary WHERE path = 'a'")
    assert a == {"self_ns": 50, "p50_ns": 400, "calls": 1, "share_of_phase": 50 / 410}


def _iterations(*times: int, run: str = "r", first: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [
        _step("bare", "decode", 0, ns, iteration=first + i) | {"run_id": run} | more
        for i, ns in enumerate(times)
    ]


def test_an_interval_needs_three_iterations(store: DuckDBStore) -> None:
    """With two there is a typical step and no interval; with three equal ones it has no width."""
    put(store, runs=[RUN], steps=_iterations(400, 400))
    asked = "SELECT bare_typical_ns AS t, bare_low_ns AS low, bare_high_ns AS high, noise FROM phase_summary"
    row = one(store, asked)
    assert row["t"] == pytest.approx(400)
    assert (row["low"], row["high"], row["noise"]) == (None, None, None)
    put(store, steps=_iterations(400, first=3))
    assert (one(store, asked)["low"], one(store, asked)["high"]) == pytest.approx((400, 400))


def test_steps_of_one_iteration_count_once(store: DuckDBStore) -> None:
    """A hundred steps in two iterations are two observations, too few for an interval."""
    put(store, runs=[RUN], steps=[_step("bare", "decode", s, 400 + s, i) for s in range(50) for i in (1, 2)])
    assert one(store, "SELECT steps, bare_low_ns FROM phase_summary") == {"steps": 100, "bare_low_ns": None}


@pytest.mark.parametrize(
    ("times", "conditions", "says"),
    [
        ((400, 401, 402), {}, None),
        ((400, 401, 402), {"other_load": 0.1, "throttled": False, "clock_low_hz": 9e8, "clock_high_hz": 1e9},
         None),
        # logarithms 0, ln 1.1, 2 ln 1.1: 4.303 x 0.09531 / sqrt 3 = 0.2368, e^0.2368 = 1.267
        ((1000, 1100, 1210), {}, "the interval is 26.7 % wide either way"),
        ((400, 401, 402), {"other_load": 0.25}, "other work took 25 % of the processors"),
        ((400, 401, 402), {"throttled": True}, "heat or power held the device back"),
        ((400, 401, 402), {"clock_low_hz": 2.6e9, "clock_high_hz": 3.5e9},
         "the clock moved between 2.60 and 3.50 GHz"),
        ((400, 401, 402), {"throttled": True, "other_load": 0.5},
         "other work took 50 % of the processors; heat or power held the device back"),
    ],
)  # fmt: skip
def test_a_noisy_machine_is_said_with_the_figures(
    store: DuckDBStore, times: tuple[int, ...], conditions: dict[str, Any], says: str | None
) -> None:
    """The reasons stand in the phase and the run, joined; a quiet run has none."""
    put(store, runs=[RUN | conditions], steps=_iterations(*times))
    assert one(store, "SELECT noise FROM phase_summary")["noise"] == says
    in_run = one(store, "SELECT noise FROM run_summary")["noise"]
    assert in_run == (f"decode: {says}" if says and "interval" in says else says)


def test_time_per_token_by_context_and_its_growth(store: DuckDBStore) -> None:
    """400 ns and 2 more for each cached token, in two iterations: a slope of 2."""
    put(store, runs=[RUN], steps=[
        _step("bare", "decode", s, 400 + 2 * s, i) | {"cache_tokens": 10 + s}
        for s in range(5) for i in (1, 2)
    ])  # fmt: skip
    found = rows_of(store, "SELECT cache_tokens, steps, p50_ns FROM decode_by_context ORDER BY cache_tokens")
    assert [tuple(row.values()) for row in found] == [(10 + s, 2, 400 + 2 * s) for s in range(5)]
    row = one(store, "SELECT * FROM run_summary")
    assert row["time_per_cached_token_ns"] == pytest.approx(2.0)
    assert row["time_per_output_token_ns"] == 404
    # ten steps 400, 400, 402, ... 408: the 95th percentile lies beyond the last but one
    assert (row["time_per_output_token_p5_ns"], row["time_per_output_token_p95_ns"]) == (400, 408)


def test_growth_is_not_told_outside_its_certainty(store: DuckDBStore) -> None:
    """Eight lengths whose times jump by half up and down have a slope and no certainty of it; a machine twice
    as slow in every second iteration changes nothing about a slope that is there."""
    wild = [100, 150, 90, 160, 80, 140, 95, 130]
    put(
        store,
        runs=[RUN],
        steps=[_step("bare", "decode", i, ns) | {"cache_tokens": i} for i, ns in enumerate(wild)],
    )
    asked = "SELECT time_per_cached_token_ns AS g FROM run_summary WHERE run_id = "
    assert one(store, f"{asked} 'r'") == {"g": None}
    steady = [
        _step("bare", "decode", i, (1_000 + 10 * i) * speed, iteration=number)
        | {"cache_tokens": i, "run_id": "steady"}
        for number, speed in enumerate((1, 2, 1, 2), 1) for i in range(number % 2, 8, 2)
    ]  # fmt: skip
    put(store, runs=[RUN | {"run_id": "steady"}], steps=steady)
    slope = one(store, f"{asked} 'steady'")["g"]
    assert 0 < slope < 40


def test_two_lengths_have_no_growth(filled: DuckDBStore) -> None:
    """A line through fewer than three lengths says nothing."""
    assert one(filled, "SELECT time_per_cached_token_ns AS g FROM run_summary") == {"g": None}


def test_an_analyzed_run_has_costs_and_no_times(store: DuckDBStore) -> None:
    """What was only counted is in every view with its work, and each time and rate is NULL."""
    put(store, runs=[{k: v for k, v in RUN.items() if k != "energy_j"} | {"status": "analyzed"}],
        layers=[_layer("", 0), _layer("a", 1)], ops=[_op(0, "a")], op_costs=[_cost(0, "a", 190, 10, 50)],
        models=[TINY])  # fmt: skip
    run = one(
        store, "SELECT status, tokens_per_s, time_per_output_token_ns, noise, model_name FROM run_summary"
    )
    assert run == {"status": "analyzed", "tokens_per_s": None, "time_per_output_token_ns": None,
                   "noise": None, "model_name": "tiny"}  # fmt: skip
    phase = one(store, "SELECT steps, tokens_per_step, matmul_flops, bare_p50_ns, noise FROM phase_summary")
    assert phase == {"steps": None, "tokens_per_step": 2, "matmul_flops": 190, "bare_p50_ns": None,
                     "noise": None}  # fmt: skip
    layers = rows_of(store, "SELECT path, matmul_flops, self_ns, bound FROM layer_summary ORDER BY path")
    assert layers == [
        {"path": "", "matmul_flops": None, "self_ns": None, "bound": None},
        {"path": "a", "matmul_flops": 190, "self_ns": None, "bound": None},
    ]
    assert one(store, "SELECT calls, share_of_time FROM op_summary") == {"calls": 1, "share_of_time": None}
    assert rows_of(store, "SELECT * FROM bottlenecks") == []


def _op_time(path: str, op: str, ns: int, busy: int | None) -> dict[str, Any]:
    return {"run_id": "r", "phase": "decode", "path": path, "op": op, "calls": 2, "duration_ns": ns,
            "busy_ns": busy, "kernels": None if busy is None else 2}  # fmt: skip


def test_a_layer_that_leaves_the_device_idle_is_overhead(filled: DuckDBStore) -> None:
    """a.x takes 250 ns: with kernels that run 120 of them it waits for launches, with 130 it computes."""
    asked = "SELECT busy_ns, bound FROM layer_summary WHERE phase = 'decode' AND path = 'a.x'"
    put(filled, op_times=[_op_time("a.x", "aten.linear", 200, 120)])
    assert one(filled, asked) == {"busy_ns": 120, "bound": "overhead"}
    put(filled, op_times=[_op_time("a.x", "aten.mul", 20, 10)])
    assert one(filled, asked) == {"busy_ns": 130, "bound": "compute"}
    # of the whole step's 400 ns the kernels run 130
    phase = one(filled, "SELECT busy_ns, bound FROM phase_summary WHERE phase = 'decode'")
    assert phase == {"busy_ns": 130, "bound": "overhead"}
    points = rows_of(
        filled, "SELECT level, bound FROM roofline_points WHERE phase = 'decode' AND name <> 'a.y'"
    )
    assert {(p["level"], p["bound"]) for p in points} == {
        ("model", "overhead"), ("role", "overhead"), ("layer", "compute"),
    }  # fmt: skip


def test_ops_have_their_share_of_the_time(filled: DuckDBStore) -> None:
    """On a CPU of the time inside ops, 300 + 100; where the device tells, of its kernels' time, 30 + 90."""
    unknown = _op(7, "a.x") | {"op": "mine.kernel"}
    put(filled, ops=[unknown], op_costs=[_cost(7, "a.x", 0, 0, 0, known=False)],
        op_times=[_op_time("a.x", "mine.kernel", 300, None), _op_time("a.x", "aten.linear", 60, None),
                  _op_time("a.y", "aten.linear", 40, None)])  # fmt: skip
    found = rows_of(
        filled, "SELECT op, calls, is_known, share_of_time, matmul_flops FROM op_summary ORDER BY op"
    )
    assert [tuple(row.values()) for row in found] == [
        ("aten.linear", 4, False, 0.25, 200), ("mine.kernel", 2, False, 0.75, None),
    ]  # fmt: skip
    assert {row["op"]: row["share_of_time"] for row in rows_of(filled, "SELECT * FROM unknown_ops")} == {
        "aten.linear": 0.25, "mine.kernel": 0.75,
    }  # fmt: skip


def test_kernels_time_counts_where_the_device_tells(filled: DuckDBStore) -> None:
    """30 of 120 ns of kernels are a quarter, whatever the host took for them."""
    put(filled, op_times=[_op_time("a.x", "aten.mm", 900, 30), _op_time("a.y", "aten.add", 100, 90)])
    found = rows_of(filled, "SELECT op, share_of_time FROM op_summary WHERE busy_ns > 0 ORDER BY op")
    assert [tuple(row.values()) for row in found] == [("aten.add", 0.75), ("aten.mm", 0.25)]


def test_cache_read_and_written_are_told_apart(filled: DuckDBStore) -> None:
    """30 bytes read and 4 written are 34 of cache, in the layer and in the phase."""
    cost = _cost(9, "a", 0, 0, 0) | {"kv_read_bytes": 30, "kv_write_bytes": 4}
    put(filled, ops=[_op(9, "a")], op_costs=[cost])
    for view in (
        "phase_summary WHERE phase = 'decode'",
        "layer_summary WHERE phase = 'decode' AND path = 'a'",
    ):
        row = one(filled, f"SELECT kv_read_bytes, kv_write_bytes, kv_bytes FROM {view}")
        assert row == {"kv_read_bytes": 30, "kv_write_bytes": 4, "kv_bytes": 34}


def test_memory_has_the_place_of_the_peak(filled: DuckDBStore) -> None:
    """A phase's memory comes with the leaf that adds most while it runs, 70 - 20 bytes."""

    def memory(path: str, enter: int, peak: int) -> dict[str, Any]:
        return {"run_id": "r", "phase": "decode", "path": path, "enter_bytes": enter, "exit_bytes": enter,
                "peak_bytes": peak, "allocated_bytes": 0}  # fmt: skip

    put(filled, layer_memory=[memory("", 0, 90), memory("a.x", 20, 70), memory("a.y", 50, 90)],
        phase_memory=[{"run_id": "r", "phase": "decode", "weight_bytes": 100, "kv_bytes": 40,
                       "activation_bytes": 50, "peak_bytes": 190, "peak_path": "a.y",
                       "peak_op": "aten.mm"}])  # fmt: skip
    row = one(filled, "SELECT peak_bytes, peak_path, peak_op, workspace_bytes, device_share, largest_path, "
              "largest_bytes FROM memory_summary")  # fmt: skip
    assert row == {"peak_bytes": 190, "peak_path": "a.y", "peak_op": "aten.mm", "workspace_bytes": None,
                   "device_share": None, "largest_path": "a.x", "largest_bytes": 50}  # fmt: skip


@pytest.fixture
def two_runs(filled: DuckDBStore) -> DuckDBStore:
    """Beside run "r" a run "s" that decodes in half the time, with a layer "b" instead of "a.y"."""
    layers = [_layer(path, i) | {"run_id": "s"} for i, path in enumerate(("", "a", "a.x", "b"))]
    put(
        filled,
        runs=[RUN | {"run_id": "s", "variant": "int8-dynamic"},
              RUN | {"run_id": "other", "model_id": "m2"}],
        models=[{"model_id": "m2", "name": "another", "origin": "catalog", "architecture": "T",
                 "task": "generate", "parameters": 5}],
        layers=layers,
        steps=[*_iterations(400, 402, first=2),
               *_iterations(199, 200, 201, run="s")],
        spans=[
            *(_span("a.x", 250, 250) | {"iteration": i} for i in (2, 3)),
            *(_span(path, 125, 125) | {"run_id": "s", "iteration": i} for path in ("a.x", "b")
              for i in (1, 2, 3)),
        ],
    )  # fmt: skip
    return filled


def test_phases_of_two_runs_are_compared(two_runs: DuckDBStore) -> None:
    """400 against 200 ns is half, surely; a phase that only the baseline has is NULL on the other side."""
    found = rows_of(two_runs, "SELECT * FROM phase_comparison WHERE baseline_run_id = 'r' ORDER BY phase")
    assert [(row["run_id"], row["phase"]) for row in found] == [("s", "decode"), ("s", "prefill")]
    decode, prefill = found
    assert decode["ratio"] == pytest.approx(0.5, rel=0.01)
    assert decode["low"] < decode["ratio"] < decode["high"] < 0.52
    assert (decode["verdict"], decode["why"]) == ("faster", None)
    assert (decode["baseline_matmul_flops"], decode["matmul_flops"]) == (200, None)
    assert prefill["baseline_ns"] == pytest.approx(1000)
    assert (prefill["bare_ns"], prefill["ratio"], prefill["verdict"]) == (None, None, None)


def test_layers_of_two_runs_are_compared(two_runs: DuckDBStore) -> None:
    """a.x takes half; a layer of one run only is there with NULL on the other side and no verdict."""
    found = rows_of(
        two_runs,
        "SELECT path, baseline_ns, self_ns, ratio, verdict FROM layer_comparison "
        "WHERE baseline_run_id = 'r' AND run_id = 's' AND phase = 'decode' ORDER BY path",
    )
    by_path = {row["path"]: row for row in found}
    assert set(by_path) == {"", "a", "a.x", "a.y", "b"}
    assert by_path["a.x"]["ratio"] == pytest.approx(0.5)
    assert by_path["a.x"]["verdict"] == "faster"
    assert (by_path["a.y"]["self_ns"], by_path["a.y"]["verdict"]) == (None, None)
    assert (by_path["b"]["baseline_ns"], by_path["b"]["ratio"]) == (None, None)
    assert by_path["b"]["self_ns"] == pytest.approx(125)


def test_a_difference_that_repeats_have_too_is_unclear(two_runs: DuckDBStore) -> None:
    """A second start of "s" took 2.2 times as long: then a factor of 2 says nothing, in a layer either."""
    asked = "SELECT verdict, why FROM phase_comparison WHERE baseline_run_id = 'r' AND run_id = 's'"
    asked += " AND phase = 'decode'"
    again = RUN | {"run_id": "s2", "variant": "int8-dynamic"}
    put(two_runs, runs=[again], steps=_iterations(439, 440, 441, run="s2"))
    spread = one(
        two_runs, "SELECT repeats, spread FROM phase_repeats WHERE run_id = 's' AND phase = 'decode'"
    )
    assert spread == {"repeats": 2, "spread": pytest.approx(2.2, rel=1e-4)}
    why = "repeats of the same run can differ by 120.0 %"
    assert one(two_runs, asked) == {"verdict": "unclear", "why": why}
    layer = one(two_runs, asked.replace("phase_comparison", "layer_comparison") + " AND path = 'a.x'")
    # a layer may differ by 2.2^3 = 10.648
    assert layer == {"verdict": "unclear", "why": why.replace("120.0", "964.8")}
    # a repeat that was noisy says nothing about quiet ones
    put(two_runs, runs=[again | {"throttled": True}])
    assert one(two_runs, asked) == {"verdict": "faster", "why": None}


def test_only_the_very_same_thing_is_a_repeat(two_runs: DuckDBStore) -> None:
    """Another batch, dtype or variant is no repeat, however alike its time."""
    for name, change in (("t", {"batch_size": 3}), ("u", {"dtype": "bf16"}), ("v", {"attention": None})):
        put(two_runs, runs=[RUN | {"run_id": name, "variant": "int8-dynamic"} | change],
            steps=_iterations(300, 301, 302, run=name))  # fmt: skip
    found = one(two_runs, "SELECT repeats, spread FROM phase_repeats WHERE run_id = 's' AND phase = 'decode'")
    assert found == {"repeats": 1, "spread": None}


def test_runs_of_different_models_are_no_pair(two_runs: DuckDBStore) -> None:
    """Neither view pairs them, nor a run with itself."""
    for view in ("phase_comparison", "layer_comparison"):
        found = rows_of(two_runs, f"SELECT DISTINCT baseline_run_id AS a, run_id AS b FROM {view} ORDER BY a")
        assert found == [{"a": "r", "b": "s"}, {"a": "s", "b": "r"}]


def test_a_noisy_run_is_never_faster(two_runs: DuckDBStore) -> None:
    """Half the time is unclear where other work was on the machine, in phases and in layers."""
    put(two_runs, runs=[RUN | {"run_id": "s", "other_load": 0.3}])
    for view in ("phase_comparison", "layer_comparison"):
        found = rows_of(two_runs, f"SELECT verdict, why FROM {view} WHERE baseline_run_id = 'r' "
                        "AND run_id = 's' AND ratio IS NOT NULL")  # fmt: skip
        assert {row["verdict"] for row in found} == {"unclear"}
        assert {row["why"] for row in found} == {
            "the run is too noisy: other work took 30 % of the processors"
        }


def test_a_comparison_of_two_runs_reads_no_other() -> None:
    """Of fifty runs the big tables are read only where a row is one of the two: the engine's plan says so."""
    database = duckdb.connect()
    migrate(database)
    names = [f"run-{i}" for i in range(50)]
    paths = ["", *(f"h.{i}" for i in range(20))]
    rows = {
        "runs": [RUN | {"run_id": name} for name in names],
        "models": [TINY],
        "layers": [_layer(path, i) | {"run_id": name} for name in names for i, path in enumerate(paths)],
        "steps": [_step(kind, "decode", 0, 400, i) | {"run_id": name} for name in names
                  for kind in ("bare", "timed") for i in (1, 2, 3)],
        "spans": [_span(path, 10, 5) | {"run_id": name, "iteration": i, "start_ns": n} for name in names
                  for i in (1, 2, 3) for n, path in enumerate(paths)],
        "ops": [_op(0, "h.0") | {"run_id": name} for name in names],
        "op_costs": [_cost(0, "h.0", 190, 10, 50) | {"run_id": name} for name in names],
    }  # fmt: skip
    for table, listed in rows.items():
        database.register("arriving", table_of(table, listed))
        database.execute(f"INSERT INTO {table} SELECT * FROM arriving")
    settle(database, names)
    read: list[tuple[str, str]] = []

    def look(nodes: list[dict[str, Any]]) -> None:
        for node in nodes:
            if "Table" in node["extra_info"]:
                filters = str(node["extra_info"].get("Filters"))
                read.append((node["extra_info"]["Table"].split(".")[-1], filters))
            look(node["children"])

    for view, found in (("phase_comparison", 1), ("layer_comparison", len(paths))):
        asked = f"SELECT * FROM {view} WHERE baseline_run_id = 'run-7' AND run_id = 'run-9'"
        plan = database.execute(f"EXPLAIN (FORMAT json) {asked}").fetchone()
        assert plan is not None
        look(json.loads(plan[1]))
        assert len(database.execute(asked).fetchall()) == found
    big = [(table, filters) for table, filters in read if table == "layer_figures"]
    assert big
    assert [(table, filters) for table, filters in big if "run_id" not in filters] == []
    database.close()


@pytest.mark.slow
def test_a_figure_is_the_same_each_time_it_is_asked(store: DuckDBStore) -> None:
    """Sums of fractions depend on their order, and the engine's threads have none: the views give it one."""
    chance = random.Random(7)
    runs = [RUN | {"run_id": f"run-{n}", "timer_outside_ns": 0.3, "timer_inside_ns": 0.7} for n in range(9)]
    places = [(i, s) for i in range(10) for s in range(15)]
    steps = [
        _step(kind, "decode", s, chance.randint(3_000_000, 4_000_000), i)
        | {"run_id": run["run_id"], "cache_tokens": 64 + s, "is_warmup": False}
        for run in runs for kind in ("bare", "timed") for i, s in places
    ]  # fmt: skip
    spans = [
        _span(f"h.{n}", 9_000, chance.randint(1_000, 9_000), s)
        | {"run_id": run["run_id"], "iteration": i, "start_ns": n}
        for run in runs for i, s in places for n in range(12)
    ]  # fmt: skip
    put(store, runs=runs, steps=steps, spans=spans)
    asked = ("SELECT * FROM run_summary ORDER BY run_id", "SELECT * FROM phase_summary ORDER BY run_id")
    for sql in asked:
        first = rows_of(store, sql)
        for _ in range(25):
            assert rows_of(store, sql) == first


def test_every_function_is_on_the_schema_page() -> None:
    """The macros of macros.sql are those that the schema page lists."""
    page = (Path(__file__).parents[2] / "docs/schema.md").read_text()
    listed = page.split("## Functions")[1].split("## Tables")[0]
    declared = re.findall(r"CREATE OR REPLACE MACRO (\w+)\(", view_sql("macros"))
    assert re.findall(r"^\| `(\w+)\(", listed, re.M) == declared
