"""Any accelerator torch reaches through `torch.accelerator`: CUDA, ROCm, XPU, MPS and others."""

from __future__ import annotations

import importlib.util
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from roofleet_agent.devices import nvml
from roofleet_agent.devices.base import DeviceInfo, Reading

log = logging.getLogger(__name__)

TELLS = (sys.executable, "-m", "roofleet_agent.devices.accelerator")
"""What tells of accelerators and ends: the end of this file."""
TELLS_S = 120.0

# Where drivers show themselves. Without any of these torch, which takes a second to import, is not asked.
_TRACES = (
    "/dev/nvidiactl",
    "/dev/nvidia0",
    "/dev/kfd",
    "/dev/accel",
    "/dev/dri",
    "/dev/dxg",
    "/dev/davinci0",
)


def discover(*, wake: bool = True) -> Sequence[Accelerator]:
    """The accelerators torch can use, none where there is no torch.

    Unless woken, torch is not imported here: where a driver has left its mark, a process that ends at once is
    asked. An agent that stays would hold memory for torch, and a context on each device.
    """
    if importlib.util.find_spec("torch") is None:
        return []
    if not wake:
        return [Accelerator(info, _nvml(info)) for info in _told()] if _driver_is_there() else []
    import torch

    if not torch.accelerator.is_available():
        return []
    return [AcceleratorDevice(index) for index in range(torch.accelerator.device_count())]


def _told() -> list[DeviceInfo]:
    """What a process that imports torch finds; nothing, and a line of the log, if it cannot say."""
    try:
        done = subprocess.run(TELLS, capture_output=True, text=True, timeout=TELLS_S, check=True)
        return [DeviceInfo(**info) for info in json.loads(done.stdout.splitlines()[-1])]
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.warning("the accelerators of this host are not known: %s", said.strip().splitlines()[-1])
        return []


def _driver_is_there() -> bool:
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return apple or any(Path(trace).exists() for trace in _TRACES)


def _nvml(info: DeviceInfo) -> nvml.NvmlDevice | None:
    return nvml.open_device(info.key) if info.backend == "cuda" else None


class Accelerator:
    """Implements Device on one accelerator without torch; NVIDIA's are read through NVML."""

    def __init__(self, info: DeviceInfo, gauges: nvml.NvmlDevice | None) -> None:
        self.info, self._nvml = info, gauges
        self.torch_name = f"{info.backend}:{info.device_index}"

    def read(self) -> Reading:
        """See Device.read."""
        if self._nvml is not None:
            return self._nvml.read()
        why = "only NVIDIA's driver is asked for it as yet"
        missing = dict.fromkeys(("utilization", "power_w", "clock_hz", "temperature_c"), why)
        return Reading(memory_used_bytes=self._memory_used(missing), unavailable=missing)

    def _memory_used(self, missing: dict[str, str]) -> int | None:
        missing["memory_used_bytes"] = "torch tells, which an agent that stays does not load"
        return None

    def energy_j(self) -> float | None:
        """See Device.energy_j."""
        return self._nvml.energy_j() if self._nvml else None

    def processes(self) -> dict[int, str] | None:
        """See TellsProcesses.processes."""
        return self._nvml.processes() if self._nvml else None

    def throttled(self) -> bool | None:
        """See Device.throttled."""
        return self._nvml.throttled() if self._nvml else None


class AcceleratorDevice(Accelerator):
    """The same where torch is loaded, which then tells what it knows."""

    def __init__(self, index: int) -> None:
        import torch

        current = torch.accelerator.current_accelerator()
        backend = current.type if current else "unknown"
        self._module: Any = getattr(torch, backend, None)
        uuid = self._property(index, "uuid")
        info = DeviceInfo(
            key=f"{backend}:{index}" if uuid is None else str(uuid),
            kind="tpu" if backend in ("xla", "tpu") else "gpu",
            name=self._property(index, "name") or backend,
            backend=backend,
            device_index=index,
            memory_bytes=self._property(index, "total_memory"),
        )
        gauges = _nvml(info)
        driver = gauges.driver_version if gauges else None
        super().__init__(replace(info, driver_version=driver), gauges)

    def _property(self, index: int, name: str) -> Any:
        ask = getattr(self._module, "get_device_properties", None)
        return getattr(ask(index), name, None) if ask else None

    def _memory_used(self, missing: dict[str, str]) -> int | None:
        ask = getattr(self._module, "mem_get_info", None)
        if ask is None:
            missing["memory_used_bytes"] = f"torch.{self.info.backend} does not tell"
            return None
        free, total = ask(self.info.device_index)
        return int(total - free)


if __name__ == "__main__":
    print(json.dumps([asdict(device.info) for device in discover()]))
