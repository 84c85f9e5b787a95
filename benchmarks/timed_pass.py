"""What layer timing costs: steps bare and timed in turns, with torch's own tools beside it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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

ROUNDS = 5
# Each model with the phases whose figures are reported; the goals are on gpt2's decode and on coverage.
MODELS = {"gpt2": ("decode", "prefill"), "bert-base-uncased": ("forward",)}
Durations = dict[str, list[int]]


def measure() -> list[Figure]:
    """Ratios of paired steps, and how much of the bare step the layers explain."""
    figures = []
    for model, phases in MODELS.items():
        figures += _measure(model, phases)
    return figures


def _measure(model: str, phases: tuple[str, ...]) -> list[Figure]:
    request = resolve(model, "random")
    workload = Workload(prompt_tokens=128, new_tokens=32)
    session = find_engine(request).load(request, torch.device("cpu"), "fp32", workload)
    timer = LayerTimer(session.module, HostClock())
    explained: Durations = {}
    ways: dict[str, Callable[[], Durations]] = {
        "bare": lambda: _steps(session, nullcontext),
        "layer timing": lambda: _timed(session, timer, explained),
        "torch.profiler": lambda: _steps(
            session, lambda: torch.profiler.profile(activities=[ProfilerActivity.CPU])
        ),
        "FlopCounterMode": lambda: _steps(session, lambda: FlopCounterMode(display=False)),
    }
    series: dict[str, Durations] = {name: {} for name in ways}
    with _silence():
        for run in ways.values():
            run()  # warm-up
        explained.clear()
        for _ in range(ROUNDS):
            for name, run in ways.items():
                for phase, durations in run().items():
                    series[name].setdefault(phase, []).extend(durations)
    figures = []
    for phase in phases:
        bare = series["bare"][phase]
        for name in ("layer timing", "torch.profiler", "FlopCounterMode"):
            ratio = statistics.median(a / b for a, b in zip(series[name][phase], bare, strict=True))
            ours = name == "layer timing" and phase == "decode"
            figures.append(
                Figure("timed_pass", f"{name} / bare, {model} {phase}", ratio, goal=1.05 if ours else None)
            )
        coverage = statistics.median(e / b for e, b in zip(explained[phase], bare, strict=True))
        label = f"layer time coverage, {model} {phase}"
        figures.append(Figure("timed_pass", label, coverage, goal=1.05))
        figures.append(Figure("timed_pass", label, coverage, goal=0.95, at_most=False))
        figures.append(
            Figure("timed_pass", f"bare step, {model} {phase}", statistics.median(bare) / 1e6, "ms")
        )
    return figures


def _steps(session: Any, around: Callable[[], AbstractContextManager[Any]]) -> Durations:
    """Durations in ns of the steps of one iteration by phase, each step inside `around`."""
    durations: Durations = {}
    for step in session.iteration():
        with around():
            begin = time.perf_counter_ns()
            step.call()
            duration = time.perf_counter_ns() - begin
        durations.setdefault(step.phase, []).append(duration)
    return durations


def _timed(session: Any, timer: LayerTimer, explained: Durations) -> Durations:
    durations: Durations = {}
    with timer.attached():
        for step in session.iteration():
            timer.begin()
            begin = time.perf_counter_ns()
            step.call()
            durations.setdefault(step.phase, []).append(time.perf_counter_ns() - begin)
            below = sum(i.self_ns for i in timer.intervals() if i.path)
            explained.setdefault(step.phase, []).append(below)
    return durations


@contextmanager
def _silence() -> Iterator[None]:
    """The profiler's library writes to the terminal by itself, past Python."""
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
