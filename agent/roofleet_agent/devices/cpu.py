"""The CPU of a host, read through psutil and, on Linux, the kernel's energy counters."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import psutil

from roofleet_agent.devices.base import DeviceInfo, Reading

RAPL = Path("/sys/class/powercap")
PROCESSORS = Path("/sys/devices/system/cpu")


def discover(*, wake: bool = True) -> list[CpuDevice]:
    """Every host has one CPU device."""
    return [CpuDevice()]


class CpuDevice:
    """Implements Device on the host's processor."""

    torch_name = "cpu"

    def __init__(self) -> None:
        self.info = DeviceInfo("cpu", "cpu", cpu_name(), "cpu", 0, memory_bytes())
        psutil.cpu_percent()  # the first call only starts the interval
        self._packages = rapl_packages()
        self._throttles = throttle_count()

    def read(self) -> Reading:
        """See Device.read. Utilisation is the whole host's, memory the container's where that has a limit."""
        missing: dict[str, str] = {}
        clock = _clock_hz(missing)
        temperature = _temperature_c(missing)
        missing["power_w"] = "a CPU keeps an energy count, not a power gauge"
        return Reading(
            utilization=psutil.cpu_percent() / 100,
            memory_used_bytes=memory_used_bytes(),
            clock_hz=clock,
            temperature_c=temperature,
            unavailable=missing,
        )

    def energy_j(self) -> float | None:
        """See Device.energy_j: the sum of the processor packages, None without the right to read them."""
        if not self._packages:
            return None
        try:
            return sum(package.read_j() for package in self._packages)
        except OSError:
            return None

    def throttled(self) -> bool | None:
        """See Device.throttled."""
        before, self._throttles = self._throttles, throttle_count()
        return None if before is None or self._throttles is None else self._throttles > before


class RaplPackage:
    """One processor package's energy counter, which starts again from 0 when it is full."""

    def __init__(self, zone: Path) -> None:
        self._zone = zone
        self._last_uj: int | None = None
        self._total_uj = 0

    def read_j(self) -> float:
        """Energy in J since the first reading; OSError without the right to read it."""
        now = int((self._zone / "energy_uj").read_text())
        if self._last_uj is not None:
            grown = now - self._last_uj
            if grown < 0:
                grown += int((self._zone / "max_energy_range_uj").read_text())
            self._total_uj += grown
        self._last_uj = now
        return self._total_uj / 1e6


def cpu_name() -> str:
    """The processor's marketing name, or its architecture where the system does not tell."""
    if platform.system() == "Linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Model\t", "Hardware")):
                return line.split(":", 1)[1].strip()
    elif platform.system() == "Darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def throttle_count(folder: Path = PROCESSORS) -> int | None:
    """How often the cores were slowed for heat since the system started; None where it is not counted."""
    counts = [_text(place) for place in folder.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return sum(int(count) for count in counts if count.isdigit()) if counts else None


def usable_threads() -> int:
    """Logical processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# limit and use of the container's memory, in cgroups of version 2 and 1
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def memory_bytes() -> int:
    """Main memory, or the container's limit where that is lower."""
    limit = _container_memory()
    total = int(psutil.virtual_memory().total)
    return total if limit is None else limit[0]


def memory_used_bytes() -> int:
    """Memory in use, of the same thing that `memory_bytes` is the size of."""
    limit = _container_memory()
    if limit is not None:
        return limit[1]
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def _container_memory() -> tuple[int, int] | None:
    total = int(psutil.virtual_memory().total)
    for limit, used in _CGROUPS:
        size, use = _text(Path(limit)), _text(Path(used))
        if size.isdigit() and use.isdigit() and int(size) < total:
            return int(size), int(use)
    return None


def _clock_hz(missing: dict[str, str]) -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (OSError, RuntimeError, NotImplementedError) as error:
        missing["clock_hz"] = f"the system does not tell: {error}"
        return None
    if clock is None or not clock.current:
        missing["clock_hz"] = "the system does not tell"
        return None
    return float(clock.current) * 1e6


def _temperature_c(missing: dict[str, str]) -> float | None:
    read = getattr(psutil, "sensors_temperatures", None)
    sensors = read() if read else {}
    for chip in ("coretemp", "k10temp", "zenpower", "cpu_thermal"):
        if sensors.get(chip):
            return max(float(sensor.current) for sensor in sensors[chip])
    missing["temperature_c"] = "no sensor is visible (usual in virtual machines and containers)"
    return None


def rapl_packages(folder: Path = RAPL) -> list[RaplPackage]:
    """The packages' counters: not their parts (`intel-rapl:0:1`), nor `psys`, which has them in it."""
    zones = [zone for zone in sorted(folder.glob("*-rapl:*")) if zone.name.count(":") == 1]
    return [RaplPackage(zone) for zone in zones if _text(zone / "name").startswith("package")]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
