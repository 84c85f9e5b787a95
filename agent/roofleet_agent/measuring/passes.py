"""One iteration of a pass: its steps in order, timed as a whole, with layer times or with memory followed."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from roofleet_agent.engines.base import Session, Step
from roofleet_agent.measuring.clocks import Clock
from roofleet_agent.measuring.layer_timer import Interval
from roofleet_agent.measuring.memory import LayerMemory, MemoryTracker, over_calls
from roofleet_agent.measuring.turns import Turns
from roofleet_agent.storage import state_tensors, stored_bytes


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
    layer_group: int | None = None


@dataclass(frozen=True)
class Iteration:
    """Which iteration of which pass: `kind` is `bare` or `timed`."""

    kind: str
    number: int
    is_warmup: bool


def bare_steps(session: Session, clock: Clock, iteration: Iteration, began_ns: int) -> Iterator[TimedStep]:
    """Runs the steps of an iteration and times each until the device is done.

    `began_ns` is when the run began, by `time.perf_counter_ns`.
    """
    with _collector_paused():
        for step in session.iteration():
            begin, duration = _timed(step, clock)
            yield _told(step, iteration, begin - began_ns, duration)


def timed_steps(
    session: Session, clock: Clock, iteration: Iteration, began_ns: int, turns: Turns
) -> Iterator[TimedStep]:
    """The same with the layers whose turn it is timed in each step; warm-up steps time them all."""
    timer = turns.timer
    with _collector_paused():
        for step in session.iteration():
            group = turns.group(step.phase, step.step_index, iteration.number)
            with timer.timing(group):
                begin, duration = _timed(step, clock, timer.begin)
            intervals = timer.intervals()
            if iteration.is_warmup:
                turns.saw(step.phase, duration, timer.calls)
            told = _told(step, iteration, begin - began_ns, duration)
            yield replace(told, intervals=[] if iteration.is_warmup else intervals, layer_group=group.number)


def _timed(step: Step, clock: Clock, ready: Callable[[], None] = lambda: None) -> tuple[int, int]:
    clock.synchronize()
    ready()
    begin = time.perf_counter_ns()
    step.call()
    clock.synchronize()
    return begin, time.perf_counter_ns() - begin


def _told(step: Step, iteration: Iteration, start_ns: int, duration_ns: int) -> TimedStep:
    step = replace(step, call=_nothing)  # what the step would do holds on to the cache
    return TimedStep(step, iteration.kind, iteration.number, iteration.is_warmup, start_ns, duration_ns)


@dataclass(frozen=True)
class PhaseMemory:
    """What a phase holds at its peak, in bytes, and when and where that was.

    `start_bytes` were alive beside the weights when the step with the peak began.
    """

    phase: str
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    start_bytes: int
    peak_step_index: int
    peak_path: str | None
    peak_op: str | None

    @property
    def peak_bytes(self) -> int:
        """All of it."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


class HasMemory(Protocol):
    """A model and its key-value cache, as a Session has them."""

    module: nn.Module

    def cache(self) -> Iterable[torch.Tensor]:
        """See Session.cache."""
        ...


@dataclass(frozen=True)
class MemoryFound:
    """What the memory pass found: one entry a phase, and the layers of its step with the highest peak."""

    phases: dict[str, PhaseMemory]
    layers: dict[str, list[LayerMemory]]


def memory_of(session: HasMemory, steps: Iterable[Step]) -> MemoryFound:
    """Runs the steps under a memory tracker; each must be called before the next is asked for.

    Works on `meta` as on a device: the figures are those of tensors, which are the same everywhere.
    """
    module = session.module
    weights = stored_bytes(module)
    tracker = MemoryTracker(state_tensors(module))
    found = MemoryFound({}, {})
    # a mode that looks on keeps code from being compiled, and some, flex attention's, insists on it
    uncompiled = torch.compiler.set_stance("force_eager")
    with torch.inference_mode(), uncompiled, tracker, tracker.following(module):
        for step in steps:
            tracker.begin_step(session.cache())
            before = tracker.live_bytes
            step.call()
            tracker.mark_cache(session.cache())
            peak = tracker.peak()
            known = found.phases.get(step.phase)
            if known is None or known.peak_bytes < weights + peak.bytes:
                found.phases[step.phase] = PhaseMemory(
                    step.phase,
                    weights,
                    peak.kv_bytes,
                    peak.bytes - peak.kv_bytes,
                    before,
                    step.step_index,
                    peak.path,
                    peak.op,
                )
                found.layers[step.phase] = over_calls(tracker.layers)
    return found


def peak_of_first_step(session: Session) -> int:
    """The most cache and activation bytes alive in the first step of an iteration."""
    found = memory_of(session, itertools.islice(session.iteration(), 1))
    return max(f.peak_bytes - f.weight_bytes for f in found.phases.values())


def is_finite(output: Any) -> bool | None:
    """Whether no number of the output is NaN or infinite; None if there is no tensor of numbers to look at.

    Looked at are a tensor, and tensors in lists, tuples, mappings and dataclasses.
    """
    if isinstance(output, torch.Tensor):
        return bool(torch.isfinite(output).all()) if output.is_floating_point() else None
    if is_dataclass(output) and not isinstance(output, Mapping):
        parts: Iterable[Any] = [getattr(output, f.name) for f in fields(output)]
    elif isinstance(output, Mapping):
        parts = output.values()
    elif isinstance(output, (list, tuple)):
        parts = output
    else:
        return None
    return all_finite(map(is_finite, parts))


def all_finite(answers: Iterable[bool | None]) -> bool | None:
    """No if one is no, else yes if one is yes; None if nothing was looked at."""
    known = [answer for answer in answers if answer is not None]
    return all(known) if known else None


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
