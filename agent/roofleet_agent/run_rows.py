"""What a run measured, as rows of its tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from roofleet_agent.measuring.passes import PhaseMemory, TimedStep
from roofleet_agent.rows import table_of
from roofleet_agent.tracing import TracedOp, TraceResult


def op_rows(
    run_id: str,
    phase: str,
    traced: TraceResult,
    stated_cost: Callable[[TracedOp], str | None] = lambda op: None,
) -> list[dict[str, Any]]:
    """The rows of `ops` for one phase; `stated_cost` gives the JSON of a user's own formula, if any."""
    return [
        {
            "run_id": run_id,
            "phase": phase,
            "op_index": index,
            "path": op.path,
            "op": op.op,
            "inputs": [asdict(tensor) for tensor in op.inputs],
            "outputs": [asdict(tensor) for tensor in op.outputs],
            "is_view": op.is_view,
            "attributes": json.dumps(dict(op.attributes), sort_keys=True) if op.attributes else None,
            "stated_cost": None if op.is_view else stated_cost(op),
        }
        for index, op in enumerate(traced.ops)
    ]


def phase_memory_row(
    run_id: str, memory: PhaseMemory, allocator_peak: int | None, reserved: int | None
) -> dict[str, Any]:
    """The row of `phase_memory` for one phase, with what the allocator says of its peak."""
    return {
        "run_id": run_id,
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


def step_rows(run_id: str, steps: list[TimedStep]) -> pa.Table:
    """The rows of `steps`."""
    return table_of(
        "steps",
        [
            {
                "run_id": run_id,
                "phase": s.step.phase,
                "pass": s.kind,
                "iteration": s.iteration,
                "step_index": s.step.step_index,
                "is_warmup": s.is_warmup,
                "start_ns": s.start_ns,
                "duration_ns": s.duration_ns,
                "tokens": s.step.tokens,
                "cache_tokens": s.step.cache_tokens,
                "layer_group": s.layer_group,
            }
            for s in steps
        ],
    )


def span_rows(run_id: str, steps: list[TimedStep]) -> pa.Table:
    """The rows of `spans` of all steps that have layer times."""
    return table_of(
        "spans",
        [
            {
                "run_id": run_id,
                "phase": s.step.phase,
                "iteration": s.iteration,
                "step_index": s.step.step_index,
                "path": interval.path,
                "start_ns": interval.start_ns,
                "duration_ns": interval.duration_ns,
                "self_ns": interval.self_ns,
                "inner_calls": interval.inner_calls,
            }
            for s in steps
            for interval in s.intervals
        ],
    )
