"""Roofs that nothing passes: twenty runs, every second one with another load beside it.

Each run measures the roofs again, the first of them under load. In the end every point of every run is held
against the roofs in force.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.load import ALL, beside
from benchmarks.stored import Stored
from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.roofs.remembered import measured_roofs
from roofleet_agent.rows import table_of
from roofleet_agent.service import register
from roofleet_agent.workload import ModelRequest, Workload
from roofleet_collector.store import DuckDBStore

RUNS = 20
BUDGET_S = 0.05
"""How long each kernel of a roof is repeated: shorter than an agent does, so that more are low."""
MODEL: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 1408,
    "vocab_size": 8000,
    "max_position_embeddings": 256,
    "architectures": ["LlamaForCausalLM"],
}
WORKLOAD = Workload(prompt_tokens=64, new_tokens=6, iterations=5, warmup=1)


def measure() -> list[Figure]:
    """Points above their roof, in silence and marked, and how far the measurements of a roof lie apart."""
    device = CpuDevice()
    with tempfile.TemporaryDirectory() as folder:
        store = DuckDBStore(Path(folder))
        sink = Stored(store)
        register(sink, "bench", [device])
        quiet: list[dict[str, Any]] = []
        loaded: list[dict[str, Any]] = []
        for number in range(RUNS):
            beside_load = number % 2 == 0
            with beside(ALL if beside_load else None):
                profiling.profile(
                    ModelRequest("small", "catalog", "random", "generate", MODEL),
                    device,
                    "fp32",
                    WORKLOAD,
                    sink,
                )
                rows = measured_roofs(device, Path(folder) / "roofs", again=True, budget_s=BUDGET_S)
            known = {row["roof_id"] for row in (*quiet, *loaded)}
            (loaded if beside_load else quiet).extend(row for row in rows if row["roof_id"] not in known)
            sink.write("roofs", table_of("roofs", rows))
        points = store.query(
            "SELECT count(*) AS n, count(*) FILTER (roofline_fraction > 1 AND fault IS NULL) AS silent, "
            "count(*) FILTER (roofline_fraction > 1) AS above, max(roofline_fraction) AS highest "
            "FROM roofline_points"
        ).read_all().to_pylist()[0]  # fmt: skip
        utilizations = store.query(
            "SELECT max(greatest(model_flops_utilization, memory_bandwidth_utilization)) AS u "
            "FROM run_summary"
        ).read_all()
        highest = utilizations.column("u").to_pylist()[0]
        store.close()
    return [
        Figure("roofs", f"points above a roof in silence, of {points['n']}", points["silent"], goal=0),
        Figure("roofs", "points above a roof", points["above"], goal=0),
        Figure("roofs", "highest point, of its roof", points["highest"]),
        Figure("roofs", "highest utilisation of a run", highest, goal=1),
        *_spreads("quiet", quiet),
        *_spreads("with a load beside", loaded),
    ]  # fmt: skip


def _spreads(when: str, rows: list[dict[str, Any]]) -> Iterator[Figure]:
    """The highest measurement of a roof over the lowest."""
    for what in ("fp32", "dram", "cache"):
        heights = [
            row["flops_per_s"] or row["bytes_per_s"]
            for row in rows
            if what in (row["dtype"], row["memory_level"])
        ]
        yield Figure(
            "roofs", f"{what}, highest over lowest of {len(heights)}, {when}", max(heights) / min(heights)
        )
