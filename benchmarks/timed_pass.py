"""What layer timing costs and explains: steps bare and timed in turns, with other tools on the same steps.

The others are torch.profiler, FlopCounterMode and calflops. The machine's speed drifts, so every figure
is a median over steps that followed one another.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figure import Figure
from benchmarks.silence import silence
from roofleet.naming.models import resolve
from roofleet_agent.measuring.calibration import TimerCost, calibrate
from roofleet_agent.measuring.clocks import HostClock
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.steps import Iteration, timed_step
from roofleet_agent.measuring.turns import Turns
from roofleet_agent.registry import find_engine
from roofleet_agent.workload import Workload

PEER_ROUNDS = 3
# Each model with its tokens, rounds (more where an iteration has one step) and the phases that are reported.
MODELS: dict[str, tuple[Workload, tuple[str, ...]]] = {
    "gpt2": (Workload(prompt_tokens=128, new_tokens=32, iterations=21), ("decode", "prefill")),
    "bert-base-uncased": (Workload(prompt_tokens=128, new_tokens=0, iterations=41), ("forward",)),
    "Llama-3.2-1B": (Workload(prompt_tokens=64, new_tokens=8, iterations=9), ("decode", "prefill")),
}
COVERAGE = {"decode": 0.03, "prefill": 0.02, "forward": 0.02}
Steps = dict[tuple[str, int], float]


def measure() -> list[Figure]:
    """Ratios of paired steps, and how much of the bare step the layers explain."""
    figures = []
    for model, (workload, phases) in MODELS.items():
        figures += _measure(model, workload, phases)
    return figures


def _measure(model: str, workload: Workload, phases: tuple[str, ...]) -> list[Figure]:
    request = resolve(model, "random")
    session = find_engine(request).load(request, torch.device("cpu"), "fp32", workload)
    clock = HostClock()
    cost = calibrate(clock)
    assert cost is not None
    turns = Turns(LayerTimer(session.module, clock), cost)
    for number in range(2):
        for step in session.iteration():
            timed_step(step, clock, Iteration(number, True), turns)
    rounds, steps = workload.iterations, max(workload.new_tokens - 1, 0)
    turns.settle({"decode": steps * rounds, "prefill": rounds, "forward": rounds})
    found: dict[str, _Found] = {phase: _Found() for phase in phases}
    for phase in phases:
        for _ in range(rounds):
            found[phase].take(_series(session, phase, turns, cost))
    peers = _peers(session, model)
    figures = []
    for phase in phases:
        overhead = statistics.median(found[phase].overheads)
        figures.append(Figure("timed_pass", f"layer timing / bare, {model} {phase}", overhead, goal=1.03))
        for name, ratios in peers.items():
            figures.append(Figure("timed_pass", f"{name} / bare, {model} {phase}", ratios[phase]))
        # each group of layers is timed in its own steps: the sum over groups explains one step
        coverage = sum(statistics.median(shares) for shares in found[phase].explained.values())
        label, margin = f"layer time coverage, {model} {phase}", COVERAGE[phase]
        figures.append(Figure("timed_pass", label, coverage, goal=1 + margin))
        figures.append(Figure("timed_pass", label, coverage, goal=1 - margin, at_most=False))
        groups = len(found[phase].explained)
        figures.append(Figure("timed_pass", f"groups of layers, {model} {phase}", groups))
        median = statistics.median(found[phase].bare) / 1e6
        figures.append(Figure("timed_pass", f"bare step, {model} {phase}", median, "ms"))
    session.close()
    return figures


@dataclass
class _Call:
    """One step: its time in ns and, if its layers were timed, their group and their own times added up."""

    duration: int
    group: int | None = None
    own: float = 0.0


@dataclass
class _Found:
    """Timed steps over the bare ones before and after, and by group what layers explain of those."""

    overheads: list[float] = field(default_factory=list)
    explained: dict[int, list[float]] = field(default_factory=dict)
    bare: list[float] = field(default_factory=list)

    def take(self, calls: list[_Call]) -> None:
        """Adds steps that were bare and timed in turns, as they followed one another."""
        self.bare += [call.duration for call in calls if call.group is None]
        for before, call, after in zip(calls, calls[1:], calls[2:], strict=False):
            if call.group is not None:
                alone = (before.duration + after.duration) / 2
                self.overheads.append(call.duration / alone)
                self.explained.setdefault(call.group, []).append(call.own / alone)


def _series(session: Any, phase: str, turns: Turns, cost: TimerCost) -> list[_Call]:
    """Steps of a phase that are bare and timed in turns: the decode steps of an iteration, or prefills.

    A timed step has a bare one on either side within a second or so, as in a run.
    """
    singles = (session.single(phase) for _ in range(3))
    calls = []
    for index, step in enumerate(session.iteration() if phase == "decode" else singles):
        if step.phase != phase:
            step.call()
            continue
        if index % 2 == 0 if phase == "decode" else index != 1:
            begin = time.perf_counter_ns()
            step.call()
            calls.append(_Call(time.perf_counter_ns() - begin))
            continue
        group = turns.group(phase)
        with turns.timer.timing(group):
            turns.timer.begin()
            begin = time.perf_counter_ns()
            step.call()
            duration = time.perf_counter_ns() - begin
        calls.append(_Call(duration, group.number, _own_ns(turns.timer.intervals(), cost)))
    return calls


def _own_ns(intervals: list[Any], cost: TimerCost) -> float:
    return sum(
        max(i.self_ns - i.inner_calls * cost.outside_ns - cost.inside_ns, 0.0)
        for i in intervals
        if i.path and i.self_ns is not None
    )


def _peers(session: Any, model: str) -> dict[str, dict[str, float]]:
    """Each other tool's steps over bare ones, median of pairs, by phase."""
    from calflops.calculate_pipline import CalFlopsPipline

    def calflops(call: Callable[[], Any]) -> None:
        counter = CalFlopsPipline(session.module, False, 2.0)
        counter.start_flops_calculate(ignore_list=None)
        call()
        counter.get_total_flops()
        counter.end_flops_calculate()

    def profiler(call: Callable[[], Any]) -> None:
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]):
            call()

    def counter_mode(call: Callable[[], Any]) -> None:
        with FlopCounterMode(display=False):
            call()

    ways = {"torch.profiler": profiler, "FlopCounterMode": counter_mode, "calflops": calflops}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ways}
    with silence():
        for _ in range(PEER_ROUNDS):
            bare = _durations(session, lambda call: call())
            for name, around in ways.items():
                for key, duration in _durations(session, around).items():
                    found[name].setdefault(key[0], []).append(duration / bare[key])
    return {name: {p: statistics.median(r) for p, r in phases.items()} for name, phases in found.items()}


def _durations(session: Any, around: Callable[[Callable[[], Any]], Any]) -> Steps:
    """Duration in ns of each step of an iteration with a tool around it, as its user waits for it."""
    durations: Steps = {}
    for step in session.iteration():
        begin = time.perf_counter_ns()
        around(step.call)
        durations[step.phase, step.step_index] = time.perf_counter_ns() - begin
    return durations
