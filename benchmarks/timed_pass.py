"""What layer timing costs: decode steps of gpt2, bare and timed in turns, and torch's own tools beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figure import Figure
from roofleet.models import resolve
from roofleet_agent.measuring.clocks import HostClock
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.registry import find_engine
from roofleet_agent.workload import Workload

ROUNDS = 6
NEW_TOKENS = 24


def measure() -> list[Figure]:
    """Ratios of paired decode steps, and how much of the bare step the layers explain."""
    request = resolve("gpt2", "random")
    session = find_engine(request).load(
        request, torch.device("cpu"), "fp32", Workload(prompt_tokens=128, new_tokens=NEW_TOKENS)
    )
    timer = LayerTimer(session.module, HostClock())
    explained: list[int] = []

    def bare() -> list[int]:
        return _decode_steps(session, nullcontext)

    def timed() -> list[int]:
        with timer.attached():
            return _decode_steps(session, nullcontext, timer, explained)

    def profiled() -> list[int]:
        return _decode_steps(session, lambda: torch.profiler.profile(activities=[ProfilerActivity.CPU]))

    def counted() -> list[int]:
        return _decode_steps(session, lambda: FlopCounterMode(display=False))

    bare(), timed()  # warm-up
    explained.clear()
    series: dict[str, list[int]] = {"bare": [], "timed": [], "profiled": [], "counted": []}
    for _ in range(ROUNDS):
        for name, run in (("bare", bare), ("timed", timed), ("profiled", profiled), ("counted", counted)):
            series[name] += run()

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(series[name], series["bare"], strict=True))

    coverage = statistics.median(explained) / statistics.median(series["bare"])
    low, high = 0.95, 1.05
    return [
        Figure("timed_pass", "layer timing / bare, gpt2 decode", ratio("timed"), goal=1.05),
        Figure("timed_pass", "torch.profiler / bare", ratio("profiled")),
        Figure("timed_pass", "FlopCounterMode / bare", ratio("counted")),
        Figure("timed_pass", "layer time coverage, gpt2 decode", coverage, goal=high),
        Figure("timed_pass", "the same", coverage, goal=low, at_most=False),
        Figure("timed_pass", "bare decode step", statistics.median(series["bare"]) / 1e6, "ms"),
    ]


def _decode_steps(
    session: Any,
    around: Callable[[], AbstractContextManager[Any]],
    timer: LayerTimer | None = None,
    explained: list[int] | None = None,
) -> list[int]:
    """Durations in ns of the decode steps of one iteration, each inside `around`."""
    durations = []
    for step in session.iteration():
        with around():
            if timer is not None:
                timer.begin()
            begin = time.perf_counter_ns()
            step.call()
            duration = time.perf_counter_ns() - begin
        if step.phase != "decode":
            continue
        durations.append(duration)
        if timer is not None and explained is not None:
            explained.append(sum(i.self_ns for i in timer.intervals() if i.path))
    return durations
