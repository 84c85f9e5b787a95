"""The CPU of a host, read through psutil and, on Linux, the kernel's energy counters."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import psutil

from roofleet_agent.devices.base import DeviceInfo, Reading

RAPL = Path("/sys/class/powercap")


def discover(*, wake: bool = True) -> list[CpuDevice]:
    """Every host has one CPU device."""
    return [CpuDevice()]


class CpuDevice:
    """Implements Device on the host's processor."""

    torch_name = "cpu"

    def __init__(self) -> None:
        self.info = DeviceInfo("cpu", "cpu", cpu_name(), "cpu", 0, memory_bytes())
        psutil.cpu_percent()  # the first call only starts the interval
        self._zones = _rapl_zones()

    def read(self) -> Reading:
        """See Device.read. Utilisation and memory are the whole host's."""
        missing: dict[str, str] = {}
        clock = _clock_hz(missing)
        temperature = _temperature_c(missing)
        missing["power_w"] = "a CPU keeps an energy count, not a power gauge"
        memory = psutil.virtual_memory()
        return Reading(
            utilization=psutil.cpu_percent() / 100,
            memory_used_bytes=int(memory.total - memory.available),
            clock_hz=clock,
            temperature_c=temperature,
            unavailable=missing,
        )

    def energy_j(self) -> float | None:
        """See Device.energy_j: the sum of the processor packages, None without the right to read them."""
        if not self._zones:
            return None
        try:
            return sum(int((zone / "energy_uj").read_text()) for zone in self._zones) / 1e6
        except (PermissionError, OSError):
            return None


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


def usable_threads() -> int:
    """Logical processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Main memory, or the container's limit where that is lower."""
    total = int(psutil.virtual_memory().total)
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        if path.exists() and (text := path.read_text().strip()).isdigit():
            return min(total, int(text))
    return total


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


def _rapl_zones() -> list[Path]:
    """The whole-package counters: `intel-rapl:0`, not its parts `intel-rapl:0:1`."""
    return [z for z in sorted(RAPL.glob("*-rapl:*")) if z.name.count(":") == 1 and (z / "energy_uj").exists()]
