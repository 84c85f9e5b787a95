"""`analyze`: what a model costs before it runs anywhere, from its trace on `meta`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from roofleet_agent import profiling
from roofleet_agent.engines.base import DTYPE_BYTES, Session
from roofleet_agent.engines.transformers import load_config, published_dtype
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.measuring.passes import peak_of_first_step
from roofleet_agent.registry import find_engine
from roofleet_agent.run_rows import op_rows
from roofleet_agent.workload import ModelRequest, Workload
from roofleet_analysis.costs import Cost, cost_of
from roofleet_analysis.costs.rows import op_of, total
from roofleet_analysis.roofline import lower_bound

if TYPE_CHECKING:
    from roofleet_agent.tracing import TraceResult
    from roofleet_analysis.catalogs.hardware import Hardware


def analyze(
    request: ModelRequest, dtype: str, workload: Workload, hardware: Sequence[Hardware]
) -> dict[str, Any]:
    """Parameters, FLOPs, bytes and memory of a model, and the least time of its phases on hardware.

    `dtype` may be `auto`: the one the model was published in. `decode` is one token after a cache of the
    prompt; it is left out where the model has no position for that token.
    """
    dtype = _dtype(request, dtype)
    traced = _trace(request, dtype, workload)
    session, traces = traced.session, traced.phases
    parameters = sum(p.numel() for p in session.module.parameters())
    costs = {phase: phase_cost(traced) for phase, traced in traces.items()}
    result = {
        "model": request.name,
        "dtype": dtype,
        "batch_size": workload.batch_size,
        "prompt_tokens": session.prompt_tokens,
        "logits": workload.logits,
        "parameters": parameters,
        "parameter_bytes": traced.weight_bytes,
        "kv_bytes_per_token": profiling.kv_bytes_per_token(session, dtype),
        "memory": _memory(session, workload, dtype, traced.weight_bytes),
        "phases": {phase: _figures(*cost) for phase, cost in costs.items()},
        "hardware": [
            {
                "name": chip.name,
                "phases": {
                    phase: (asdict(bound) if (bound := lower_bound(cost, dtype, chip)) else None)
                    for phase, (cost, _) in costs.items()
                },
            }
            for chip in hardware
        ],
    }
    session.close()
    return result


def phase_cost(traced: TraceResult) -> tuple[Cost, list[str]]:
    """The summed cost of a phase, and the names of the ops that have no formula."""
    costs, unknown = [], []
    for row in op_rows("analysis", "phase", traced):
        cost = cost_of(op_of(row))
        if cost is None:
            unknown.append(row["op"])
        else:
            costs.append(cost)
    return total(costs), unknown


def _trace(request: ModelRequest, dtype: str, workload: Workload) -> profiling.Traced:
    engine = find_engine(request)
    try:
        # two new tokens: the first from prefill, the second by the one decode step that is analysed
        return profiling.trace_phases(engine, request, dtype, replace(workload, new_tokens=2))
    except WorkloadRefused:
        return profiling.trace_phases(engine, request, dtype, replace(workload, new_tokens=1))


def _dtype(request: ModelRequest, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "fp32" if request.origin == "module" else published_dtype(load_config(request))


def _figures(cost: Cost, unknown: list[str]) -> dict[str, Any]:
    return {
        "matmul_flops": cost.matmul_flops,
        "causal_flops": cost.causal_flops,
        "other_flops": cost.other_flops,
        "weight_bytes": cost.weight_bytes,
        "activation_bytes": cost.activation_bytes,
        "kv_bytes": cost.kv_read_bytes + cost.kv_write_bytes,
        "unknown_ops": len(unknown),
        "unknown_op_names": sorted(set(unknown)),
    }


def _memory(session: Session, workload: Workload, dtype: str, weights: int) -> dict[str, int]:
    """Bytes to hold the model and its workload: weights, the cache when all tokens are there, and the most
    that is live beside the weights in the first step."""
    tokens = session.prompt_tokens + max(workload.new_tokens - 1, 0)
    cache = session.cache_elements(tokens) * workload.batch_size * DTYPE_BYTES[dtype]
    first_step = peak_of_first_step(session)
    return {
        "weight_bytes": weights,
        "kv_cache_bytes": cache,
        "first_step_peak_bytes": first_step,
        "total_bytes": weights + max(first_step, cache),
    }
