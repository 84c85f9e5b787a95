"""One run on a device: its passes in their order, and the rows that say what was measured."""

from __future__ import annotations

import gc
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from roofleet_agent.conditions import Conditions
from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import Engine, Session
from roofleet_agent.inventory import device_id, host_id
from roofleet_agent.measuring.allocator import process_peak_bytes, watch
from roofleet_agent.measuring.calibration import calibrate
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.op_times import time_ops
from roofleet_agent.measuring.passes import (
    Iteration,
    MemoryFound,
    PhaseMemory,
    TimedStep,
    bare_steps,
    is_finite,
    memory_of,
    timed_steps,
)
from roofleet_agent.measuring.turns import Turns
from roofleet_agent.rows import Sink, table_of
from roofleet_agent.run_rows import op_rows, phase_memory_row, span_rows, step_rows
from roofleet_agent.storage import stored_bytes
from roofleet_agent.tracing import TracedOp, TraceResult, layers_of
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens, phases_of

Progress = Callable[[str, float], None]
"""Hears what is being done and how far the run is, from 0 to 1."""
StatedCost = Callable[[TracedOp], str | None]
"""JSON of an op's cost by a formula of the user's own; None where there is none."""


class Run:
    """Measures one model; `row` is its row of `runs`, which is written again when there is more to say."""

    def __init__(
        self,
        request: ModelRequest,
        engine: Engine,
        device: Device,
        dtype: str,
        workload: Workload,
        sink: Sink,
        progress: Progress,
    ) -> None:
        self.run_id = str(uuid.uuid4())
        self.began_ns = time.perf_counter_ns()
        self._request, self._engine, self._device, self._dtype = request, engine, device, dtype
        self._workload, self._sink, self._progress = workload, sink, progress
        self._torch_device = torch.device(device.torch_name)
        self._session: Session | None = None
        self.row: dict[str, Any] = {
            "run_id": self.run_id,
            "host_id": host_id(),
            "device_id": device_id(device),
            "status": "running",
            "started_at": datetime.now(UTC),
            "dtype": dtype,
            "variant": workload.variant.name,
            "weights": request.weights,
            "engine": engine.name,
            "batch_size": workload.batch_size,
            "logits": workload.logits,
            "iterations": workload.iterations,
            "warmup": workload.warmup,
            "threads": torch.get_num_threads() if self._torch_device.type == "cpu" else None,
            "torch_version": torch.__version__,
            "transformers_version": _version("transformers") if request.origin != "module" else None,
        }

    @property
    def session(self) -> Session:
        """The loaded model."""
        assert self._session is not None, "load comes first"
        return self._session

    # -- loading, and what the trace pass found

    def load(self, traces: dict[str, TraceResult], kv_bytes: int | None, stated_cost: StatedCost) -> None:
        """Loads the model on the device and writes the run with its layers and ops."""
        self._progress("loading the model", 0.05)
        session = self._engine.load(self._request, self._torch_device, self._dtype, self._workload)
        self._session = session
        model = _model_row(self._request, session)
        self.row |= {
            "model_id": model["model_id"],
            "prompt_tokens": session.prompt_tokens,
            "new_tokens": session.new_tokens,
            "prompt_sha256": session.prompt_sha256,
            "attention": session.attention,
            "variant_notes": json.dumps([asdict(note) for note in session.notes]) if session.notes else None,
            "parameter_bytes": stored_bytes(session.module),
            "kv_bytes_per_token": kv_bytes,
            # A module of the user's own may take another batch than was asked for: its inputs decide.
            "batch_size": getattr(session, "batch_size", self._workload.batch_size),
        }
        phases = phases_of(session.task, session.new_tokens)
        if "decode" in phases:
            self.row["decode_cache_tokens"] = middle_cache_tokens(session.prompt_tokens, session.new_tokens)
        self.write("models", [model])
        self.write("runs", [self.row])
        self.write("layers", [{"run_id": self.run_id, **asdict(la)} for la in layers_of(session.module)])
        for phase in phases:
            self.write("ops", op_rows(self.run_id, phase, traces[phase], stated_cost))
            self.write(
                "layer_edges",
                [{"run_id": self.run_id, "phase": phase, **asdict(edge)} for edge in traces[phase].edges],
            )

    # -- the passes on the device

    def measure(self) -> None:
        """Bare and timed steps in turns, then the passes that slow what they count: memory and ops."""
        conditions = Conditions(self._device)
        self._time_steps(conditions)
        self.row |= conditions.row()
        self._progress("memory", 0.9)
        self._memory_pass()
        self._progress("ops", 0.96)
        times = time_ops(self.session.module, self._torch_device, self.session.iteration())
        for phase, ops in times.items():
            self.write("op_times", [{"run_id": self.run_id, "phase": phase, **asdict(op)} for op in ops])
        if self._workload.keep_outputs:
            self.write("outputs", [{"run_id": self.run_id, **row} for row in self.session.generated()])

    def _time_steps(self, conditions: Conditions) -> None:
        session, workload = self.session, self._workload
        clock = clock_for(self._torch_device)
        cost = calibrate(clock)
        if cost is not None:
            self.row |= {"timer_inside_ns": cost.inside_ns, "timer_outside_ns": cost.outside_ns}
        turns = Turns(LayerTimer(session.module, clock, session.opaque), cost)
        total = workload.warmup + workload.iterations
        energies: list[float | None] = []
        finite = True

        def bare(this: Iteration) -> None:
            before = self._device.energy_j()
            steps = list(bare_steps(session, clock, this, self.began_ns))
            after = self._device.energy_j()
            if not this.is_warmup:
                energies.append(None if before is None or after is None else after - before)
            self._write_steps(steps)

        def timed(this: Iteration) -> None:
            self._write_steps(list(timed_steps(session, clock, this, self.began_ns, turns)))

        for number in range(total):
            is_warmup = number < workload.warmup
            if number == workload.warmup:
                each = {"decode": max(session.new_tokens - 1, 0)}
                phases = phases_of(session.task, session.new_tokens)
                turns.settle({phase: each.get(phase, 1) * workload.iterations for phase in phases})
            self._progress("warm-up" if is_warmup else "measuring", 0.15 + 0.7 * number / total)
            # Bare and timed take turns, and take turns in going first, so that a machine that slows down
            # or speeds up does so for both alike.
            bare_first = number % 2 == 0
            for kind, run in (("bare", bare), ("timed", timed))[:: 1 if bare_first else -1]:
                run(Iteration(kind, number, is_warmup))
            conditions.look()
            finite = finite and is_finite(session.output)
        self.row["outputs_finite"] = finite
        known = [joules for joules in energies if joules is not None]
        self.row["energy_j"] = sum(known) if len(known) == len(energies) else None

    def _write_steps(self, steps: list[TimedStep]) -> None:
        self._sink.write("steps", step_rows(self.run_id, steps))
        spans = span_rows(self.run_id, steps)
        if spans.num_rows:
            self._sink.write("spans", spans)

    def _memory_pass(self) -> None:
        found = memory_of(self.session, self.session.iteration())
        peaks = self._allocator_pass(found)
        for phase, layers in found.layers.items():
            last = {layer.path: layer for layer in layers}  # a layer called twice: its last call
            rows = [{"run_id": self.run_id, "phase": phase, **asdict(layer)} for layer in last.values()]
            self.write("layer_memory", rows)
        rows = [phase_memory_row(self.run_id, m, *peaks[p]) for p, m in found.phases.items()]
        self.write("phase_memory", rows)
        allocated = [row["allocator_peak_bytes"] for row in rows if row["allocator_peak_bytes"] is not None]
        reserved = [row["allocator_reserved_bytes"] for row in rows if row["allocator_reserved_bytes"]]
        self.row |= {
            "peak_memory_bytes": max(row["peak_bytes"] for row in rows),
            "peak_memory_source": "live tensors",
            "allocator_peak_bytes": max(allocated, default=None),
            "allocator_reserved_bytes": max(reserved, default=None),
            "process_peak_bytes": process_peak_bytes(),
        }

    def _allocator_pass(self, found: MemoryFound) -> dict[str, tuple[int | None, int | None]]:
        """The allocator's peak and reserve in the step of each phase that had the highest peak, in bytes."""
        wanted = {(m.phase, m.peak_step_index): m for m in found.phases.values()}
        peaks: dict[str, tuple[int | None, int | None]] = dict.fromkeys(found.phases, (None, None))
        for step in self.session.iteration():
            memory: PhaseMemory | None = wanted.pop((step.phase, step.step_index), None)
            if memory is None:
                step.call()
                continue
            seen = watch(self._torch_device, step.call, memory.weight_bytes + memory.start_bytes)
            peaks[step.phase] = (seen.peak_bytes, seen.reserved_bytes)
            if not wanted:
                break
        return peaks

    # -- the end

    def finish(self, status: str, error: str | None) -> None:
        """Writes how the run ended; nothing if it never was loaded: then the caller's error says why."""
        if self._session is None and status != "done":
            return
        self.row |= {"status": status, "error": error, "finished_at": datetime.now(UTC)}
        self.write("runs", [self.row])
        self._progress(status, 1.0)

    def close(self) -> None:
        """Lets go of the model."""
        if self._session is not None:
            self._session.close()
        gc.collect()

    def write(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Writes rows of a table."""
        self._sink.write(table, table_of(table, rows))


def _model_row(request: ModelRequest, session: Session) -> dict[str, Any]:
    config = session.config_json
    architecture = type(session.module).__name__
    identity = "\n".join((request.name, config or f"{architecture} {session.parameters}"))
    return {
        "model_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "name": request.name,
        "origin": request.origin,
        "architecture": architecture,
        "task": session.task,
        "parameters": session.parameters,
        "config": config,
        "source": request.source,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
