"""Runs that never ran: an analysis stored as a run, and a run that was refused stored with its reason."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from roofleet.analyzing.fitting import Memory
from roofleet.api.formulas import stated_cost
from roofleet_agent import profiling
from roofleet_agent.devices.base import Device, DeviceInfo, Reading
from roofleet_agent.inventory import device_id
from roofleet_agent.registry import find_engine
from roofleet_agent.rows import Sink
from roofleet_agent.run import Progress, Run
from roofleet_agent.run_rows import phase_memory_row
from roofleet_agent.workload import ModelRequest, Workload


class Nowhere:
    """The device of a model that is analysed: it computes nothing and has nothing to read."""

    info = DeviceInfo("meta", kind="meta", name="analysed, not run", backend="meta", device_index=0)
    torch_name = "meta"

    def read(self) -> Reading:
        """See Device.read."""
        return Reading(unavailable={"utilization": "nothing runs on it"})

    def energy_j(self) -> float | None:
        """See Device.energy_j."""
        return None

    def throttled(self) -> bool | None:
        """See Device.throttled."""
        return None


def store_analysis(
    request: ModelRequest, dtype: str, workload: Workload, sink: Sink, show: Progress, sweep_id: str | None
) -> str:
    """Traces a model and stores what it found as a run of status `analyzed`; returns the run's id.

    Memory of decode is that of the last step, ops are those of the middle one, as in a run that is measured.
    """
    engine = find_engine(request)
    show("tracing on meta", 0.0)
    traced = profiling.trace_phases(engine, request, dtype, workload)
    kv_bytes = profiling.kv_bytes_per_token(traced.session, dtype)
    memory = Memory(request, dtype, traced)
    traced.session.close()
    run = Run(request, engine, Nowhere(), dtype, workload, sink, show)
    run.row |= {"sweep_id": sweep_id, "iterations": 0, "warmup": 0}
    try:
        run.load(traced.phases, kv_bytes, stated_cost)
        show("following its memory", 0.5)
        phases = memory.phases(replace(workload, prompt_tokens=run.session.prompt_tokens, prompt=None))
        run.write("phase_memory", [phase_memory_row(run.run_id, m, None, None) for m in phases.values()])
        run.row |= {
            "peak_memory_bytes": max(found.peak_bytes for found in phases.values()),
            "peak_memory_source": "live tensors",
        }
        run.finish("analyzed", None)
    finally:
        run.close()
    return run.run_id


def store_refusal(
    request: ModelRequest,
    device: Device,
    dtype: str,
    workload: Workload,
    sink: Sink,
    reason: str,
    sweep_id: str | None,
) -> None:
    """Stores a run that was refused before it began, as failed with its reason; the model must be one that
    can be built."""
    engine = find_engine(request)
    least = replace(workload, batch_size=1, prompt_tokens=1, new_tokens=min(workload.new_tokens, 1))
    traced = profiling.trace_phases(engine, request, dtype, least)
    traced.session.close()
    run = Run(request, engine, Nowhere(), dtype, least, _Only(sink), lambda what, fraction: None)
    try:
        run.load(traced.phases, None, lambda op: None)
        run.row |= {
            "sweep_id": sweep_id,
            "device_id": device_id(device),
            "batch_size": workload.batch_size,
            "prompt_tokens": workload.prompt_tokens,
            "new_tokens": workload.new_tokens if run.session.task == "generate" else 0,
        }
        run.finish("failed", reason)
    finally:
        run.close()


class _Only:
    """Lets through what is true of a run that was refused: itself and its model, and no ops."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, table: str, rows: pa.Table) -> None:
        """See Sink.write."""
        if table in ("models", "runs"):
            self._sink.write(table, rows)
