"""One run: trace, bare, timed and memory pass, and the rows that say what was measured."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import resource
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import DTYPE_BYTES, Engine, Session
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.inventory import device_id, host_id
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.passes import Iteration, TimedStep, timed_steps, track_memory
from roofleet_agent.registry import find_engine
from roofleet_agent.rows import Sink, table_of
from roofleet_agent.run_rows import op_rows, span_rows, step_rows
from roofleet_agent.tracing import TraceResult, layers_of, restated, trace
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens, phases_of

Progress = Callable[[str, float], None]
"""Hears what is being done and how far the run is, from 0 to 1."""


def _silent(what: str, fraction: float) -> None:
    return None


@dataclass(frozen=True)
class Traced:
    """The model on `meta`, what one step of each phase executes, and the bytes its weights take as stored."""

    session: Session
    phases: dict[str, TraceResult]
    weight_bytes: int


def trace_phases(engine: Engine, request: ModelRequest, dtype: str, workload: Workload) -> Traced:
    """The model on `meta` and what one step of each of its phases executes; for decode the middle step.

    A module of the user's own that looks at its data, which `meta` has not, is traced on the CPU. Grouped
    experts exist on `meta` in bf16 only: a mixture of experts is traced so, and its tensors told in the dtype
    asked for.
    """

    def traced(device: str, traced_dtype: str) -> Traced:
        session = engine.load(request, torch.device(device), traced_dtype, workload)
        phases = {
            phase: trace(
                session.module,
                session.single(phase).call,
                cache=session.cache,
                experts_per_token=session.experts_per_token,
            )
            for phase in phases_of(session.task, session.new_tokens)
        }
        weights = sum(p.numel() for p in session.module.parameters()) * DTYPE_BYTES[dtype]
        return Traced(
            session, {p: restated(found, traced_dtype, dtype) for p, found in phases.items()}, weights
        )

    try:
        return traced("meta", dtype)
    except (RuntimeError, NotImplementedError) as error:
        if request.origin == "module":
            return traced("cpu", dtype)
        if "BF16" not in str(error):
            raise
        return traced("meta", "bf16")


def profile(
    request: ModelRequest,
    device: Device,
    dtype: str,
    workload: Workload,
    sink: Sink,
    *,
    progress: Progress = _silent,
    loaded: Callable[[], None] = lambda: None,
    job_id: str | None = None,
) -> str:
    """Runs a model on a device and writes every row of the run to the sink; returns the run's id.

    `loaded` is called when the model is there and its run, layers and ops are written: the last moment to
    send something before measuring.

    A run that fails is stored as failed with its reason, and the error raised on. KeyboardInterrupt stores
    it as cancelled.
    """
    run = _Run(request, device, dtype, workload, sink, progress, job_id)
    try:
        run.load()
        loaded()
        run.measure()
    except KeyboardInterrupt:
        run.finish("cancelled", "interrupted")
        raise
    except Exception as error:
        run.finish("failed", f"{type(error).__name__}: {error}")
        raise
    else:
        run.finish("done", None)
    finally:
        run.close()
    return run.run_id


class _Run:
    def __init__(
        self,
        request: ModelRequest,
        device: Device,
        dtype: str,
        workload: Workload,
        sink: Sink,
        progress: Progress,
        job_id: str | None,
    ) -> None:
        self.run_id = str(uuid.uuid4())
        self._request, self._device, self._dtype = request, device, dtype
        self._workload, self._sink, self._progress = workload, sink, progress
        self._torch_device = torch.device(device.torch_name)
        self._engine = find_engine(request)
        self._began = time.perf_counter_ns()
        self._session: Session | None = None
        self._row: dict[str, Any] = {
            "run_id": self.run_id,
            "host_id": host_id(),
            "device_id": device_id(device),
            "job_id": job_id,
            "status": "running",
            "started_at": datetime.now(UTC),
            "dtype": dtype,
            "variant": "base",
            "weights": request.weights,
            "engine": self._engine.name,
            "batch_size": workload.batch_size,
            "logits": workload.logits,
            "iterations": workload.iterations,
            "warmup": workload.warmup,
            "threads": torch.get_num_threads() if self._torch_device.type == "cpu" else None,
            "torch_version": torch.__version__,
            "transformers_version": _version("transformers") if request.origin != "module" else None,
        }

    # -- loading and the trace pass

    def load(self) -> None:
        self._progress("tracing on meta", 0.0)
        traced = trace_phases(self._engine, self._request, self._dtype, self._workload)
        traces, needed = traced.phases, traced.weight_bytes
        kv_bytes = kv_bytes_per_token(traced.session, self._dtype)
        traced.session.close()
        available = self._device.info.memory_bytes
        if available is not None and needed > available:
            raise WorkloadRefused(
                f"{self._request.name} needs {needed / 2**30:.1f} GiB for its weights in {self._dtype}, and "
                f"{self._device.info.name} has {available / 2**30:.1f} GiB. `roofleet analyze` counts it "
                "without running it"
            )
        self._progress("loading the model", 0.05)
        session = self._engine.load(self._request, self._torch_device, self._dtype, self._workload)
        self._session = session
        model = self._model_row(session)
        state = list(session.module.parameters())
        self._row |= {
            "model_id": model["model_id"],
            "prompt_tokens": session.prompt_tokens,
            "new_tokens": session.new_tokens,
            "prompt_sha256": session.prompt_sha256,
            "attention": session.attention,
            "parameter_bytes": sum(p.numel() * p.element_size() for p in state),
            "kv_bytes_per_token": kv_bytes,
        }
        phases = phases_of(session.task, session.new_tokens)
        if "decode" in phases:
            self._row["decode_cache_tokens"] = middle_cache_tokens(session.prompt_tokens, session.new_tokens)
        # A module of the user's own may take another batch than was asked for: its inputs decide.
        self._row["batch_size"] = getattr(session, "batch_size", self._workload.batch_size)
        self._write("models", [model])
        self._write("runs", [self._row])
        self._write("layers", [{"run_id": self.run_id, **asdict(la)} for la in layers_of(session.module)])
        for phase in phases:
            self._write("ops", op_rows(self.run_id, phase, traces[phase]))
            self._write(
                "layer_edges",
                [{"run_id": self.run_id, "phase": phase, **asdict(edge)} for edge in traces[phase].edges],
            )

    def _model_row(self, session: Session) -> dict[str, Any]:
        config = session.config_json
        architecture = type(session.module).__name__
        parameters = sum(p.numel() for p in session.module.parameters())
        identity = "\n".join((self._request.name, config or f"{architecture} {parameters}"))
        return {
            "model_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
            "name": self._request.name,
            "origin": self._request.origin,
            "architecture": architecture,
            "task": session.task,
            "parameters": parameters,
            "config": config,
            "source": self._request.source,
        }

    # -- the passes on the device

    def measure(self) -> None:
        assert self._session is not None
        session, workload = self._session, self._workload
        clock = clock_for(self._torch_device)
        timer = LayerTimer(session.module, clock)
        total = workload.warmup + workload.iterations
        energies: list[float | None] = []

        def bare(number: int, is_warmup: bool) -> None:
            before = self._device.energy_j()
            this = Iteration("bare", number, is_warmup)
            steps = list(timed_steps(session, clock, this, self._began))
            after = self._device.energy_j()
            if not is_warmup:
                energies.append(None if before is None or after is None else after - before)
            self._write_steps(steps)

        def timed(number: int, is_warmup: bool) -> None:
            this = Iteration("timed", number, is_warmup)
            with timer.attached():
                steps = list(timed_steps(session, clock, this, self._began, timer))
            self._write_steps(steps)

        for number in range(total):
            is_warmup = number < workload.warmup
            self._progress("warm-up" if is_warmup else "measuring", 0.15 + 0.75 * number / total)
            # Bare and timed take turns, and take turns in going first, so that a machine that slows down
            # or speeds up does so for both alike.
            for run in (bare, timed) if number % 2 == 0 else (timed, bare):
                run(number, is_warmup)
        known = [joules for joules in energies if joules is not None]
        self._row["energy_j"] = sum(known) if len(known) == len(energies) else None
        self._progress("memory", 0.92)
        self._memory_pass(session)

    def _write_steps(self, steps: list[TimedStep]) -> None:
        self._sink.write("steps", step_rows(self.run_id, steps))
        spans = span_rows(self.run_id, steps)
        if spans.num_rows:
            self._sink.write("spans", spans)

    def _memory_pass(self, session: Session) -> None:
        forget_allocator_peak(self._torch_device)
        tracker, phases = track_memory(session)
        allocated = allocator_peak_bytes(self._torch_device)
        if allocated is None:
            self._row["peak_memory_bytes"] = self._row["parameter_bytes"] + tracker.peak_bytes
            self._row["peak_memory_source"] = "live tensors"
        else:
            self._row["peak_memory_bytes"] = allocated
            self._row["peak_memory_source"] = f"torch.{self._torch_device.type} allocator"
        self._row["process_peak_bytes"] = process_peak_bytes()
        for phase, layers in phases.items():
            last = {layer.path: layer for layer in layers}  # a layer called twice: its last call
            self._write(
                "layer_memory",
                [{"run_id": self.run_id, "phase": phase, **asdict(layer)} for layer in last.values()],
            )

    # -- the end

    def finish(self, status: str, error: str | None) -> None:
        if self._session is None and status != "done":
            return  # it never became a run: the caller's error says why
        self._row |= {"status": status, "error": error, "finished_at": datetime.now(UTC)}
        self._write("runs", [self._row])
        self._progress(status, 1.0)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        gc.collect()

    def _write(self, table: str, rows: list[dict[str, Any]]) -> None:
        self._sink.write(table, table_of(table, rows))


def kv_bytes_per_token(session: Session, dtype: str) -> int | None:
    """Bytes of cache the first token of a sequence takes; None for a model without one."""
    return session.cache_elements(1) * DTYPE_BYTES[dtype] if session.task == "generate" else None


def forget_allocator_peak(device: torch.device) -> None:
    """Lets the device's allocator begin a new peak, where it keeps one."""
    if device.type != "cpu":
        with contextlib.suppress(RuntimeError, NotImplementedError, AttributeError):
            torch.accelerator.reset_peak_memory_stats(device)


def allocator_peak_bytes(device: torch.device) -> int | None:
    """The most the device's allocator gave out; None on the CPU and where the backend does not tell."""
    if device.type == "cpu":
        return None
    try:
        return int(torch.accelerator.max_memory_allocated(device))
    except (RuntimeError, NotImplementedError, AttributeError):
        return None


def process_peak_bytes() -> int:
    """The most memory this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
