"""One step timed: bare, or with the layers whose turn it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from roofleet_agent.engines.base import Step
from roofleet_agent.measuring.clocks import Clock
from roofleet_agent.measuring.layer_timer import Interval
from roofleet_agent.measuring.turns import Turns

Kind = Literal["bare", "timed"]


@dataclass(frozen=True)
class TimedStep:
    """A step as timed: which one, when in ns since the run began, and how long."""

    step: Step
    kind: Kind
    iteration: int
    is_warmup: bool
    start_ns: int
    duration_ns: int
    intervals: list[Interval] = field(default_factory=list)
    layer_group: int | None = None


@dataclass(frozen=True)
class Iteration:
    """Which iteration of a run, and when that began, by `time.perf_counter_ns`."""

    number: int
    is_warmup: bool
    began_ns: int = 0


def bare_step(step: Step, clock: Clock, iteration: Iteration) -> TimedStep:
    """Runs a step with nothing attached and times it until the device is done."""
    begin, duration = _timed(step, clock)
    return _told(step, "bare", iteration, begin, duration)


def timed_step(step: Step, clock: Clock, iteration: Iteration, turns: Turns) -> TimedStep:
    """The same with the layers whose turn it is timed; a step of the warm-up times them all."""
    timer = turns.timer
    group = turns.group(step.phase)
    with timer.timing(group):
        begin, duration = _timed(step, clock, timer.begin)
    intervals = timer.intervals()
    if iteration.is_warmup:
        turns.saw(step.phase, duration, timer.calls)
    told = _told(step, "timed", iteration, begin, duration)
    return replace(told, intervals=[] if iteration.is_warmup else intervals, layer_group=group.number)


def _timed(step: Step, clock: Clock, ready: Callable[[], None] = lambda: None) -> tuple[int, int]:
    clock.synchronize()
    ready()
    begin = time.perf_counter_ns()
    step.call()
    clock.synchronize()
    return begin, time.perf_counter_ns() - begin


def _told(step: Step, kind: Kind, iteration: Iteration, begin_ns: int, duration_ns: int) -> TimedStep:
    step = replace(step, call=_nothing)  # what the step would do holds on to the cache
    start = begin_ns - iteration.began_ns
    return TimedStep(step, kind, iteration.number, iteration.is_warmup, start, duration_ns)


def _nothing() -> None:
    return None
