"""Gauges of NVIDIA devices through NVML (package nvidia-ml-py, imported as pynvml)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

from roofleet_agent.devices.base import Reading

Value = TypeVar("Value")


def open_device(uuid: str | None) -> NvmlDevice | None:
    """The NVML view of the device with that UUID; None where there is no NVML or no such device."""
    if uuid is None or importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None
    return NvmlDevice(pynvml, handle)


def _process_name(pid: int) -> str:
    """The name of a process of this machine; empty for one that is not to be seen, as from a container."""
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return ""


class NvmlDevice:
    """Reads one device; a gauge the driver refuses is None with the driver's reason."""

    def __init__(self, pynvml: Any, handle: Any) -> None:
        self._nvml = pynvml
        self._handle = handle
        self._held_ns = 0
        self.driver_version = str(pynvml.nvmlSystemGetDriverVersion())

    def read(self) -> Reading:
        """The gauges now, in base units."""
        n, missing = self._nvml, dict[str, str]()
        utilization = self._try("utilization", n.nvmlDeviceGetUtilizationRates, missing)
        memory = self._try("memory_used_bytes", n.nvmlDeviceGetMemoryInfo, missing)
        power = self._try("power_w", n.nvmlDeviceGetPowerUsage, missing)
        clock = self._try(
            "clock_hz", lambda handle: n.nvmlDeviceGetClockInfo(handle, n.NVML_CLOCK_SM), missing
        )
        temperature = self._try(
            "temperature_c",
            lambda handle: n.nvmlDeviceGetTemperature(handle, n.NVML_TEMPERATURE_GPU),
            missing,
        )
        return Reading(
            utilization=None if utilization is None else utilization.gpu / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            power_w=None if power is None else power / 1e3,  # milliwatts
            clock_hz=None if clock is None else clock * 1e6,  # megahertz
            temperature_c=None if temperature is None else float(temperature),
            unavailable=missing,
        )

    def energy_j(self) -> float | None:
        """Energy since the driver was loaded; None on devices older than Volta."""
        millijoules = self._try("energy_j", self._nvml.nvmlDeviceGetTotalEnergyConsumption, {})
        return None if millijoules is None else millijoules / 1e3

    def throttled(self) -> bool | None:
        """Whether heat or the board's power limit slowed its clocks since this was last asked."""
        n = self._nvml
        policies = (n.NVML_PERF_POLICY_THERMAL, n.NVML_PERF_POLICY_BOARD_LIMIT)
        times = [self._held_back_ns(policy) for policy in policies]
        if None in times:
            return None
        before, self._held_ns = self._held_ns, sum(time for time in times if time is not None)
        return self._held_ns > before

    def processes(self) -> dict[int, str] | None:
        """Names of the processes that compute or draw on it, by number; None if the driver does not tell."""
        n, found = self._nvml, dict[int, str]()
        for ask in (n.nvmlDeviceGetComputeRunningProcesses, n.nvmlDeviceGetGraphicsRunningProcesses):
            listed = self._try("processes", ask, {})
            if listed is None:
                return None
            for process in listed:
                found[int(process.pid)] = _process_name(int(process.pid))
        return found

    def _held_back_ns(self, policy: int) -> int | None:
        status = self._try("throttled", lambda h: self._nvml.nvmlDeviceGetViolationStatus(h, policy), {})
        return None if status is None else int(status.violationTime)

    def _try(self, gauge: str, ask: Callable[[Any], Value], missing: dict[str, str]) -> Value | None:
        try:
            return ask(self._handle)
        except self._nvml.NVMLError as error:
            missing[gauge] = str(error)
            return None
