"""What views cost as a store grows: synthetic ones at 1 and 10 % of 20,000 runs and 50 million spans.

`python -m benchmarks.growth 0.01 0.1 1` measures up to the whole; that takes some minutes and 8 GB of disk.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figure import Figure
from roofleet_collector.store import DuckDBStore
from roofleet_collector.store.engine import connect
from roofleet_collector.store.figures import refresh_roofs, settle, unsettled
from roofleet_collector.store.schema import VIEWS, migrate, view_doc

RUNS = 20_000
SPANS = 50_000_000
LAYERS = 50
DEVICES = 200
ITERATIONS, STEPS = 5, 10
"""Per run two phases of 50 layers: 5 iterations of a prefill and 4 decode steps timed make 2,500 spans."""
SHARES = (0.01, 0.1)
ROUNDS = 5
ONE_RUN_MS, LIST_MS = 20.0, 100.0

_LIST = """
SELECT run_id, model_name, status, time_to_first_token_ns, tokens_per_s, model_flops_utilization
FROM run_summary
WHERE run_id IN (SELECT run_id FROM runs ORDER BY started_at DESC LIMIT 100) ORDER BY started_at DESC
"""
_ALL = "SELECT phase, path, self_ns, bound FROM layer_summary ORDER BY self_ns DESC LIMIT 10"


def measure(shares: Sequence[float] = SHARES) -> list[Figure]:
    """Engine times of the published views for one run, of a list of runs, and of the README's query."""
    found: dict[str, list[float]] = {}
    sizes: list[float] = []
    for share in shares:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), round(RUNS * share))
            for name, ms in times(Path(folder)).items():
                found.setdefault(name, []).append(ms)
            sizes.append((Path(folder) / "roofleet.duckdb").stat().st_size / 1e9)
    first, last = (f"{share:.0%}" for share in (shares[0], shares[-1]))
    figures = [Figure("growth", f"store at {last}", sizes[-1], "GB")]
    for name, by_share in found.items():
        goal = LIST_MS if name == "list of runs" else None if name == "top layers of all" else ONE_RUN_MS
        figures.append(Figure("growth", f"{name} at {last}", by_share[-1], "ms", goal=goal))
        figures.append(Figure("growth", f"{name}, {last} / {first}", by_share[-1] / by_share[0]))
    return figures


def times(folder: Path) -> dict[str, float]:
    """Median engine time of each query in ms, planning included, on a store that was just opened."""
    store = DuckDBStore(folder)
    try:
        (run_id,) = (
            store.query("SELECT run_id FROM runs ORDER BY hash(run_id) LIMIT 1")
            .read_all()["run_id"]
            .to_pylist()
        )
        (other,) = store.query(
            "SELECT b.run_id FROM runs a JOIN runs b ON b.model_id = a.model_id AND b.run_id <> a.run_id "
            "WHERE a.run_id = ? LIMIT 1", [run_id]
        ).read_all()["run_id"].to_pylist()  # fmt: skip
        queries: dict[str, tuple[str, list[object]]] = {
            view: (f"SELECT * FROM {view} WHERE run_id = ?", [run_id])
            for view in VIEWS
            if "run_id" in view_doc(view).columns and "comparison" not in view
        }
        for view in ("phase_comparison", "layer_comparison"):
            queries[view] = (
                f"SELECT * FROM {view} WHERE baseline_run_id = ? AND run_id = ?",
                [run_id, other],
            )
        queries["fleet_status"] = ("SELECT * FROM fleet_status", [])
        queries["list of runs"] = (_LIST, [])
        queries["top layers of all"] = (_ALL, [])
        return {name: _median_ms(store, sql, values) for name, (sql, values) in queries.items()}
    finally:
        store.close()


def _median_ms(store: DuckDBStore, sql: str, values: list[object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        store.query(sql, values).read_all()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken)


def fill(folder: Path, runs: int) -> None:
    """A store of so many runs, each of two phases and 50 layers; the engine itself makes the rows."""
    connection = connect(folder / "roofleet.duckdb")
    connection.execute("SET TimeZone = 'UTC'")
    migrate(connection)
    connection.execute(_ROWS.replace("$runs", str(runs)))
    settle(connection, unsettled(connection), at_once=1000)
    refresh_roofs(connection, [f"device{number}" for number in range(DEVICES)])
    connection.close()


_PATHS = f"""(
    SELECT i AS layer_index, CASE WHEN i = 0 THEN '' WHEN i % 7 = 1 THEN 'blocks.' || (i // 7)
                                  ELSE 'blocks.' || (i // 7) || '.part' || (i % 7) END AS path
    FROM range({LAYERS}) t(i)
)"""
_PHASES = "(VALUES ('prefill'), ('decode'))"
_ROWS = f"""
INSERT INTO hosts (host_id, hostname, last_seen_at)
SELECT 'host' || i, 'host' || i, now() FROM range({DEVICES}) t(i);

INSERT INTO devices (device_id, host_id, kind, name, backend, device_index)
SELECT 'device' || i, 'host' || i, 'gpu', 'chip', 'cuda', 0 FROM range({DEVICES}) t(i);

INSERT INTO models (model_id, name, origin, architecture, task, parameters)
SELECT 'model' || i, 'model' || i, 'catalog', 'M', 'generate', 1000000 FROM range(40) t(i);

INSERT INTO roofs BY NAME
SELECT 'roof' || i || k AS roof_id, 'device' || i AS device_id, 'measured' AS source_kind,
       'by hand' AS source,
       CASE k WHEN 2 THEN 'memory' ELSE 'compute' END AS kind,
       CASE k WHEN 0 THEN 'bf16' WHEN 1 THEN 'fp32' END AS dtype,
       CASE k WHEN 2 THEN 'device' END AS memory_level,
       CASE k WHEN 0 THEN 8e13 WHEN 1 THEN 2e13 END AS flops_per_s,
       CASE k WHEN 2 THEN 2e12 END AS bytes_per_s, now() AS measured_at, 268435456 AS size_bytes,
       '2.9' AS torch_version
FROM range({DEVICES}) t(i), range(3) x(k);

INSERT INTO runs BY NAME
SELECT printf('%08x', (epoch(now())::BIGINT - 60 * ($runs - i)) * 8 % 4294967296)
       || substr(uuid()::VARCHAR, 9) AS run_id, 'host' || (i % {DEVICES}) AS host_id,
       'device' || (i % {DEVICES}) AS device_id,
       'model' || (i // {DEVICES} % 40) AS model_id, 'done' AS status,
       now() - to_minutes($runs - i) AS started_at,
       now() AS finished_at, 'bf16' AS dtype, 'base' AS variant, 'random' AS weights,
       'transformers' AS engine,
       1 + i // 8000 AS batch_size, 128 AS prompt_tokens, 10 AS new_tokens, 'last' AS logits, 5 AS iterations,
       1 AS warmup, '2.9' AS torch_version, 0.0 AS other_load
FROM range($runs) t(i);

INSERT INTO roofs BY NAME
SELECT run_id || k AS roof_id, device_id, 'seen' AS source_kind, 'seen in run ' || run_id AS source, run_id,
       CASE k WHEN 1 THEN 'memory' ELSE 'compute' END AS kind, CASE k WHEN 0 THEN 'bf16' END AS dtype,
       CASE k WHEN 0 THEN 1e12 END AS flops_per_s, CASE k WHEN 1 THEN 1e11 END AS bytes_per_s,
       started_at AS measured_at, 268435456 AS size_bytes, torch_version
FROM runs, range(2) x(k);

INSERT INTO layers
SELECT r.run_id, p.path, CASE WHEN p.path <> '' THEN '' END, p.layer_index, len(string_split(p.path, '.')),
       'Linear',
       'mlp', p.layer_index // 7, p.layer_index % 7 <> 1, 1, 4
FROM runs r, {_PATHS} p;

INSERT INTO steps BY NAME
SELECT * FROM (
    SELECT r.run_id, CASE WHEN s.i = 0 THEN 'prefill' ELSE 'decode' END AS phase, p.pass, n.i AS iteration,
           greatest(s.i - 1, 0) * 2 + (p.pass = 'timed')::BIGINT AS step_index, false AS is_warmup,
           s.i * 1000000 AS start_ns, CASE WHEN p.pass = 'timed' THEN 0 END AS layer_group,
           ((CASE WHEN s.i = 0 THEN 20000000 ELSE 9000000 END) * (1 + 0.02 * random())
            * CASE WHEN p.pass = 'timed' THEN 1.01 ELSE 1 END)::BIGINT AS duration_ns,
           CASE WHEN s.i = 0 THEN 128 ELSE 1 END AS tokens, 128 + s.i AS cache_tokens
    FROM runs r, range({ITERATIONS}) n(i), range({STEPS}) s(i), (VALUES ('bare'), ('timed')) p(pass)
) ORDER BY run_id;

INSERT INTO spans
SELECT s.run_id, s.phase, s.iteration, s.step_index, p.path, p.layer_index * 20000,
       ((CASE WHEN p.path = '' THEN 1000000 ELSE 15000 END) * (1 + 0.1 * random()))::BIGINT,
       (15000 * (1 + 0.1 * random()))::BIGINT, 0
FROM steps s, {_PATHS} p WHERE s.pass = 'timed';

INSERT INTO ops
SELECT r.run_id, x.phase, p.layer_index, p.path, 'aten.linear',
       [{{'shape': [128, 64], 'dtype': 'bf16', 'role': 'activation', 'bytes': 16384}},
        {{'shape': [64, 64], 'dtype': 'bf16', 'role': 'weight', 'bytes': 8192}}],
       [{{'shape': [128, 64], 'dtype': 'bf16', 'role': 'activation', 'bytes': 16384}}], false, NULL, NULL
FROM runs r, {_PHASES} x(phase), {_PATHS} p;

INSERT INTO op_costs BY NAME
SELECT run_id, phase, op_index, path, true AS is_known, 1048576 AS matmul_flops, 1048576 AS causal_flops,
       8192 AS other_flops, 8192 AS weight_bytes, 32768 AS activation_bytes, 0 AS kv_read_bytes,
       0 AS kv_write_bytes,
       5 AS formula_version, 'bf16' AS dtype, 1048576 AS needed_flops, 0 AS needed_kv_bytes
FROM ops;

INSERT INTO layer_memory
SELECT r.run_id, x.phase, p.path, 0, 10, 100, 100 FROM runs r, {_PHASES} x(phase), {_PATHS} p;

INSERT INTO phase_memory BY NAME
SELECT r.run_id, x.phase, 1 AS weight_bytes, 1 AS kv_bytes, 1 AS activation_bytes, 3 AS peak_bytes
FROM runs r, {_PHASES} x(phase);

INSERT INTO readings BY NAME
SELECT 'device' || (i % {DEVICES}) AS device_id, now() - to_seconds(i // {DEVICES}) AS read_at,
       0.5 AS utilization
FROM range($runs * 100) t(i) ORDER BY read_at;

INSERT INTO unsettled SELECT run_id FROM runs
"""
"""Statements that fill the tables, with the number of runs in place of `$runs`."""


if __name__ == "__main__":
    for figure in measure([float(share) for share in sys.argv[1:]] or SHARES):
        print(f"{figure.name}: {figure.value:.3g} {figure.unit}")
