"""`analyze`: what a model costs before it runs anywhere, from its trace on `meta`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from roofleet.analyzing.bounding import bounds_on, room_on, without
from roofleet.analyzing.fitting import Memory, largest_sizes, positions_of
from roofleet.analyzing.publishing import published
from roofleet_agent.engines.base import DTYPE_BYTES, Session
from roofleet_agent.engines.checkpoints import load_config, published_dtype
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.passes.tracing import Traced, kv_bytes_per_token, op_rows, trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.variants.names import roof_dtype
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens
from roofleet_analysis.costs import Cost, cost_of
from roofleet_analysis.costs.rows import op_of, total

if TYPE_CHECKING:
    from roofleet.running.runs import Show
    from roofleet_agent.measuring.step_memory import PhaseMemory
    from roofleet_agent.tracing import TracedOp, TraceResult
    from roofleet_analysis.catalogs.hardware import Hardware


def analyze(
    request: ModelRequest,
    dtype: str,
    workload: Workload,
    hardware: Sequence[Hardware],
    *,
    largest: bool = False,
    show: Show = lambda what, fraction: None,
) -> dict[str, Any]:
    """Parameters, FLOPs, bytes and memory of a model, and the least time of its phases on hardware.

    `dtype` may be `auto`: the one the model was published in, with weights as its checkpoint stores them,
    which may take less. `decode` is the middle step of the workload, as in a run, and for memory the last;
    no more tokens are generated than the model has positions for. With `largest` each hardware has the
    largest batch and prompt it holds, None for a module, which brings its own inputs.
    """
    asked, dtype = dtype, _dtype(request, dtype)
    show("tracing on meta", 0.1)
    traced = _trace(request, dtype, workload)
    session, traces = traced.session, traced.phases
    shape = _shape(request, session, workload)
    show("counting", 0.4)
    weights = published(request, asked, workload, session.module)
    spared = weights.spared_bytes
    costs = {phase: phase_cost(found) for phase, found in traces.items()}
    costs = {p: (weights.cost(cost, traces[p]), unknown) for p, (cost, unknown) in costs.items()}
    memory = Memory(request, dtype, traced)
    show("following its memory", 0.6)
    phases = memory.phases(shape)
    needed = max(found.peak_bytes for found in phases.values()) - spared
    result = {
        "model": request.name,
        "dtype": dtype,
        "variant": workload.variant.name,
        "attention": session.attention,
        "batch_size": shape.batch_size,
        "prompt_tokens": session.prompt_tokens,
        "new_tokens": shape.new_tokens,
        "logits": workload.logits,
        "parameters": session.held_parameters,
        "parameter_bytes": traced.weight_bytes - spared,
        "published": weights.told(traced.weight_bytes, dtype),
        "kv_bytes_per_token": kv_bytes_per_token(session, dtype),
        "memory": {
            "weight_bytes": memory.weight_bytes - spared,
            "kv_cache_bytes": _full_cache(session, shape, dtype),
            "needed_bytes": needed,
            "phases": {p: _held(found, spared) for p, found in phases.items()},
        },
        "phases": {
            phase: {"cached_tokens": _cached(phase, shape)} | _figures(*cost) for phase, cost in costs.items()
        },
    }
    session.close()
    bounding = roof_dtype(dtype, workload.variant)
    whole = memory.weight_bytes - spared
    found = []
    for number, chip in enumerate(hardware):
        if largest:
            show(f"looking for what {chip.name} holds", 0.7 + 0.3 * number / len(hardware))
        searched = largest and request.origin != "module"
        # a search looks at weights as they are on `meta`: what the published ones spare is room beside them
        sizes = largest_sizes(request, memory, shape, chip.offered_bytes + spared) if searched else None
        found.append(
            {
                "name": chip.name,
                **room_on(chip, needed),
                "largest": without(sizes, spared),
                "phases": bounds_on(
                    chip, {p: cost for p, (cost, _) in costs.items()}, [weights.compute, bounding], whole
                ),
            }
        )
    return result | {"hardware": found}


def _held(found: PhaseMemory, spared: int) -> dict[str, Any]:
    """The memory of a phase at its peak, with weights that take less than those on `meta`."""
    less = replace(found, weight_bytes=found.weight_bytes - spared)
    return asdict(less) | {"peak_bytes": less.peak_bytes}


def phase_cost(traced: TraceResult) -> tuple[Cost, list[str]]:
    """The summed cost of a phase, and the names of the ops that have no formula."""
    costs, unknown = [], []
    ops, times = _unlike(traced.ops)
    for row, count in zip(op_rows("phase", replace(traced, ops=ops)), times, strict=True):
        cost = cost_of(op_of(row))
        if cost is None:
            unknown += [row["op"]] * count
        else:
            costs.append(Cost(**{name: count * figure for name, figure in vars(cost).items()}))
    return total(costs), unknown


def _unlike(ops: Sequence[TracedOp]) -> tuple[list[TracedOp], list[int]]:
    """Ops no two of which cost the same for sure, and how many there are of each: blocks repeat theirs."""
    first: dict[Any, TracedOp] = {}
    counts: Counter[Any] = Counter()
    for op in ops:
        first.setdefault(op.work, op)
        counts[op.work] += 1
    return list(first.values()), [counts[key] for key in first]


def _trace(request: ModelRequest, dtype: str, workload: Workload) -> Traced:
    """The model traced with the workload, or with as many new tokens as it has positions for."""
    engine = find_engine(request)
    try:
        return trace_phases(engine, request, dtype, workload)
    except WorkloadRefused:
        first = trace_phases(engine, request, dtype, replace(workload, new_tokens=1))
        fitting = (positions_of(request) or 0) - first.session.prompt_tokens + 1
        if not 1 < fitting < workload.new_tokens:
            return first
        first.session.close()
        return trace_phases(engine, request, dtype, replace(workload, new_tokens=fitting))


def _shape(request: ModelRequest, session: Session, workload: Workload) -> Workload:
    """The workload as the model takes it: a module may have another batch than was asked for, a text has the
    tokens it has, an encoder generates none, and no more are generated than there are positions for. What
    has no tokens keeps those that were asked for, which change nothing."""
    batch = getattr(session, "batch_size", workload.batch_size)
    new, positions = workload.new_tokens, positions_of(request)
    if positions is not None:
        new = min(new, positions - session.prompt_tokens + 1)  # the last one is never an input
    return replace(
        workload,
        batch_size=batch,
        prompt_tokens=session.prompt_tokens or workload.prompt_tokens,
        new_tokens=new if session.task == "generate" else 0,
        prompt=None,
    )


def _dtype(request: ModelRequest, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "fp32" if request.origin == "module" else published_dtype(load_config(request))


def _cached(phase: str, workload: Workload) -> int:
    """Tokens in the cache before the step that a phase's costs are of: of decode the middle one."""
    return middle_cache_tokens(workload.prompt_tokens, workload.new_tokens) if phase == "decode" else 0


def _figures(cost: Cost, unknown: list[str]) -> dict[str, Any]:
    return {
        "matmul_flops": cost.matmul_flops,
        "causal_flops": cost.causal_flops,
        "needed_flops": cost.needed_flops,
        "other_flops": cost.other_flops,
        "weight_bytes": cost.weight_bytes,
        "activation_bytes": cost.activation_bytes,
        "kv_bytes": cost.kv_read_bytes + cost.kv_write_bytes,
        "needed_kv_bytes": cost.needed_kv_bytes,
        "unknown_ops": len(unknown),
        "unknown_op_names": sorted(set(unknown)),
    }


def _full_cache(session: Session, workload: Workload, dtype: str) -> int:
    """Bytes of the cache when all tokens of all sequences are in it."""
    tokens = session.prompt_tokens + max(workload.new_tokens - 1, 0)
    return session.cache_elements(tokens) * workload.batch_size * DTYPE_BYTES[dtype]
