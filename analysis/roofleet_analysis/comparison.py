"""Whether two runs differ: intervals of typical times, the ratio of two, and what it allows to say.

The steps of one iteration are not independent of one another (a machine that slows down slows them all), so
an iteration is one observation: the median of its steps. Times spread evenly in their logarithms, where a
ratio is a difference. The views of the store do the same arithmetic in SQL; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance
from typing import Literal

SAME = 0.02
"""A difference under this share is none."""
FEWEST = 3
"""Iterations below which there is no interval."""
FEWEST_PAIRS = 6
"""Pairs of steps below which a median has no interval."""
LAYER_SPREAD = 3
"""How much more repeats of one layer differ than those of the whole step, on logarithms.

Found on a quiet processor with two starts of one model: 11 % apart in the step, at most 54 % in one layer.
"""

Place = tuple[int, int]
"""Iteration of a step, and its number in the phase."""
Verdict = Literal["faster", "slower", "same", "unclear"]

# the normal quantile of 97.5 %, then the factors of 1/f, 1/f^2, ... for f degrees of freedom
_T_TERMS = (
    1.959963984540054,
    2.372271230298562,
    2.8224986157396112,
    2.555849679507722,
    1.5895340533938225,
    0.7328982119816051,
    0.6,
)


@dataclass(frozen=True)
class Sample:
    """Mean and squared standard error of the logarithms of so many iterations' times in ns.

    `square` is None with one iteration.
    """

    middle: float
    square: float | None
    iterations: int

    @property
    def typical_ns(self) -> float:
        """The typical time: the geometric mean of the iterations, in ns."""
        return math.exp(self.middle)

    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the typical time in ns; None with fewer than 3 iterations."""
        if self.square is None or self.iterations < FEWEST:
            return None
        margin = t_quantile(self.iterations - 1) * math.sqrt(self.square)
        return math.exp(self.middle - margin), math.exp(self.middle + margin)


@dataclass(frozen=True)
class Change:
    """A run's typical time over the baseline's, with its 95 % confidence interval and what it allows to say.

    `low` and `high` are None with fewer than 3 iterations on one side. `why` says what makes it `unclear`.
    """

    ratio: float
    low: float | None
    high: float | None
    verdict: Verdict
    why: str | None


def t_quantile(freedom: float) -> float:
    """The t that 97.5 % of Student's distribution lie below, for 2 degrees of freedom and more, to 0.01 %.

    The expansion around the normal quantile of Abramowitz and Stegun, Handbook of Mathematical Functions,
    26.7.5, one term further, with a last term fitted to the tables.
    """
    value = 0.0
    for term in reversed(_T_TERMS):
        value = value / freedom + term
    return value


def sample(times_ns: Sequence[float]) -> Sample | None:
    """The sample of the iterations' times in ns; None if there is none. ValueError for a time that is not
    above 0."""
    if not times_ns:
        return None
    if min(times_ns) <= 0:
        raise ValueError(f"a time of {min(times_ns)} ns has no logarithm: give times above 0")
    logs = [math.log(time) for time in times_ns]
    square = variance(logs) / len(logs) if len(logs) > 1 else None
    return Sample(fmean(logs), square, len(logs))


def compare(
    baseline: Sample,
    run: Sample,
    baseline_noise: str | None = None,
    noise: str | None = None,
    spread: float | None = None,
) -> Change:
    """What changed from the baseline to the run, by Welch's t on the logarithms.

    The noise is why a side is too noisy to tell, None where it is quiet. `spread` is the most that quiet
    repeats of either run differ from one another, as a ratio; None without repeats. Nothing is faster or
    slower whose interval includes no difference, which differs by less than 2 %, by no more than repeats do,
    or of which one side is noisy.
    """
    difference = run.middle - baseline.middle
    ratio = math.exp(difference)
    margin = _margin(baseline, run)
    low = None if margin is None else math.exp(difference - margin)
    high = None if margin is None else math.exp(difference + margin)
    verdict, why = _judged(ratio, low, high, baseline_noise, noise, spread)
    return Change(ratio, low, high, verdict, why)


def compare_in_turns(baseline: Mapping[Place, float], run: Mapping[Place, float]) -> Change | None:
    """What changed between two runs whose steps took turns: times in ns by iteration and number of the step.

    What the machine did in a step it did to its neighbour, so each is held against the one of the same place:
    the change is the median of the ratios, its interval lies between ranks, and no other noise counts. None
    without a common step; no interval with fewer than 6.
    """
    ratios = sorted(run[place] / baseline[place] for place in baseline.keys() & run.keys())
    if not ratios:
        return None
    ratio = median(ratios)
    if (interval := median_interval(ratios)) is None:
        return Change(ratio, None, None, "unclear", f"fewer than {FEWEST_PAIRS} pairs of steps")
    return Change(ratio, *interval, *_judged(ratio, *interval, None, None, None))


def median_interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median of values in ascending order, by the ranks it lies between; None with
    fewer than 6: five lie on one side of it once in 16."""
    if len(ordered) < FEWEST_PAIRS:
        return None
    reach, last = 0.98 / math.sqrt(len(ordered)), len(ordered) - 1
    low, high = math.floor((0.5 - reach) * last), math.ceil((0.5 + reach) * last)
    return ordered[max(low, 0)], ordered[min(high, last)]


def _margin(a: Sample, b: Sample) -> float | None:
    if a.square is None or b.square is None or min(a.iterations, b.iterations) < FEWEST:
        return None
    both = a.square + b.square
    if both == 0:
        return 0.0
    # Welch and Satterthwaite's degrees of freedom, by each side's share of the squared error
    freedom = 1 / ((a.square / both) ** 2 / (a.iterations - 1) + (b.square / both) ** 2 / (b.iterations - 1))
    return t_quantile(freedom) * math.sqrt(both)


def _judged(
    ratio: float,
    low: float | None,
    high: float | None,
    baseline_noise: str | None,
    noise: str | None,
    spread: float | None,
) -> tuple[Verdict, str | None]:
    if baseline_noise is not None:
        return "unclear", f"the baseline is too noisy: {baseline_noise}"
    if noise is not None:
        return "unclear", f"the run is too noisy: {noise}"
    if low is None or high is None:
        return "unclear", f"fewer than {FEWEST} iterations on one side"
    # two repeats differ by their ratio itself, rounding aside
    if spread is not None and spread > 1 + SAME and max(ratio, 1 / ratio) <= spread * (1 + 1e-9):
        return "unclear", f"repeats of the same run can differ by {(spread - 1) * 100:.1f} %"
    if low >= 1 - SAME and high <= 1 + SAME:
        return "same", None
    if high < 1 and ratio <= 1 - SAME:
        return "faster", None
    if low > 1 and ratio >= 1 + SAME:
        return "slower", None
    if low <= 1 <= high:
        return "unclear", "the interval includes no difference"
    return "unclear", "the difference is under 2 %"
