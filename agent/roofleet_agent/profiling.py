"""A run from request to rows: traced on `meta`, checked for room, measured on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import DTYPE_BYTES, TORCH_DTYPES, Engine, Session
from roofleet_agent.engines.checkpoints import load_tokenizer
from roofleet_agent.errors import AgentError, ModelRefused, OutOfMemory, WorkloadRefused
from roofleet_agent.measuring.allocator import allocator_peak_bytes, is_out_of_memory, process_peak_bytes
from roofleet_agent.measuring.passes import peak_of_first_step
from roofleet_agent.quality import quality_row
from roofleet_agent.registry import find_engine
from roofleet_agent.rows import Sink
from roofleet_agent.run import Progress, Run, StatedCost
from roofleet_agent.storage import stored_bytes
from roofleet_agent.tracing import TracedOp, TraceResult, trace
from roofleet_agent.variants.applying import compiling
from roofleet_agent.workload import ModelRequest, Workload, phases_of


def _silent(what: str, fraction: float) -> None:
    return None


def _no_stated_cost(op: TracedOp) -> None:
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
        phases = {
            phase: trace(
                session.module,
                session.single(phase).call,
                cache=session.cache,
                experts_per_token=session.experts_per_token,
            )
            for phase in phases_of(session.task, session.new_tokens)
        }
        return Traced(session, phases, stored_bytes(session.module))

    try:
        return traced("meta")
    except (AgentError, MemoryError):
        raise
    except Exception as error:
        if request.origin != "module":
            first = str(error).strip().partition("\n")[0]
            raise ModelRefused(
                f"{request.name} could not be traced as asked: {type(error).__name__}: {first}"
            ) from error
        return traced("cpu")


def profile(
    request: ModelRequest,
    device: Device,
    dtype: str,
    workload: Workload,
    sink: Sink,
    *,
    progress: Progress = _silent,
    loaded: Callable[[], None] = lambda: None,
    stated_cost: StatedCost = _no_stated_cost,
    job_id: str | None = None,
    sweep_id: str | None = None,
) -> str:
    """Runs a model on a device and writes every row of the run to the sink; returns the run's id.

    `loaded` is called when the model is there and its run, layers and ops are written: the last moment to
    send something before measuring. `stated_cost` knows the user's own cost formulas.

    A run that fails is stored as failed with its reason, and the error raised on; OutOfMemory if the device
    had no room. KeyboardInterrupt stores it as cancelled.
    """
    engine = find_engine(request)
    run = Run(request, engine, device, dtype, workload, sink, progress)
    run.row |= {"job_id": job_id, "sweep_id": sweep_id}
    try:
        _check_dtype(device, dtype)
        if workload.quality_text is not None and request.weights == "pretrained":
            load_tokenizer(request)  # refused now rather than after everything is measured
        progress("tracing on meta", 0.0)
        traced = trace_phases(engine, request, dtype, workload)
        kv_bytes = kv_bytes_per_token(traced.session, dtype)
        _check_room(traced, request, device, dtype, workload)
        run.expect(traced.session)
        traced.session.close()
        with compiling(workload.variant):
            run.load(traced.phases, kv_bytes, stated_cost)
            loaded()
            run.measure()
            run.row |= quality_row(engine, request, run.session, device, workload, progress)
    except KeyboardInterrupt:
        run.finish("cancelled", "interrupted")
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            run.finish("failed", f"{type(error).__name__}: {error}")
            raise
        peak = allocator_peak_bytes(torch.device(device.torch_name)) or process_peak_bytes()
        run.never_loaded()
        run.row |= {"peak_memory_bytes": peak, "peak_memory_source": "when memory ran out"}
        refused = OutOfMemory(
            f"{device.info.name} ran out of memory with {peak / 2**30:.1f} GiB in use: lower the batch or "
            f"the tokens, or ask `roofleet analyze {request.name}` what fits"
        )
        run.finish("failed", str(refused))
        raise refused from error
    else:
        run.finish("done", None)
    finally:
        run.close()
    return run.run_id


def _check_dtype(device: Device, dtype: str) -> None:
    """WorkloadRefused, with those that work, if the device cannot multiply matrices of that dtype."""

    def works(name: str) -> bool:
        try:
            a = torch.ones(8, 8, dtype=TORCH_DTYPES[name], device=device.torch_name)
            return bool((a @ a).isfinite().all())
        except (RuntimeError, NotImplementedError, TypeError):
            return False

    if not works(dtype):
        there = ", ".join(name for name in TORCH_DTYPES if works(name)) or "none"
        raise WorkloadRefused(f"{device.info.name} does not compute in {dtype}; it does in {there}")


def _check_room(
    traced: Traced, request: ModelRequest, device: Device, dtype: str, workload: Workload
) -> None:
    """WorkloadRefused if weights, cache and activations cannot fit in the device's memory."""
    available = device.info.memory_bytes
    if available is None:
        return
    session, gib = traced.session, 2**30
    tokens = session.prompt_tokens + max(session.new_tokens - 1, 0)
    cache = session.cache_elements(tokens) * workload.batch_size * DTYPE_BYTES[dtype]
    beside = max(cache, peak_of_first_step(session)) if traced.weight_bytes <= available else cache
    if traced.weight_bytes + beside > available:
        raise WorkloadRefused(
            f"{request.name} needs {(traced.weight_bytes + beside) / gib:.1f} GiB in {dtype}: "
            f"{traced.weight_bytes / gib:.1f} for its weights and at least {beside / gib:.1f} for cache and "
            f"activations, and {device.info.name} has {available / gib:.1f} GiB. "
            f"`roofleet analyze {request.name}` says what fits"
        )


def kv_bytes_per_token(session: Session, dtype: str) -> int | None:
    """Bytes of cache the first token of a sequence adds; None for a model without one."""
    if session.task != "generate":
        return None
    return (session.cache_elements(1) - session.cache_elements(0)) * DTYPE_BYTES[dtype]
