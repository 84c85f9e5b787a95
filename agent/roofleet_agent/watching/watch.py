"""One model watched: its calls while the user's code runs, then their costs, then the rows of the run."""

from __future__ import annotations

import json
import logging
import statistics
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from roofleet_agent.calling import Call, around
from roofleet_agent.conditions import Conditions
from roofleet_agent.devices.base import Device
from roofleet_agent.inventory import device_id
from roofleet_agent.measuring.allocator import process_peak_bytes
from roofleet_agent.measuring.calibration import calibrate
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.steps import TimedStep
from roofleet_agent.passes.base import Found, of_run
from roofleet_agent.passes.describing import layer_rows, model_row
from roofleet_agent.passes.memory import memory_rows
from roofleet_agent.passes.record import Record
from roofleet_agent.passes.timing import step_rows
from roofleet_agent.passes.tracing import StatedCost, traced_rows
from roofleet_agent.registry import discover_devices
from roofleet_agent.rows import Sink
from roofleet_agent.storage import held_parameters, stored_bytes
from roofleet_agent.tracing.operands import dtype_name
from roofleet_agent.variants import Note
from roofleet_agent.watching.calls import Calls, Phase
from roofleet_agent.watching.costing import Costs, costs_of
from roofleet_agent.watching.entries import entries_of

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long another thread's call waits at most while calls are played again."""


class Watch:
    """Watches one model between `start` and `stop`; `play` finds the costs, `write` gives rows to a sink."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.run_id = str(uuid.uuid4())
        self.model, self.name = model, name
        self.device = _device_of(model)
        self._torch_device = torch.device(self.device.torch_name)
        clock = clock_for(self._torch_device)
        self._timer_cost = calibrate(clock)
        self.calls = Calls(model, clock)
        self._started_at = datetime.now(UTC)
        on_cpu = self._torch_device.type == "cpu"
        self._conditions = Conditions(self.device, torch.get_num_threads() if on_cpu else 1)
        self._costs = Costs()
        self._still_under_way = 0

    @property
    def phases(self) -> Mapping[str, Phase]:
        """What was seen of each kind of call; empty if the model was not called."""
        return {name: phase for name, phase in self.calls.phases.items() if phase.begun}

    def why_not_called(self) -> str:
        """What to do about a model that was not called."""
        if self.calls.failure is not None:
            return f"the watching failed ({self.calls.failure})"
        if self.calls.orphans:
            path, calls = max(self.calls.orphans.items(), key=lambda item: item[1])
            times = "once" if calls == 1 else f"{calls} times"
            return (
                f"its part `{path}` was called {times} without it. Profile that part, or call the model "
                f"itself, which is {type(self.model).__name__}"
            )
        return (
            f"call the model itself, which is {type(self.model).__name__}, there. Calls from inside "
            "compiled or scripted code, or from other processes, are not seen"
        )

    def in_short(self) -> str:
        """The calls of each phase and how long the bare ones took, in ms."""
        parts = []
        for name, phase in self.phases.items():
            bare = [s.duration_ns for s in phase.steps if s.kind == "bare"] or [
                s.duration_ns for s in phase.steps
            ]
            took = f", {statistics.median(bare) / 1e6:.3g} ms each" if bare else ""
            parts.append(f"{phase.begun} x {name}{took}")
        return "; ".join(parts)

    def start(self) -> None:
        """Watches the calls from now on."""

        self.calls.start()

    def stop(self) -> None:
        """Watches no longer."""
        self._still_under_way = self.calls.stop()

    def play(self) -> None:
        """Finds the ops and the memory of each phase; calls of other threads wait meanwhile."""
        if self._still_under_way:
            reason = f"{self._still_under_way} calls were still under way when the with statement ended"
            self._costs.notes.append(Note("", reason, "ops and memory are not known"))
            return
        with _others_waiting(self.model):
            self._costs = costs_of(self.model, self.calls.phases.values())

    def write(self, sink: Sink, status: str, error: str | None, stated_cost: StatedCost) -> None:
        """Writes the run with everything that was seen."""

        record = Record(sink, device_id(self.device), self.run_id)
        ask = getattr(getattr(self.model, "config", None), "to_json_string", None)
        phases, opaque = self.calls.phases, self.calls.opaque
        model = model_row(
            self.name,
            "module",
            self.model,
            "generate" if {"prefill", "decode"} & set(phases) else "encode",
            held_parameters(self.model),
            ask() if callable(ask) else None,
        )
        record.take([Found("models", [model]), layer_rows(self.model)])
        played = self._costs.played
        traces = {name: one.traced for name, one in played.items()}
        record.take(traced_rows(traces, None, stated_cost, opaque))
        for one in played.values():
            record.take(memory_rows(one.memory))
        for phase in phases.values():
            record.take(step_rows(list(_warmed_up(phase.steps))))
        peak = max((one.memory.phases[name].peak_bytes for name, one in played.items()), default=None)
        record.take([of_run(**self._run_row(model["model_id"], peak))])
        record.finish(status, error)

    def _run_row(self, model_id: str, peak: int | None) -> dict[str, Any]:
        phases = self.calls.phases
        first = phases.get("prefill") or phases.get("forward") or next(iter(phases.values()))
        decode = phases.get("decode")
        generations = max(self.calls.generations, 1)
        floating = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        notes = [*self._costs.notes, *self._notes()]
        cost = self._timer_cost
        return {
            "model_id": model_id,
            "started_at": self._started_at,
            "dtype": "fp32" if floating is None else dtype_name(floating),
            "variant": "base",
            "weights": "own",
            "attention": getattr(getattr(self.model, "config", None), "_attn_implementation", None),
            "engine": "watch",
            "batch_size": first.batch,
            "prompt_tokens": first.tokens,
            "new_tokens": int(decode is not None or "prefill" in phases)
            + (0 if decode is None else decode.begun // generations),
            "decode_cache_tokens": self._costs.cached,
            "variant_notes": json.dumps([asdict(note) for note in notes]) if notes else None,
            "logits": first.logits,
            "iterations": generations,
            "warmup": 0,
            "parameters": held_parameters(self.model),
            "parameter_bytes": stored_bytes(self.model),
            "peak_memory_bytes": peak,
            "peak_memory_source": None if peak is None else "live tensors",
            "process_peak_bytes": process_peak_bytes(),
            "threads": torch.get_num_threads() if self._torch_device.type == "cpu" else None,
            "torch_version": torch.__version__,
            "driver_version": self.device.info.driver_version,
            "outputs_finite": self._costs.finite,
            "timer_inside_ns": cost.inside_ns if cost else None,
            "timer_outside_ns": cost.outside_ns if cost else None,
            **self._conditions.row(),
        }

    def _notes(self) -> Iterator[Note]:
        if self.calls.failure is not None:
            yield Note("", f"the watching failed ({self.calls.failure})", "calls after that are not timed")
        for phase in self.calls.phases.values():
            yield from _notes_of(phase)


def _notes_of(phase: Phase) -> Iterator[Note]:
    if phase.unlike:
        shape = " x ".join(map(str, phase.shape or ()))
        reason = f"{phase.unlike} calls of {phase.name} had another shape than the first, {shape}"
        yield Note("", reason, "they are not timed")
    if phase.beside:
        reason = f"{len(phase.beside)} timed calls of {phase.name} ran beside others in other threads"
        left_out = phase.steps is phase.alone
        done = "they are left out" if left_out else "their times are of calls that share the machine"
        yield Note("", reason, done)


def _warmed_up(steps: list[TimedStep]) -> Iterator[TimedStep]:
    """The steps with the first pair marked as warm-up, where there are more."""
    for step in steps:
        is_warmup = step.iteration == 0 and len(steps) >= 4
        yield replace(step, is_warmup=True, intervals=[]) if is_warmup else step


@contextmanager
def _others_waiting(model: nn.Module) -> Iterator[None]:
    """Calls of a model from other threads wait until the block ends, or too long."""
    player, over = threading.get_ident(), threading.Event()

    def gate(call: Call) -> Call:
        def passed(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != player:
                over.wait(PATIENCE_S)
            return call(*args, **kwargs)

        return passed

    try:
        with around((module, gate) for _, module in entries_of(model)):
            yield
    finally:
        over.set()


def _device_of(model: nn.Module) -> Device:
    places = [p.device for p in model.parameters() if p.device.type != "meta"]
    found = discover_devices()
    for device in found[1:] if places else ():
        if torch.device(device.torch_name) == places[0]:
            return device
    return found[0]
