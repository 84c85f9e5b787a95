"""The clock of leases: seconds that go on while the machine sleeps, the same in every process of it."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_s() -> float:
    """Seconds since some fixed moment."""
    return time.clock_gettime(_CLOCK)
