"""What a run measured, as rows of its tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from roofleet_agent.measuring.passes import TimedStep
from roofleet_agent.rows import table_of
from roofleet_agent.tracing import TraceResult


def op_rows(run_id: str, phase: str, traced: TraceResult) -> list[dict[str, Any]]:
    """The rows of `ops` for one phase."""
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
        }
        for index, op in enumerate(traced.ops)
    ]


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
            }
            for s in steps
            for interval in s.intervals
        ],
    )
