"""A small fleet for the dashboard's tests: two hosts with unlike devices, and runs of tiny models."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from tests.support import TINY_BERT, TINY_GPT2, TINY_WORKLOAD, ListSink, laid, request

from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.inventory import device_id, host_id
from roofleet_collector.derive import derived
from roofleet_collector.store import Append, DuckDBStore
from roofleet_dashboard.source import SourceError
from roofleet_proto.tables import TABLES

CPU_FLOPS_PER_S, CPU_BYTES_PER_S = 196e9, 36.4e9
GPU_DEVICE, GPU_RUN, FAILED_RUN = "gpu-0", "gpu-run", "failed-run"
SWEEP, SWEEP_AXES, SWEEP_FAILED = (
    "sweep-0",
    {"dtype": ["fp32", "bf16"], "batch_size": [1, 4, 16], "prompt_tokens": [8], "new_tokens": [4],
     "variant": ["base"], "attention": [None]},
    ("bf16", 16),
)  # fmt: skip
NO_POWER = "a CPU keeps an energy count, not a power gauge"


class StoreSource:
    """A Source on a store in this process, which can be sent away and counts what it is asked."""

    def __init__(self, store: DuckDBStore) -> None:
        self.store = store
        self.is_away = False
        self.asked = 0
        self._lock = threading.Lock()

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Source.query."""
        with self._lock:
            self.asked += 1
        if self.is_away:
            raise SourceError("127.0.0.1:7701 refuses the connection")
        return self.store.query(sql, list(parameters)).read_all()

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """What SQL gives, for comparison with what is shown."""
        return self.store.query(sql, list(parameters)).read_all().to_pylist()


class Fleet:
    """The store filled with the fleet, and the names by which tests ask for it."""

    def __init__(self, folder: Path) -> None:
        self.store = DuckDBStore(laid(folder))
        self.source = StoreSource(self.store)
        self._cpu_host()
        self._gpu_host()
        self.gpt2_run = self._profiled("tiny-gpt2", TINY_GPT2, "generate")
        self.bert_run = self._profiled("tiny-bert", TINY_BERT, "encode")
        self._failed_run()
        self._sweep()

    def write(self, table: str, rows: list[dict[str, Any]] | pa.Table) -> None:
        """Stores rows as the collector does when they arrive."""
        self.write_all({table: rows})

    def write_all(self, tables: Mapping[str, list[dict[str, Any]] | pa.Table]) -> None:
        """Stores rows of several tables at once, so that what follows from a run is worked out once."""
        arriving: dict[str, pa.Table] = {}
        for table, rows in tables.items():
            if not isinstance(rows, pa.Table):
                rows = pa.Table.from_pylist(rows, schema=TABLES[table].schema)
            arriving |= derived(table, rows)
        self.store.append(Append(arriving)).result()

    def _cpu_host(self) -> None:
        device = device_id(CpuDevice())
        now = datetime.now(UTC)
        self.write("hosts", [{"host_id": host_id(), "hostname": "desk", "memory_bytes": 16 * 2**30}])
        self.write(
            "devices",
            [
                {
                    "device_id": device,
                    "host_id": host_id(),
                    "kind": "cpu",
                    "name": "Test CPU",
                    "backend": "cpu",
                    "device_index": 0,
                    "memory_bytes": 16 * 2**30,
                    "unavailable": json.dumps({"power_w": NO_POWER}),
                }
            ],
        )
        measured = {"device_id": device, "source_kind": "measured", "measured_at": now}
        self.write(
            "roofs",
            [
                {
                    **measured,
                    "roof_id": f"{device}/compute/fp32/measured",
                    "kind": "compute",
                    "dtype": "fp32",
                    "flops_per_s": CPU_FLOPS_PER_S,
                    "source": "torch.mm of 2048 x 2048 fp32 matrices",
                },
                {
                    **measured,
                    "roof_id": f"{device}/memory/dram/measured",
                    "kind": "memory",
                    "memory_level": "dram",
                    "bytes_per_s": CPU_BYTES_PER_S,
                    "source": "fp32 copy over 256 MiB",
                },
            ],
        )
        self._readings(device, 0.25)

    def _gpu_host(self) -> None:
        self.write("hosts", [{"host_id": "rack", "hostname": "rack-07", "memory_bytes": 2**40}])
        self.write(
            "devices",
            [
                {
                    "device_id": GPU_DEVICE,
                    "host_id": "rack",
                    "kind": "gpu",
                    "name": "NVIDIA H100 80GB HBM3",
                    "backend": "cuda",
                    "device_index": 0,
                    "memory_bytes": 80 * 2**30,
                }
            ],
        )
        self._readings(GPU_DEVICE, 0.75, power_w=412.0)

    def _readings(self, device: str, utilization: float, power_w: float | None = None) -> None:
        now = datetime.now(UTC)
        self.write(
            "readings",
            [
                {
                    "device_id": device,
                    "read_at": now - timedelta(seconds=2 * age),
                    "utilization": utilization,
                    "memory_used_bytes": 4 * 2**30,
                    "power_w": power_w,
                }
                for age in range(60)
            ],
        )

    def _profiled(self, name: str, config: dict[str, Any], task: str) -> str:
        """Profiles a tiny model; a GPT-2 run is stored a second time as if the GPU had run it."""
        sink = ListSink()
        run_id = profiling.profile(request(config, name, task), CpuDevice(), "fp32", TINY_WORKLOAD, sink)
        if task == "generate":
            self.write_all({table: [_on_the_gpu(row) for row in sink.rows(table)] for table in sink.tables})
        self.write_all({table: pa.concat_tables(parts) for table, parts in sink.tables.items()})
        return run_id

    def _failed_run(self) -> None:
        row = self.source.rows("SELECT * FROM runs WHERE run_id = ?", GPU_RUN)[0]
        error = "OutOfMemoryError: tried to allocate 4.00 GiB"
        earlier = row["started_at"] - timedelta(days=1)
        self.write(
            "runs", [row | {"run_id": FAILED_RUN, "status": "failed", "error": error, "started_at": earlier}]
        )

    def _sweep(self) -> None:
        """The GPT-2 run again at six points of a sweep, a step taking as many times longer as the batch is
        larger; one point ran out of memory."""
        (run,) = self.source.rows("SELECT * FROM runs WHERE run_id = ?", self.gpt2_run)
        earlier = run["started_at"] - timedelta(days=2)
        axes = SWEEP_AXES | {"iterations": [2], "weights": ["random"], "analyze": [False]}
        self.write(
            "sweeps",
            [
                {
                    "sweep_id": SWEEP,
                    "model_name": "tiny-gpt2",
                    "axes": json.dumps(axes),
                    "points": 6,
                    "started_at": earlier,
                }
            ],
        )
        kept = {
            table: self.source.rows(f"SELECT * FROM {table} WHERE run_id = ?", self.gpt2_run)
            for table in ("ops", "steps", "phase_memory")
        }
        points: dict[str, list[dict[str, Any]]] = {"runs": [], "ops": [], "steps": [], "phase_memory": []}
        for dtype in SWEEP_AXES["dtype"]:
            for batch in SWEEP_AXES["batch_size"]:
                own = {"run_id": f"{SWEEP}-{dtype}-{batch}"}
                at = {"dtype": dtype, "batch_size": batch, "sweep_id": SWEEP, "started_at": earlier}
                if (dtype, batch) == SWEEP_FAILED:
                    at |= {"status": "failed", "error": "the device ran out of memory"}
                points["runs"].append(run | own | at)
                if "error" in at:
                    continue
                for table, rows in kept.items():
                    points[table] += [row | own | _slower(table, row, batch) for row in rows]
        self.write_all(points)


def _slower(table: str, row: dict[str, Any], times: int) -> dict[str, Any]:
    return {"duration_ns": row["duration_ns"] * times} if table == "steps" else {}


def _on_the_gpu(row: dict[str, Any]) -> dict[str, Any]:
    changed = row | ({"run_id": GPU_RUN} if "run_id" in row else {})
    if "device_id" in row:
        earlier = row["started_at"] - timedelta(hours=1)
        changed |= {"device_id": GPU_DEVICE, "host_id": "rack", "dtype": "bf16", "started_at": earlier}
    return changed
