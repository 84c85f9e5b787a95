"""The conditions a run was measured under: other work, clocks, throttling, and where it was let run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from roofleet_agent.devices.base import Device, TellsProcesses

QUIET = 0.1
"""Share of the processors that other work may take before a measurement was disturbed by it."""
_FREQUENCY = Path("/sys/devices/system/cpu")


class Conditions:
    """Watches the machine from its making until `row` is asked for."""

    def __init__(self, device: Device, threads: int = 1) -> None:
        """`threads` are those the run computes with on the processor."""
        self._device, self._threads = device, threads
        self._clocks: list[float] = []
        self._throttled: bool | None = device.throttled() and None  # asked, so that the past does not count
        self._cpus = _affinity()
        self._began = _Load.now(self._cpus)
        self._others: dict[int, str] = {}
        self.look()

    def look(self) -> None:
        """Reads clock and throttling; call it between iterations."""
        clock = self._device.read().clock_hz
        if clock is not None:
            self._clocks.append(clock)
        held = self._device.throttled()
        if held is not None:
            self._throttled = bool(self._throttled) or held
        if isinstance(self._device, TellsProcesses):
            self._others |= others_on(self._device.processes() or {})

    def row(self) -> dict[str, Any]:
        """Columns of `runs`; None where the system does not tell."""
        other_load = _Load.now(self._cpus).other_since(self._began, self._threads)
        return {
            "disturbed_by": self._disturbed_by(other_load),
            "affinity": None if self._cpus is None else ranges(self._cpus),
            "governor": governor(self._cpus),
            "other_load": other_load,
            "clock_low_hz": min(self._clocks, default=None),
            "clock_high_hz": max(self._clocks, default=None),
            "throttled": self._throttled,
        }

    def _disturbed_by(self, other_load: float | None) -> str | None:
        """What else was at work, in words; None if nothing was seen."""
        if self._others:
            named = [f"{name or 'a process'} ({pid})" for pid, name in sorted(self._others.items())]
            more = f" and {len(named) - 5} more" if len(named) > 5 else ""
            return f"on the device beside it: {', '.join(named[:5])}{more}"
        if self._device.info.kind == "cpu" and other_load is not None and other_load > QUIET:
            return f"other work took {other_load:.0%} of the processors"
        return None


def others_on(processes: Mapping[int, str]) -> dict[int, str]:
    """Those that are not this process, nor of its family.

    A driver may count processes otherwise than a container does. Then this one is not among them by its own
    number, and one that is not to be seen from here is taken to be it.
    """
    me = psutil.Process()
    mine = {me.pid, *(child.pid for child in me.children(recursive=True))}
    others = {pid: name for pid, name in processes.items() if pid not in mine}
    if len(others) == len(processes):
        unseen = [pid for pid, name in sorted(others.items()) if not name]
        for pid in unseen[-1:]:
            del others[pid]
    return others


def load_now(threads: int, listen_s: float) -> float | None:
    """Share that other work takes of the processors needed for so many threads, by listening for a moment;
    None where the system does not tell."""
    cpus = _affinity()
    began = _Load.now(cpus)
    time.sleep(listen_s)
    return _Load.now(cpus).other_since(began, threads)


class _Load:
    """Seconds of processor time: spent by this process, by all, and that there were to spend."""

    def __init__(self, own_s: float, all_s: float, at_s: float, processors: int) -> None:
        self._own_s, self._all_s, self._at_s, self._processors = own_s, all_s, at_s, processors

    @classmethod
    def now(cls, cpus: list[int] | None) -> _Load:
        own = psutil.Process().cpu_times()
        every = psutil.cpu_times(percpu=True)
        mine = [every[cpu] for cpu in cpus if cpu < len(every)] if cpus else every
        used = sum(sum(t) - t.idle - getattr(t, "iowait", 0.0) - _guest(t) for t in mine)
        return cls(own.user + own.system, used, time.monotonic(), len(mine))

    def other_since(self, began: _Load, threads: int) -> float | None:
        """Share that others took of as many processors as there are threads; what they did on processors left
        free does not count. None where the system counts nothing."""
        wall, used = self._at_s - began._at_s, self._all_s - began._all_s
        if wall <= 0 or used <= 0:
            return None
        needed = min(threads, self._processors)
        others = max(used - (self._own_s - began._own_s), 0.0)
        in_the_way = max(others - (self._processors - needed) * wall, 0.0)
        return min(in_the_way / (needed * wall), 1.0)


def _guest(times: Any) -> float:
    # the kernel counts a guest's time a second time, in its user time
    return float(getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0))


def _affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def ranges(cpus: list[int]) -> str:
    """Numbers in order as text: [0, 1, 2, 5] is `0-2,5`."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)


def governor(cpus: list[int] | None, folder: Path = _FREQUENCY) -> str | None:
    """Frequency governors of the processors, more than one joined with `,`; None where none is to be seen."""
    found = set()
    for cpu in cpus or ():
        try:
            found.add((folder / f"cpu{cpu}" / "cpufreq" / "scaling_governor").read_text().strip())
        except OSError:
            return None
    return ",".join(sorted(found)) or None
