"""One model watched: its calls while the user's code runs, then their costs, then the rows of the run."""

from __future__ import annotations

import importlib
import statistics
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from roofleet_agent.passes.base import Found, of_run
from roofleet_agent.passes.record import Record
from roofleet_agent.passes.tracing import StatedCost
from roofleet_agent.registry import discover_devices
from roofleet_agent.rows import Sink
from roofleet_agent.run_ids import new_run_id
from roofleet_agent.variants import Note
from roofleet_agent.watching.calls import Calls
from roofleet_agent.watching.costing import Costs, costs_of
from roofleet_agent.watching.entries import entries_of
from roofleet_agent.watching.phases import Phase
from roofleet_agent.watching.rows import calls_found, costs_found, described, noted

PATIENCE_S = 60.0
"""How long another thread's call waits at most while calls are played again."""


class Watch:
    """Watches one model between `start` and `stop`; `play` finds the costs, `write` gives rows to a sink."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.run_id = new_run_id()
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
        importlib.import_module("torch._dynamo.eval_frame")  # to be told what not to compile: see calling.py
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
        record = Record(sink, device_id(self.device), self.run_id, started_at=self._started_at)
        record.take(described(self.name, self.model, self.calls))
        record.take(costs_found(self._costs, self.calls.opaque, stated_cost))
        record.take(calls_found(self.calls))
        record.take([noted(self.calls, self._costs), self._machine()])
        record.finish(status, error)

    def _machine(self) -> Found:
        """What of the run's row tells where it ran, and what timing cost there."""
        cost = self._timer_cost
        return of_run(
            process_peak_bytes=process_peak_bytes(),
            threads=torch.get_num_threads() if self._torch_device.type == "cpu" else None,
            torch_version=torch.__version__,
            driver_version=self.device.info.driver_version,
            timer_inside_ns=cost.inside_ns if cost else None,
            timer_outside_ns=cost.outside_ns if cost else None,
            **self._conditions.row(),
        )


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
