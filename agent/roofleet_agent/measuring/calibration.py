"""What timing a layer costs, measured on layers that do nothing, so that it can be taken off."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from roofleet_agent.measuring.clocks import Clock, HostClock
from roofleet_agent.measuring.layer_timer import LayerTimer

LAYERS = 100
ROUNDS = 60


@dataclass(frozen=True)
class TimerCost:
    """What one timed call adds, in ns: to its own interval, and to the layer around it.

    A layer's time is that of its forward; calling it belongs to the caller.
    """

    inside_ns: float
    outside_ns: float

    @property
    def total_ns(self) -> float:
        """Both together: what the step becomes longer by."""
        return self.inside_ns + self.outside_ns


def calibrate(clock: Clock) -> TimerCost | None:
    """The cost of the timer's hooks on this machine now; None on an accelerator, where they run on the host
    while the device works and its events take no time of their own."""
    if not isinstance(clock, HostClock):
        return None
    model = nn.Sequential(*(nn.Identity() for _ in range(LAYERS)))
    x = torch.zeros(1)
    timer = LayerTimer(model, clock)
    layers = [module.forward for module in model]
    rounds = []
    was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            begin = time.perf_counter_ns()
            for forward in layers:
                forward(x)
            forwards = time.perf_counter_ns() - begin
            begin = time.perf_counter_ns()
            model.forward(x)
            bare = time.perf_counter_ns() - begin
            with timer.timing():
                timer.begin()
                model(x)
                *inside, whole = (interval.duration_ns for interval in timer.intervals())
            rounds.append((forwards / LAYERS, bare / LAYERS, sum(inside) / LAYERS, whole / LAYERS))
    finally:
        if was_on:
            gc.enable()
    # medians: a round that another process interrupted does not count
    forward, call, interval, timed_call = (statistics.median(column) for column in zip(*rounds, strict=True))
    inside_ns = max(interval - forward, 0.0)
    outside_ns = max((timed_call - interval) - (call - forward), 0.0)
    return TimerCost(inside_ns, outside_ns)
