"""Any accelerator torch reaches through `torch.accelerator`: CUDA, ROCm, XPU, MPS and others."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from typing import Any

from roofleet_agent.devices import nvml
from roofleet_agent.devices.base import DeviceInfo, Reading

# Where drivers show themselves. Without any of these torch, which takes a second and 200 MB to import, is
# not asked.
_TRACES = (
    "/dev/nvidiactl",
    "/dev/nvidia0",
    "/dev/kfd",
    "/dev/accel",
    "/dev/dri",
    "/dev/dxg",
    "/dev/davinci0",
)


def discover(*, wake: bool = True) -> list[AcceleratorDevice]:
    """The accelerators torch can use, none where there is no torch.

    Unless woken, torch is only imported on hosts where a driver has left its mark.
    """
    if importlib.util.find_spec("torch") is None or not (wake or _driver_is_there()):
        return []
    import torch

    if not torch.accelerator.is_available():
        return []
    return [AcceleratorDevice(index) for index in range(torch.accelerator.device_count())]


def _driver_is_there() -> bool:
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return apple or any(Path(trace).exists() for trace in _TRACES)


class AcceleratorDevice:
    """Implements Device on one accelerator; NVIDIA's are read through NVML."""

    def __init__(self, index: int) -> None:
        import torch

        current = torch.accelerator.current_accelerator()
        backend = current.type if current else "unknown"
        self._module: Any = getattr(torch, backend, None)
        self.torch_name = f"{backend}:{index}"
        self._nvml = nvml.open_device(self._uuid(index)) if backend == "cuda" else None
        self.info = DeviceInfo(
            key=self._uuid(index) or self.torch_name,
            kind="tpu" if backend in ("xla", "tpu") else "gpu",
            name=self._property(index, "name") or backend,
            backend=backend,
            device_index=index,
            memory_bytes=self._property(index, "total_memory"),
            driver_version=self._nvml.driver_version if self._nvml else None,
        )
        self._index = index

    def _property(self, index: int, name: str) -> Any:
        ask = getattr(self._module, "get_device_properties", None)
        return getattr(ask(index), name, None) if ask else None

    def _uuid(self, index: int) -> str | None:
        uuid = self._property(index, "uuid")
        return None if uuid is None else str(uuid)

    def read(self) -> Reading:
        """See Device.read."""
        if self._nvml is not None:
            return self._nvml.read()
        why = "only NVIDIA's driver is asked for it as yet"
        missing = dict.fromkeys(("utilization", "power_w", "clock_hz", "temperature_c"), why)
        return Reading(memory_used_bytes=self._memory_used(missing), unavailable=missing)

    def _memory_used(self, missing: dict[str, str]) -> int | None:
        ask = getattr(self._module, "mem_get_info", None)
        if ask is None:
            missing["memory_used_bytes"] = f"torch.{self.info.backend} does not tell"
            return None
        free, total = ask(self._index)
        return int(total - free)

    def energy_j(self) -> float | None:
        """See Device.energy_j."""
        return self._nvml.energy_j() if self._nvml else None

    def processes(self) -> dict[int, str] | None:
        """See TellsProcesses.processes."""
        return self._nvml.processes() if self._nvml else None

    def throttled(self) -> bool | None:
        """See Device.throttled."""
        return self._nvml.throttled() if self._nvml else None
