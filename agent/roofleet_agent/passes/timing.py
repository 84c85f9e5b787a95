"""The timing pass: bare steps and steps with layer times in turns, iteration after iteration.

A timed step has a bare one right before or after it, so that a machine whose speed moves moves both. An
iteration is some prefills on the same prompt, then the decode steps after the last of them (or some forwards
of a model that does not generate); which kind begins changes with every iteration.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from roofleet_agent.conditions import Conditions
from roofleet_agent.engines.base import Step
from roofleet_agent.measuring.calibration import calibrate
from roofleet_agent.measuring.certainty import Certainty
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.steps import Iteration, TimedStep, bare_step, timed_step
from roofleet_agent.measuring.turns import Turns
from roofleet_agent.passes.base import STEP, Found, Subject, of_run
from roofleet_agent.pausing import collector_paused
from roofleet_agent.workload import phases_of

LEAST_ITERATIONS = 6
"""Fewer give no interval of a ratio: see certainty.py."""
MOST_ITERATIONS = 64
"""More are not worth their rows."""
NARROW_TIME = 0.03
NARROW_PAIRS = 0.02
NARROW_DIFFERENCE = 0.01
"""Half widths of the 95 % intervals that are narrow enough: of a step's time, of timed over bare, and of the
ratio of two models in turns."""
_MOST_PAIRS = 8
_SHORT_NS = 50e6
"""Prefills are repeated as long as an iteration spends less than this, or a quarter of its time, on them, and
more often where they are what is known least."""


class Timing:
    """The timing of one subject, a step at a time: models that are compared take turns with theirs.

    `pairs` are the pairs of prefills (or forwards) in an iteration.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.iterations = 0
        self._clock = clock_for(subject.torch_device)
        self._cost = calibrate(self._clock)
        self._turns = Turns(
            LayerTimer(subject.session.module, self._clock, subject.session.opaque), self._cost
        )
        self._phases = phases_of(subject.session.task, subject.session.new_tokens)
        self.pairs = 1
        self.certainty = Certainty()
        self._conditions: Conditions | None = None

    def warm_up(self) -> Iterator[Found]:
        """Iterations that are marked and left out; they show how long steps take and who calls whom."""
        shortest: dict[str, int] = {}
        for number in range(self.subject.workload.warmup):
            with collector_paused():
                steps = list(self._steps(Iteration(number, True, self.subject.began_ns)))
            for step in steps:
                phase = step.step.phase
                shortest[phase] = min(shortest.get(phase, step.duration_ns), step.duration_ns)
            yield from step_rows(steps)
        self._settle(shortest)
        on_cpu = self.subject.torch_device.type == "cpu"
        # not before: the warm-up wakes clocks and compiles
        self._conditions = Conditions(self.subject.device, torch.get_num_threads() if on_cpu else 1)

    def steps(self) -> Iterator[TimedStep]:
        """The steps of the next iteration, each run when it is asked for."""
        number = self.subject.workload.warmup + self.iterations
        return self._steps(Iteration(number, False, self.subject.began_ns))

    def take(self, steps: Sequence[TimedStep]) -> Iterator[Found]:
        """The rows of an iteration that is over."""
        assert self._conditions is not None, "the warm-up comes first"
        self.iterations += 1
        self.certainty.take(steps)
        self._conditions.look()
        self._repeat_what_is_unsure()
        yield from step_rows(steps)

    @property
    def is_narrow(self) -> bool:
        """Whether the intervals are narrow enough by now."""
        certainty = self.certainty
        pairs = max(certainty.pair_margins().values(), default=0.0)
        return certainty.time_margin() <= NARROW_TIME and pairs <= NARROW_PAIRS

    def is_told_from(self, other: Timing) -> bool:
        """Whether the ratio of the two is known well enough by now."""
        return self.certainty.difference_margin(other.certainty) <= NARROW_DIFFERENCE

    def ended(self, by: str) -> Found:
        """Columns of the run that are known when the iterations are over; `by` says what ended them."""
        assert self._conditions is not None, "the warm-up comes first"
        columns = self._conditions.row() | {"iterations": self.iterations, "iterations_ended_by": by}
        if self._cost is not None:
            columns |= {"timer_inside_ns": self._cost.inside_ns, "timer_outside_ns": self._cost.outside_ns}
        return of_run(**columns)

    def _settle(self, shortest: dict[str, int]) -> None:
        decode_steps = max(self.subject.session.new_tokens - 1, 0)
        once = shortest.get(self._phases[0])
        if once:
            room = max(0.25 * decode_steps * shortest.get("decode", 0), _SHORT_NS)
            self.pairs = min(max(math.floor(room / (2 * once)), 1), _MOST_PAIRS)
        iterations = self.subject.workload.iterations or LEAST_ITERATIONS
        each = {"decode": decode_steps // 2}
        self._turns.settle({phase: each.get(phase, self.pairs) * iterations for phase in self._phases})

    def _repeat_what_is_unsure(self) -> None:
        """One more pair of prefills in the next iteration where they are what is known least."""
        margins = self.certainty.pair_margins()
        mine = margins.get(self._phases[0], 0.0)
        if mine > NARROW_PAIRS and mine >= max(margins.values()):
            self.pairs = min(self.pairs + 1, _MOST_PAIRS)

    def _steps(self, iteration: Iteration) -> Iterator[TimedStep]:
        for step in self._sequence():
            if (step.step_index + iteration.number) % 2 == 0:
                yield bare_step(step, self._clock, iteration)
            else:
                yield timed_step(step, self._clock, iteration, self._turns)

    def _sequence(self) -> Iterator[Step]:
        session, first = self.subject.session, self._phases[0]
        repeats = 2 * self.pairs - 1
        for index in range(repeats):
            yield replace(session.single(first), step_index=index)
        for step in session.iteration():
            yield replace(step, step_index=repeats) if step.phase == first else step


def timing(subject: Subject) -> Iterator[Found]:
    """The pass of one run by itself."""
    for _, found in in_turns([Timing(subject)]):
        yield found


def in_turns(timings: Sequence[Timing]) -> Iterator[tuple[int, Found]]:
    """Warm-ups, then iterations side by side until all is known well enough or the time is up; tells which of
    them found what.

    The workload of the first says how many iterations there are, or for how long at most.
    """
    subject = timings[0].subject
    asked, budget_s = subject.workload.iterations, subject.workload.budget_s * len(timings)
    subject.progress("warm-up", 0.15)
    for number, one in enumerate(timings):
        for found in one.warm_up():
            yield number, found
    began = time.perf_counter()
    by = None
    while by is None:
        done, spent_s = timings[0].iterations, time.perf_counter() - began
        share = done / asked if asked else max(spent_s / budget_s, done / MOST_ITERATIONS)
        of = asked or MOST_ITERATIONS
        subject.progress(f"measuring{STEP}{done + 1} of {of}", 0.15 + 0.7 * min(share, 1.0))
        for number, steps in enumerate(_side_by_side(timings)):
            for found in timings[number].take(steps):
                yield number, found
        by = _ended_by(timings, asked, time.perf_counter() - began, budget_s)
    for number, one in enumerate(timings):
        yield number, one.ended(by)


def _side_by_side(timings: Sequence[Timing]) -> list[list[TimedStep]]:
    """An iteration of each, step by step in turns; which of them goes first changes with every second step.

    With every step it would be the same one in all bare steps and in all timed ones: it finds its own weights
    in the caches, which the other one does not.
    """
    done: list[list[TimedStep]] = [[] for _ in timings]
    for one in timings:
        one.pairs = max(other.pairs for other in timings)
    running = dict(enumerate(one.steps() for one in timings))
    place = 2 * timings[0].iterations
    with collector_paused():
        while running:
            for number in sorted(running, reverse=place // 2 % 2 == 1):
                if (step := next(running[number], None)) is None:
                    del running[number]
                else:
                    done[number].append(step)
            place += 1
    return done


def _ended_by(timings: Sequence[Timing], asked: int | None, spent_s: float, budget_s: float) -> str | None:
    done = timings[0].iterations
    if asked is not None:
        return "asked" if done >= asked else None
    if done < LEAST_ITERATIONS:
        return None
    first = timings[0]
    if len(timings) == 1 and first.is_narrow:
        return "interval"
    if len(timings) > 1 and all(first.is_told_from(one) for one in timings[1:]):
        return "interval"
    if spent_s >= budget_s:
        return "budget"
    return "most" if done >= MOST_ITERATIONS else None


def step_rows(steps: Sequence[TimedStep]) -> Iterator[Found]:
    """The rows of `steps`, and of `spans` for those that have layer times."""
    yield Found(
        "steps",
        [
            {
                "phase": s.step.phase,
                "pass": s.kind,
                "iteration": s.iteration,
                "step_index": s.step.step_index,
                "is_warmup": s.is_warmup,
                "start_ns": s.start_ns,
                "duration_ns": s.duration_ns,
                "tokens": s.step.tokens,
                "cache_tokens": s.step.cache_tokens,
                "layer_group": s.layer_group,
            }
            for s in steps
        ],
    )
    yield Found(
        "spans",
        [
            {
                "phase": s.step.phase,
                "iteration": s.iteration,
                "step_index": s.step.step_index,
                "path": interval.path,
                "start_ns": interval.start_ns,
                "duration_ns": interval.duration_ns,
                "self_ns": interval.self_ns,
                "inner_calls": interval.inner_calls,
            }
            for s in steps
            for interval in s.intervals
        ],
    )
