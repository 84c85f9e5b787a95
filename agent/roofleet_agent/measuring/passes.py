"""One iteration of a pass: its steps in order, timed as a whole, with layer times or with memory followed."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from roofleet_agent.engines.base import Session, Step
from roofleet_agent.measuring.clocks import Clock
from roofleet_agent.measuring.layer_timer import Interval, LayerTimer
from roofleet_agent.measuring.memory import LayerMemory, MemoryTracker


@dataclass(frozen=True)
class TimedStep:
    """A step as timed: which one, when in ns since the run began, and how long."""

    step: Step
    kind: str
    iteration: int
    is_warmup: bool
    start_ns: int
    duration_ns: int
    intervals: list[Interval] = field(default_factory=list)


@dataclass(frozen=True)
class Iteration:
    """Which iteration of which pass: `kind` is `bare` or `timed`."""

    kind: str
    number: int
    is_warmup: bool


def timed_steps(
    session: Session, clock: Clock, iteration: Iteration, began_ns: int, timer: LayerTimer | None = None
) -> Iterator[TimedStep]:
    """Runs the steps of an iteration and times each until the device is done.

    `began_ns` is when the run began, by `time.perf_counter_ns`. With a timer, which must be attached, a step
    that is no warm-up has the intervals of its layers.
    """
    with _collector_paused():
        for step in session.iteration():
            clock.synchronize()
            if timer is not None:
                timer.begin()
            begin = time.perf_counter_ns()
            step.call()
            clock.synchronize()
            duration = time.perf_counter_ns() - begin
            yield TimedStep(
                replace(step, call=_nothing),  # what the step would do holds on to the cache
                iteration.kind,
                iteration.number,
                iteration.is_warmup,
                begin - began_ns,
                duration,
                timer.intervals() if timer is not None and not iteration.is_warmup else [],
            )


def track_memory(session: Session) -> tuple[MemoryTracker, dict[str, list[LayerMemory]]]:
    """Runs one iteration under a memory tracker; the layers of each phase are those of its last step."""
    module = session.module
    tracker = MemoryTracker([*module.parameters(), *module.buffers()])
    phases: dict[str, list[LayerMemory]] = {}
    with torch.inference_mode(), tracker, tracker.following(module):
        for step in session.iteration():
            tracker.layers = []
            step.call()
            phases[step.phase] = tracker.layers
    return tracker, phases


def peak_of_first_step(session: Session) -> int:
    """The most cache and activation bytes alive in the first step of an iteration."""
    module = session.module
    tracker = MemoryTracker([*module.parameters(), *module.buffers()])
    step = next(iter(session.iteration()))
    with torch.inference_mode(), tracker:
        step.call()
    return tracker.peak_bytes


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Python's garbage collector does not run inside a pass: a step must not pay for another's garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _nothing() -> None:
    return None
