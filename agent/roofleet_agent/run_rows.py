"""What a run measured, as rows of its tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
from torch import nn

from roofleet_agent.measuring.op_times import OpTime
from roofleet_agent.measuring.passes import PhaseMemory, TimedStep
from roofleet_agent.rows import table_of
from roofleet_agent.tracing import TracedOp, TraceResult


def op_rows(
    run_id: str,
    phase: str,
    traced: TraceResult,
    stated_cost: Callable[[TracedOp], str | None] = lambda op: None,
    opaque: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The rows of `ops` for one phase; `stated_cost` gives the JSON of a user's own formula, if any.

    `opaque` layers are one thing to whoever times them, as compiled code is: the ops inside are theirs.
    """
    return [
        {
            "run_id": run_id,
            "phase": phase,
            "op_index": index,
            "path": visible(op.path, opaque),
            "op": op.op,
            "inputs": [asdict(tensor) for tensor in op.inputs],
            "outputs": [asdict(tensor) for tensor in op.outputs],
            "is_view": op.is_view,
            "attributes": json.dumps(dict(op.attributes), sort_keys=True) if op.attributes else None,
            "stated_cost": None if op.is_view else stated_cost(op),
        }
        for index, op in enumerate(traced.ops)
    ]


def visible(path: str, opaque: Collection[str]) -> str:
    """The outermost opaque layer a path lies in, or the path itself."""
    around = [layer for layer in opaque if layer == "" or path == layer or path.startswith(f"{layer}.")]
    return min(around, key=len, default=path)


def edge_rows(
    run_id: str, phase: str, traced: TraceResult, opaque: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The rows of `layer_edges` for one phase; what flows inside an opaque layer is not seen."""
    flows: dict[tuple[str, str], list[int]] = {}
    for edge in traced.edges:
        key = (visible(edge.source_path, opaque), visible(edge.target_path, opaque))
        if key[0] != key[1] or edge.source_path == edge.target_path:
            known = flows.setdefault(key, [0, 0])
            known[0] += edge.tensors
            known[1] += edge.bytes
    return [
        {"run_id": run_id, "phase": phase, "source_path": source, "target_path": target, "tensors": tensors,
         "bytes": size}
        for (source, target), (tensors, size) in flows.items()
    ]  # fmt: skip


def op_time_rows(
    run_id: str, phase: str, times: Iterable[OpTime], opaque: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The rows of `op_times` for one phase, those inside an opaque layer told as its own."""
    found: dict[tuple[str, str], OpTime] = {}
    for time in times:
        key = (visible(time.path, opaque), time.op)
        known = found.get(key)
        found[key] = replace(time, path=key[0]) if known is None else known.with_more(time)
    return [{"run_id": run_id, "phase": phase, **asdict(time)} for time in found.values()]


def model_row(
    name: str,
    origin: str,
    module: nn.Module,
    task: str,
    parameters: int,
    config: str | None,
    source: str | None = None,
) -> dict[str, Any]:
    """The row of `models`; the same name and configuration have one id everywhere."""
    architecture = type(module).__name__
    identity = "\n".join((name, config or f"{architecture} {parameters}"))
    return {
        "model_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "name": name,
        "origin": origin,
        "architecture": architecture,
        "task": task,
        "parameters": parameters,
        "config": config,
        "source": source,
    }


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
