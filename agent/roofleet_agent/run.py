"""One run on a device: its passes in their order, and the rows that say what was measured."""

from __future__ import annotations

import gc
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from roofleet_agent.conditions import Conditions
from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import Engine, Session, Step
from roofleet_agent.inventory import device_id, host_id
from roofleet_agent.measuring.allocator import process_peak_bytes, release, run_before_watched, watch
from roofleet_agent.measuring.calibration import calibrate
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.op_times import STEPS, time_ops
from roofleet_agent.measuring.passes import (
    Iteration,
    MemoryFound,
    PhaseMemory,
    TimedStep,
    all_finite,
    bare_steps,
    is_finite,
    memory_of,
    timed_steps,
)
from roofleet_agent.measuring.turns import Turns
from roofleet_agent.rows import Sink, table_of
from roofleet_agent.run_rows import (
    edge_rows,
    model_row,
    op_rows,
    op_time_rows,
    phase_memory_row,
    span_rows,
    step_rows,
)
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
        self._expected: tuple[dict[str, Any], int, int] | None = None
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

    def expect(self, traced: Session) -> None:
        """Notes what is to be loaded, from its trace, for a run that ends before the model is there."""
        self._expected = self.model_row(traced), traced.prompt_tokens, traced.new_tokens

    def never_loaded(self) -> None:
        """Writes the model that was asked for, so that the run can be stored without it."""
        if self._session is None and self._expected is not None:
            model, prompt_tokens, new_tokens = self._expected
            self.write("models", [model])
            self.row |= {
                "model_id": model["model_id"],
                "prompt_tokens": prompt_tokens,
                "new_tokens": new_tokens,
            }

    def load(self, traces: dict[str, TraceResult], kv_bytes: int | None, stated_cost: StatedCost) -> None:
        """Loads the model on the device and writes the run with its layers and ops."""
        self._progress("loading the model", 0.05)
        session = self._engine.load(self._request, self._torch_device, self._dtype, self._workload)
        self._session = session
        model = self.model_row(session)
        self.row |= {
            "model_id": model["model_id"],
            "prompt_tokens": session.prompt_tokens,
            "new_tokens": session.new_tokens,
            "prompt_sha256": session.prompt_sha256,
            "attention": session.attention,
            "variant_notes": json.dumps([asdict(note) for note in session.notes]) if session.notes else None,
            "parameters": session.held_parameters,
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
            self.write("ops", op_rows(self.run_id, phase, traces[phase], stated_cost, session.opaque))
            self.write("layer_edges", edge_rows(self.run_id, phase, traces[phase], session.opaque))

    def model_row(self, session: Session) -> dict[str, Any]:
        """The row of `models` for what was asked for."""
        request, module = self._request, session.module
        return model_row(
            request.name, request.origin, module, session.task, session.parameters, session.config_json,
            request.source,
        )  # fmt: skip

    # -- the passes on the device

    def measure(self) -> None:
        """Bare and timed steps in turns, then the passes that slow what they count: memory and ops."""
        self._time_steps()
        if self._workload.keep_outputs:
            self.write("outputs", [{"run_id": self.run_id, **row} for row in self.session.generated()])
        self._progress("memory", 0.9)
        self._memory_pass()
        self._progress("ops", 0.96)
        finite: list[bool | None] = []
        times = time_ops(self.session.module, self._torch_device, self._steps_for_ops(finite))
        self.row["outputs_finite"] = all_finite(finite)
        for phase, ops in times.items():
            rows = op_time_rows(self.run_id, phase, ops, self.session.opaque)
            self.write("op_times", rows)

    def _steps_for_ops(self, finite: list[bool | None]) -> Iterator[Step]:
        """An iteration, and its first step twice more for a median; what each gives out is looked at."""
        session = self.session
        first = phases_of(session.task, session.new_tokens)[0]
        more = (session.single(first) for _ in range(STEPS - 1))
        for step in itertools.chain(session.iteration(), more):
            yield step
            finite.append(is_finite(session.output))

    def _time_steps(self) -> None:
        session, workload = self.session, self._workload
        clock = clock_for(self._torch_device)
        cost = calibrate(clock)
        if cost is not None:
            self.row |= {"timer_inside_ns": cost.inside_ns, "timer_outside_ns": cost.outside_ns}
        turns = Turns(LayerTimer(session.module, clock, session.opaque), cost)
        total = workload.warmup + workload.iterations
        energies: list[float | None] = []
        conditions = None

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
                conditions = Conditions(
                    self._device, self.row["threads"] or 1
                )  # not before: the warm-up wakes clocks and compiles
            self._progress("warm-up" if is_warmup else "measuring", 0.15 + 0.7 * number / total)
            # Bare and timed take turns, and take turns in going first, so that a machine that slows down
            # or speeds up does so for both alike.
            bare_first = number % 2 == 0
            for kind, run in (("bare", bare), ("timed", timed))[:: 1 if bare_first else -1]:
                run(Iteration(kind, number, is_warmup))
            if conditions is not None:
                conditions.look()
        assert conditions is not None, "there is at least one iteration"
        self.row |= conditions.row()
        known = [joules for joules in energies if joules is not None]
        # a counter that did not move was too coarse for so short a time
        self.row["energy_j"] = sum(known) or None if len(known) == len(energies) else None

    def _write_steps(self, steps: list[TimedStep]) -> None:
        self._sink.write("steps", step_rows(self.run_id, steps))
        spans = span_rows(self.run_id, steps)
        if spans.num_rows:
            self._sink.write("spans", spans)

    def _memory_pass(self) -> None:
        found = memory_of(self.session, self.session.iteration())
        peaks = self._allocator_pass(found)
        for phase, layers in found.layers.items():
            rows = [{"run_id": self.run_id, "phase": phase, **asdict(layer)} for layer in layers]
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
                if (step.phase, step.step_index + 1) in wanted:
                    run_before_watched(self._torch_device, step.call)
                else:
                    step.call()
                continue
            seen = watch(self._torch_device, step.call, memory.weight_bytes + memory.start_bytes)
            peaks[step.phase] = (seen.peak_bytes, seen.reserved_bytes)
            if not wanted:
                break
        return peaks

    # -- the end

    def finish(self, status: str, error: str | None) -> None:
        """Writes how the run ended; nothing if it never came to a model: then the caller's error says why."""
        if "model_id" not in self.row:
            return
        self.row |= {"status": status, "error": error, "finished_at": datetime.now(UTC)}
        self.write("runs", [self.row])
        self._progress(status, 1.0)

    def close(self) -> None:
        """Lets go of the model."""
        if self._session is not None:
            self._session.close()
        gc.collect()
        release(self._torch_device)

    def write(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Writes rows of a table."""
        self._sink.write(table, table_of(table, rows))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
