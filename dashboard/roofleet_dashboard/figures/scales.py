"""Round ticks for an axis of base units: decimal ones, and powers of two for capacities."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Scale", "binary_scale", "decimal_scale"]

_MOST = 7


@dataclass(frozen=True)
class Scale:
    """The range of an axis, as plotly takes it (exponents of ten on a logarithmic one), and its ticks."""

    span: tuple[float, float]
    ticks: tuple[float, ...]


def decimal_scale(low: float, high: float, is_log: bool) -> Scale:
    """Ticks at 1, 2 and 5 times powers of ten; linear axes begin at 0."""
    if not is_log:
        return _linear(high, _round_up(high / (_MOST - 1)))
    bottom, top = low / 1.4, high * 1.4
    powers = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        inside = tuple(tick for tick in ticks if bottom <= tick <= top)
        if len(inside) <= _MOST:
            break
    return Scale(_exponents(bottom, top), inside)


def binary_scale(low: float, high: float, is_log: bool) -> Scale:
    """Ticks at powers of two; on linear axes, which begin at 0, multiples of one."""
    if not is_log:
        return _linear(high, 2.0 ** math.ceil(math.log2(high / (_MOST - 1))))
    bottom, top = low / 1.4, high * 1.4
    first, last = math.ceil(math.log2(bottom)), math.floor(math.log2(top))
    step = math.ceil((last - first + 1) / _MOST)
    return Scale(_exponents(bottom, top), tuple(2.0**power for power in range(first, last + 1, step)))


def _linear(high: float, step: float) -> Scale:
    count = math.floor(high * 1.06 / step)
    return Scale((0.0, high * 1.06), tuple(step * number for number in range(count + 1)))


def _round_up(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value * (1 - 1e-9))


def _exponents(bottom: float, top: float) -> tuple[float, float]:
    return math.log10(bottom), math.log10(top)
