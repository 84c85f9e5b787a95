"""Runs that never ran: an analysis stored as a run, and a run that was refused stored with its reason."""

from __future__ import annotations

from dataclasses import replace

from roofleet.analyzing.fitting import Memory
from roofleet.api.formulas import stated_cost
from roofleet_agent.devices.base import Device, DeviceInfo, Reading
from roofleet_agent.inventory import device_id
from roofleet_agent.measuring.step_memory import MemoryFound
from roofleet_agent.passes.base import Progress, of_run
from roofleet_agent.passes.describing import asked, described, model_of
from roofleet_agent.passes.memory import memory_rows
from roofleet_agent.passes.record import Record
from roofleet_agent.passes.tracing import kv_bytes_per_token, trace_phases, traced_rows
from roofleet_agent.registry import find_engine
from roofleet_agent.rows import Sink
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
    traced = trace_phases(engine, request, dtype, workload)
    kv_bytes = kv_bytes_per_token(traced.session, dtype)
    memory = Memory(request, dtype, traced)
    record = Record(sink, device_id(Nowhere()), **asked(request, engine, Nowhere(), dtype, workload))
    record.take(described(request, traced.session, workload))
    record.take([of_run(sweep_id=sweep_id, iterations=0, warmup=0)])
    record.take(traced_rows(traced.phases, kv_bytes, stated_cost, traced.session.opaque))
    prompt_tokens = traced.session.prompt_tokens or workload.prompt_tokens
    traced.session.close()
    show("following its memory", 0.5)
    phases = memory.phases(replace(workload, prompt_tokens=prompt_tokens, prompt=None))
    record.take(memory_rows(MemoryFound(phases, {})))
    record.finish("analyzed")
    return record.run_id


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
    session = trace_phases(engine, request, dtype, least).session
    record = Record(sink, device_id(device), **asked(request, engine, device, dtype, workload))
    record.take(model_of(request, session))
    new_tokens = workload.new_tokens if session.task == "generate" else 0
    record.take([of_run(sweep_id=sweep_id, prompt_tokens=workload.prompt_tokens, new_tokens=new_tokens)])
    session.close()
    record.finish("failed", reason)
