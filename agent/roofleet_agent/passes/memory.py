"""The memory pass: what lives when, layer by layer, and what the allocator says of the same peak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from roofleet_agent.measuring.allocator import process_peak_bytes, run_before_watched, watch
from roofleet_agent.measuring.step_memory import MemoryFound, PhaseMemory, memory_of
from roofleet_agent.passes.base import Found, Subject, of_run


def memory(subject: Subject) -> Iterator[Found]:
    """One iteration under a tracker of storages, then the step of each phase that had the highest peak once
    more under the allocator's eye."""
    subject.progress("memory", 0.9)
    found = memory_of(subject.session, subject.session.iteration())
    rows = list(memory_rows(found, _allocator_peaks(subject, found)))
    yield from rows
    by_phase = next(rows for table, rows in rows if table == "phase_memory")
    allocated = [row["allocator_peak_bytes"] for row in by_phase if row["allocator_peak_bytes"] is not None]
    reserved = [row["allocator_reserved_bytes"] for row in by_phase if row["allocator_reserved_bytes"]]
    yield of_run(
        allocator_peak_bytes=max(allocated, default=None),
        allocator_reserved_bytes=max(reserved, default=None),
        process_peak_bytes=process_peak_bytes(),
    )


Allocated = dict[str, tuple[int | None, int | None]]
"""The allocator's peak and reserve in bytes, by phase."""


def memory_rows(found: MemoryFound, allocated: Allocated | None = None) -> Iterator[Found]:
    """The rows of `layer_memory` and `phase_memory`, and the run's peak."""
    for phase, layers in found.layers.items():
        yield Found("layer_memory", [{"phase": phase, **asdict(layer)} for layer in layers])
    peaks = allocated or {}
    rows = [phase_memory_row(m, *peaks.get(phase, (None, None))) for phase, m in found.phases.items()]
    yield Found("phase_memory", rows)
    if rows:
        yield of_run(
            peak_memory_bytes=max(row["peak_bytes"] for row in rows), peak_memory_source="live tensors"
        )


def phase_memory_row(memory: PhaseMemory, allocator_peak: int | None, reserved: int | None) -> dict[str, Any]:
    """The row of `phase_memory` for one phase, with what the allocator says of its peak."""
    return {
        "phase": memory.phase,
        "weight_bytes": memory.weight_bytes,
        "kv_bytes": memory.kv_bytes,
        "activation_bytes": memory.activation_bytes,
        "peak_bytes": memory.peak_bytes,
        "peak_step_index": memory.peak_step_index,
        "peak_path": memory.peak_path,
        "peak_op": memory.peak_op,
        "workspace_bytes": None if allocator_peak is None else max(allocator_peak - memory.peak_bytes, 0),
        "allocator_peak_bytes": allocator_peak,
        "allocator_reserved_bytes": reserved,
    }


def _allocator_peaks(subject: Subject, found: MemoryFound) -> Allocated:
    wanted = {(m.phase, m.peak_step_index): m for m in found.phases.values()}
    peaks: Allocated = dict.fromkeys(found.phases, (None, None))
    for step in subject.session.iteration():
        memory: PhaseMemory | None = wanted.pop((step.phase, step.step_index), None)
        if memory is None:
            if (step.phase, step.step_index + 1) in wanted:
                run_before_watched(subject.torch_device, step.call)
            else:
                step.call()
            continue
        seen = watch(subject.torch_device, step.call, memory.weight_bytes + memory.start_bytes)
        peaks[step.phase] = (seen.peak_bytes, seen.reserved_bytes)
        if not wanted:
            break
    return peaks
