"""What timing a layer costs, measured on layers that do nothing, so that it can be taken off."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from roofleet_agent.measuring.clocks import Clock, HostClock
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.pausing import collector_paused

LAYERS = 100
ROUNDS = 60


@dataclass(frozen=True)
class TimerCost:
    """What one timed call adds, in ns: to its own interval, and to the layer around it.

    A layer's time is that of its call, between the instants noted; getting there is the caller's.
    """

    inside_ns: float
    outside_ns: float

    @property
    def total_ns(self) -> float:
        """Both together: what the step becomes longer by."""
        return self.inside_ns + self.outside_ns


def calibrate(clock: Clock) -> TimerCost | None:
    """The cost of noting an instant on this machine now; None on an accelerator, where it is done on the host
    while the device works and its events take no time of their own, and where somebody hooks every module
    there is."""
    if not isinstance(clock, HostClock) or _has_any_global_hook():
        return None
    model = nn.Sequential(*(nn.Identity() for _ in range(LAYERS)))
    x = torch.zeros(1)
    timer = LayerTimer(model, clock)
    layers: list[Any] = [module._call_impl for module in model]
    rounds = []
    with collector_paused():
        for _ in range(ROUNDS):
            begin = time.perf_counter_ns()
            for layer in layers:
                layer(x)
            inner = time.perf_counter_ns() - begin
            begin = time.perf_counter_ns()
            model.forward(x)
            bare = time.perf_counter_ns() - begin
            with timer.timing():
                timer.begin()
                model(x)
                *inside, whole = (interval.duration_ns for interval in timer.intervals())
            rounds.append((inner / LAYERS, bare / LAYERS, sum(inside) / LAYERS, whole / LAYERS))
    # medians: a round that another process interrupted does not count
    medians = (statistics.median(column) for column in zip(*rounds, strict=True))
    inner_call, call, interval, timed_call = medians
    inside_ns = max(interval - inner_call, 0.0)
    outside_ns = max((timed_call - interval) - (call - inner_call), 0.0)
    return TimerCost(inside_ns, outside_ns)
