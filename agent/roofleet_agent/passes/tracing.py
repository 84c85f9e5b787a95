"""The trace pass: what one step of each phase executes, found on `meta`, as rows of ops and of what flows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from roofleet_agent.engines.base import DTYPE_BYTES, Engine, Session
from roofleet_agent.errors import AgentError, ModelRefused
from roofleet_agent.passes.base import Found, of_run
from roofleet_agent.storage import stored_bytes
from roofleet_agent.tracing import TracedOp, TraceResult, trace
from roofleet_agent.tracing.alike import alike_run_once, folded
from roofleet_agent.workload import ModelRequest, Workload, phases_of

StatedCost = Callable[[TracedOp], str | None]
"""JSON of an op's cost by a formula of the user's own; None where there is none."""


def no_stated_cost(op: TracedOp) -> None:
    """A StatedCost where the user has no formulas."""
    return None


@dataclass(frozen=True)
class Traced:
    """The model on `meta`, what one step of each phase executes, and the bytes its weights take as stored."""

    session: Session
    phases: dict[str, TraceResult]
    weight_bytes: int


def trace_phases(engine: Engine, request: ModelRequest, dtype: str, workload: Workload) -> Traced:
    """The model on `meta` and what one step of each of its phases executes; for decode the middle step.

    A module of the user's own that cannot do without data, which `meta` has not, is traced on the CPU.
    """

    def traced(device: str) -> Traced:
        session = engine.load(request, torch.device(device), dtype, workload)
        phases = {}
        with alike_run_once(session.module):
            for phase in phases_of(session.task, session.new_tokens):
                step = session.single(phase)
                phases[phase] = trace(
                    session.module,
                    step.call,
                    cache=session.cache,
                    experts_per_token=session.experts_per_token,
                    tokens=step.tokens,
                    cached_tokens=step.cache_tokens,
                )
        return Traced(session, phases, stored_bytes(session.module))

    try:
        return folded(lambda: traced("meta"))
    except (AgentError, MemoryError):
        raise
    except Exception as error:
        if request.origin != "module":
            first = str(error).strip().partition("\n")[0]
            raise ModelRefused(
                f"{request.name} could not be traced as asked: {type(error).__name__}: {first}"
            ) from error
        return traced("cpu")


def kv_bytes_per_token(session: Session, dtype: str) -> int | None:
    """Bytes of cache the first token of a sequence adds; None for a model without one."""
    if session.task != "generate":
        return None
    return (session.cache_elements(1) - session.cache_elements(0)) * DTYPE_BYTES[dtype]


def traced_rows(
    phases: dict[str, TraceResult],
    kv_bytes: int | None,
    stated_cost: StatedCost = no_stated_cost,
    opaque: Collection[str] = (),
) -> Iterator[Found]:
    """Ops and edges of each phase. `opaque` layers are one thing to whoever times them."""
    yield of_run(kv_bytes_per_token=kv_bytes)
    for phase, traced in phases.items():
        yield Found("ops", op_rows(phase, traced, stated_cost, opaque))
        yield Found("layer_edges", edge_rows(phase, traced, opaque))


def op_rows(
    phase: str,
    traced: TraceResult,
    stated_cost: StatedCost = no_stated_cost,
    opaque: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The rows of `ops` for one phase; `stated_cost` gives the JSON of a user's own formula, if any.

    `opaque` layers are one thing to whoever times them, as compiled code is: the ops inside are theirs.
    """
    return [
        {
            "phase": phase,
            "op_index": index,
            "path": visible(op.path, opaque),
            "op": op.op,
            "inputs": [dict(vars(tensor)) for tensor in op.inputs],
            "outputs": [dict(vars(tensor)) for tensor in op.outputs],
            "is_view": op.is_view,
            "attributes": json.dumps(dict(op.attributes), sort_keys=True) if op.attributes else None,
            "stated_cost": None if op.is_view else stated_cost(op),
        }
        for index, op in enumerate(traced.ops)
    ]


def edge_rows(phase: str, traced: TraceResult, opaque: Collection[str] = ()) -> list[dict[str, Any]]:
    """The rows of `layer_edges` for one phase; what flows inside an opaque layer is not seen."""
    flows: dict[tuple[str, str], list[int]] = {}
    for edge in traced.edges:
        key = (visible(edge.source_path, opaque), visible(edge.target_path, opaque))
        if key[0] != key[1] or edge.source_path == edge.target_path:
            known = flows.setdefault(key, [0, 0])
            known[0] += edge.tensors
            known[1] += edge.bytes
    return [
        {"phase": phase, "source_path": source, "target_path": target, "tensors": tensors, "bytes": size}
        for (source, target), (tensors, size) in flows.items()
    ]


def visible(path: str, opaque: Collection[str]) -> str:
    """The outermost opaque layer a path lies in, or the path itself."""
    around = [layer for layer in opaque if layer == "" or path == layer or path.startswith(f"{layer}.")]
    return min(around, key=len, default=path)
