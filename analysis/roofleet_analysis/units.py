"""The one place where base units become text: `34173816` ns is "34.2 ms", and unknown is "–".

Rates, work and bytes moved are decimal, as vendors state them (GB/s is 10^9); only capacities are binary
(GiB is 2^30). Every function takes None, and what is not a finite number, for unknown. Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime

__all__ = [
    "UNKNOWN",
    "ago_text",
    "bandwidth_text",
    "between_text",
    "capacity_text",
    "clock_text",
    "count_text",
    "dtypes_text",
    "energy_text",
    "exact_text",
    "flops_text",
    "in_unit",
    "intensity_text",
    "moment_text",
    "overhead_text",
    "percent_text",
    "power_text",
    "rate_text",
    "ratio_text",
    "temperature_text",
    "tick_text",
    "time_text",
    "traffic_text",
    "utilization_text",
    "workload_text",
]

UNKNOWN = "–"
"""What stands where a figure is not known."""

Number = int | float | None

_UP = ("", "k", "M", "G", "T", "P", "E")
_DOWN = ("", "m", "µ", "n")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_TIMES = ((1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"))

_DIVISORS = {
    "": 1.0, "ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9,
    "MiB": 2.0**20, "GiB": 2.0**30,
    "GFLOP": 1e9, "GFLOP/s": 1e9, "TFLOP/s": 1e12, "GB": 1e9, "GB/s": 1e9,
    "M": 1e6, "%": 0.01, "J": 1.0, "mJ": 1e-3,
}  # fmt: skip


def time_text(ns: Number) -> str:
    """A duration in ns: "34.2 ms". From two minutes on in minutes, from two hours on in hours."""
    if (value := _known(ns)) is None:
        return UNKNOWN
    if abs(value) >= 7.2e12:
        return f"{_significant(value / 3.6e12)} h"
    if abs(value) >= 1.2e11:
        return f"{_significant(value / 6e10)} min"
    for divisor, unit in reversed(_TIMES):
        if abs(_round3(value)) >= divisor:
            return f"{_significant(value / divisor)} {unit}"
    return f"{_significant(value)} ns"


def flops_text(n: Number) -> str:
    """Work in floating-point operations: "22.3 GFLOP"."""
    return rate_text(n, "FLOP")


def traffic_text(n: Number) -> str:
    """Bytes moved or passed on, decimal: "509 MB"."""
    return rate_text(n, "B")


def rate_text(n: Number, unit: str) -> str:
    """An amount with a decimal prefix before its unit: "196 GFLOP/s", "25.6 token/s"."""
    if (value := _known(n)) is None:
        return UNKNOWN
    number, prefix = _prefixed(value)
    return f"{_significant(number)} {prefix}{unit}"


def bandwidth_text(n: Number) -> str:
    """Bytes per second, decimal: "36.4 GB/s"."""
    return rate_text(n, "B/s")


def capacity_text(n: Number) -> str:
    """Bytes that are held, binary: "492 MiB"."""
    if (value := _known(n)) is None:
        return UNKNOWN
    power = 0
    while abs(round(value)) >= 1024 and power < len(_BINARY) - 1:
        value /= 1024
        power += 1
    number = f"{value:,.0f}" if abs(value) >= 999.5 else _significant(value)
    return f"{number} {_BINARY[power]}"


def count_text(n: Number) -> str:
    """How many: "9,999" in full, "124 M" from ten thousand on."""
    if (value := _known(n)) is None:
        return UNKNOWN
    if abs(value) < 10_000:
        return f"{value:,.0f}" if value == int(value) else _significant(value)
    number, prefix = _prefixed(value)
    return f"{_significant(number)} {prefix}"


def percent_text(fraction: Number) -> str:
    """A fraction of 1 as percent: 0.409 is "40.9 %"."""
    if (value := _known(fraction)) is None:
        return UNKNOWN
    return f"{_significant(value * 100)} %" if abs(value) >= 0.001 or value == 0 else "< 0.1 %"


def utilization_text(fraction: Number, is_least: object = False) -> str:
    """A share of a roof: "at least 31 %" where a part of the work is not known, "133 % (!)" above the roof,
    which is a fault of one of the two."""
    if (value := _known(fraction)) is None:
        return UNKNOWN
    return ("at least " if is_least else "") + percent_text(value) + (" (!)" if value > 1 else "")


def dtypes_text(shares: str | None) -> str:
    """The dtypes of products, from a JSON object of shares: "bf16 90 %, fp32 10 %"; empty for none."""
    found = json.loads(shares) if shares else {}
    if len(found) == 1:
        return str(next(iter(found)))
    return ", ".join(f"{dtype} {percent_text(share)}" for dtype, share in found.items())


def overhead_text(ratio: Number) -> str:
    """What a ratio adds: 1.024 is "+2.4 %", 0.997 is "−0.3 %"."""
    if (value := _known(ratio)) is None:
        return UNKNOWN
    added = round((value - 1) * 100, 1)
    return f"{'−' if added < 0 else '+'}{abs(added):.1f} %"


def between_text(low: Number, high: Number, text: Callable[[Number], str]) -> str:
    """An interval: "1.9 % to 2.4 %"; empty where an end is not known."""
    return "" if _known(low) is None or _known(high) is None else f"{text(low)} to {text(high)}"


def ratio_text(ratio: Number) -> str:
    """A factor: 1.024 is "1.02 ×"."""
    value = _known(ratio)
    return UNKNOWN if value is None else f"{_significant(value)} ×"


def intensity_text(flops_per_byte: Number) -> str:
    """Arithmetic intensity: "22.3 FLOP/byte"."""
    value = _known(flops_per_byte)
    return UNKNOWN if value is None else f"{_significant(value)} FLOP/byte"


def power_text(watts: Number) -> str:
    """Power: "312 W"."""
    return _small(watts, "W")


def energy_text(joules: Number) -> str:
    """Energy: "1.84 kJ", "12.1 mJ"."""
    return _small(joules, "J")


def clock_text(hertz: Number) -> str:
    """A clock: "2.60 GHz"."""
    return rate_text(hertz, "Hz")


def temperature_text(celsius: Number) -> str:
    """A temperature: "54 °C"."""
    value = _known(celsius)
    return UNKNOWN if value is None else f"{value:.0f} °C"


def ago_text(seconds: Number) -> str:
    """How long ago: "3 s ago", "5 min ago", "2 h ago", "9 days ago"."""
    if (value := _known(seconds)) is None:
        return UNKNOWN
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit:
            return f"{max(value, 0) / divisor:.0f} {unit} ago"
    return f"{value / 86_400:.0f} days ago"


def workload_text(batch_size: int, prompt_tokens: int, new_tokens: int) -> str:
    """What a run is given, such as `batch 2, 128 prompt tokens`; inputs without tokens have only a batch."""
    parts = [f"batch {batch_size}"]
    parts += [f"{prompt_tokens} prompt tokens"] if prompt_tokens else []
    parts += [f"{new_tokens} new tokens"] if new_tokens else []
    return ", ".join(parts)


def moment_text(moment: datetime | None) -> str:
    """An instant in UTC, to the minute: "2026-03-01 14:05 UTC". One without a zone is taken as UTC."""
    if moment is None:
        return UNKNOWN
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def exact_text(n: Number, unit: str = "") -> str:
    """The number in its base unit: "34,173,816 ns"; whole numbers have all their digits."""
    if (value := _known(n)) is None:
        return UNKNOWN
    if n is not None and value == int(value):
        digits = f"{int(n):,}"
    else:
        decimals = 0 if abs(value) >= 1e6 else 3 if abs(value) >= 1e3 else 6
        digits = f"{value:,.{decimals}f}" if abs(value) >= 0.001 else f"{value:.4g}"
    return f"{digits} {unit}".rstrip()


def tick_text(n: Number, unit: str) -> str:
    """For axes, with prefixes below one too: "1 GFLOP/s", "100 m"."""
    if (value := _known(n)) is None:
        return UNKNOWN
    number, prefix = _prefixed(value) if abs(value) >= 1 or value == 0 else _downwards(value)
    return f"{number:g} {prefix}{unit}".rstrip()


def in_unit(n: Number, unit: str) -> float | None:
    """A base value as a number in a larger unit, to four digits, for columns whose head names the unit.

    The units are the empty one, ns, µs, ms, s, MiB, GiB, GFLOP, GFLOP/s, TFLOP/s, GB, GB/s, M (millions), %,
    J and mJ; KeyError for another.
    """
    divisor = _DIVISORS[unit]
    value = _known(n)
    return None if value is None else float(f"{value / divisor:.4g}")


def _small(n: Number, unit: str) -> str:
    """Like rate_text, with prefixes below one too."""
    if (value := _known(n)) is None:
        return UNKNOWN
    number, prefix = _prefixed(value) if abs(value) >= 1 or value == 0 else _downwards(value)
    return f"{_significant(number)} {prefix}{unit}"


def _known(n: Number) -> float | None:
    return None if n is None or not math.isfinite(n) else float(n)


def _round3(value: float) -> float:
    return float(f"{value:.3g}")


def _prefixed(value: float) -> tuple[float, str]:
    """The value in the largest prefix that leaves at least one, rounded first: 999,600 is 1 M."""
    power = 0
    while abs(_round3(value)) >= 1000 and power < len(_UP) - 1:
        value /= 1000
        power += 1
    return value, _UP[power]


def _downwards(value: float) -> tuple[float, str]:
    power = 0
    while abs(_round3(value)) < 1 and power < len(_DOWN) - 1:
        value *= 1000
        power += 1
    return value, _DOWN[power]


def _significant(value: float) -> str:
    """Three significant digits and no exponent: 34.2, 0.0123; a whole number stays whole: 80, not 80.0."""
    rounded = _round3(value)
    if rounded == 0:
        return "0"
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    decimals = min(2 - math.floor(math.log10(abs(rounded))), 6)
    return f"{value:.0f}" if value == int(value) else f"{rounded:.{decimals}f}"
