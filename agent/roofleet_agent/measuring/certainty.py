"""How sure times and ratios are while they are being measured, so that it is known when to stop.

The views work the same intervals out again from what is stored; these only end the iterations.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import NormalDist, stdev

from roofleet_agent.measuring.steps import TimedStep

_Z = NormalDist().inv_cdf(0.975)
FEWEST_PAIRS = 6
"""Pairs below which no 95 % interval of a median exists: 5 lie on one side of it once in 16."""


def mean_margin(logs: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean of logarithms; infinite with fewer than 3.

    Student's quantile by the first terms of its expansion around the normal one (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.5).
    """
    if len(logs) < 3:
        return math.inf
    freedom = len(logs) - 1
    quantile = _Z + 2.372 / freedom + 2.822 / freedom**2 + 2.556 / freedom**3
    return quantile * stdev(logs) / math.sqrt(len(logs))


def median_margin(ordered: Sequence[float], independent: int) -> float:
    """Half of the 95 % interval of a median, by the ranks it lies between; infinite with fewer than 6.

    `ordered` are logarithms in ascending order, of which so many are independent of one another.
    """
    if independent < FEWEST_PAIRS:
        return math.inf
    reach = _Z / 2 / math.sqrt(independent)
    return (_quantile(ordered, 0.5 + reach) - _quantile(ordered, 0.5 - reach)) / 2


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = min(max(share, 0.0), 1.0) * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@dataclass
class _Phase:
    """Logarithms of one phase: each iteration's median, each bare step by iteration and number, and the
    ratios of neighbours in order."""

    middles: list[float] = field(default_factory=list)
    bare: dict[tuple[int, int], float] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)
    timed: int = 0


class Certainty:
    """Takes the steps of iteration after iteration and knows how wide the intervals are by now."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}

    def take(self, steps: Sequence[TimedStep]) -> None:
        """The steps of one iteration in their order."""
        bare: dict[str, list[float]] = {}
        for step in steps:
            self._phases.setdefault(step.step.phase, _Phase())
            if step.kind == "bare":
                log = math.log(max(step.duration_ns, 1))
                bare.setdefault(step.step.phase, []).append(log)
                self._phases[step.step.phase].bare[step.iteration, step.step.step_index] = log
        for phase, logs in bare.items():
            self._phases[phase].middles.append(_quantile(sorted(logs), 0.5))
        for one, other in pairwise(steps):
            if one.step.phase == other.step.phase and one.kind != other.kind:
                timed, alone = (one, other) if one.kind == "timed" else (other, one)
                ratio = math.log(max(timed.duration_ns, 1) / max(alone.duration_ns, 1))
                insort(self._phases[one.step.phase].ratios, ratio)
        for phase, found in self._phases.items():
            found.timed += sum(s.kind == "timed" and s.step.phase == phase for s in steps)

    def difference_margin(self, other: Certainty) -> float:
        """Half of the widest interval of the ratio of two models' bare steps side by side, on logarithms."""
        margins = []
        for phase, found in self._phases.items():
            theirs = other._phases[phase].bare if phase in other._phases else {}
            ratios = sorted(theirs[key] - log for key, log in found.bare.items() if key in theirs)
            margins.append(median_margin(ratios, len(ratios)))
        return max(margins, default=math.inf)

    def time_margin(self) -> float:
        """Half of the widest interval of a phase's typical bare step, on logarithms."""
        return max((mean_margin(found.middles) for found in self._phases.values()), default=math.inf)

    def pair_margins(self) -> dict[str, float]:
        """Half of the interval of timed over bare, on logarithms, of each phase that has pairs."""
        return {
            phase: median_margin(found.ratios, min(found.timed, len(found.ratios)))
            for phase, found in self._phases.items()
            if found.ratios
        }
